package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoal-edge/shoal/test/load"
	"github.com/shoal-edge/shoal/test/site"
)

// BenchmarkWritesEtcd is the same for etcd, of which it asks for less: no TLS, and values that mean nothing.
func BenchmarkWritesEtcd(b *testing.B) {
	for _, size := range []int{1, 3} {
		b.Run(fmt.Sprintf("system=etcd/servers=%d", size), func(b *testing.B) {
			need(b, "etcd")
			addresses := startEtcd(b, size)
			value := bytes.Repeat([]byte("x"), objectSize)
			round := 0
			for _, clients := range []int{1, 16, 64} {
				b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
					conns := make([]*grpc.ClientConn, min(clients, 8))
					for i := range conns {
						c, err := grpc.NewClient(addresses[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
						if err != nil {
							b.Fatal(err)
						}
						defer func() { _ = c.Close() }()
						conns[i] = c
					}
					round++
					load.Run(b, clients, func(ctx context.Context, client, request int) error {
						return etcdPut(ctx, conns[client%len(conns)], fmt.Sprintf("bench-%d-%d", round, request), value)
					})
				})
			}
		})
	}
}

// etcdPut is etcdserverpb.KV/Put, whose request has the key as its first field and the value as its second.
func etcdPut(ctx context.Context, c *grpc.ClientConn, key string, value []byte) error {
	request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	request = protowire.AppendBytes(protowire.AppendTag(request, 2, protowire.BytesType), value)
	var answer []byte
	return c.Invoke(ctx, "/etcdserverpb.KV/Put", request, &answer, grpc.ForceCodec(rawCodec{}))
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

// startEtcd makes a cluster on loopback with the settings of its package, and returns its clients' addresses, the leader's first.
func startEtcd(b *testing.B, size int) []string {
	b.Helper()
	var peers, clients, cluster []string
	for i := range size {
		peers, clients = append(peers, site.FreeAddress(b)), append(clients, site.FreeAddress(b))
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, peers[i]))
	}
	dir := b.TempDir()
	for i := range size {
		member := exec.Command("etcd", "--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(dir, fmt.Sprint(i)), "--log-level", "error",
			"--listen-peer-urls", "http://"+peers[i], "--initial-advertise-peer-urls", "http://"+peers[i],
			"--listen-client-urls", "http://"+clients[i], "--advertise-client-urls", "http://"+clients[i],
			"--initial-cluster", strings.Join(cluster, ","))
		member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := member.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = member.Process.Kill()
			_ = member.Wait()
		})
	}
	return leaderFirst(b, clients)
}

// leaderFirst waits until the cluster answers, and puts the member first whose status names itself as the leader.
func leaderFirst(b *testing.B, addresses []string) []string {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), site.Patience)
	defer cancel()
	for ; ; time.Sleep(50 * time.Millisecond) {
		for i, address := range addresses {
			if id, leader, err := etcdStatus(ctx, address); err == nil && id != 0 && id == leader {
				addresses[0], addresses[i] = addresses[i], addresses[0]
				return addresses
			}
		}
		if ctx.Err() != nil {
			b.Fatal("etcd has no leader")
		}
	}
}

// etcdStatus is etcdserverpb.Maintenance/Status: field 1 is a header whose field 2 is the member, field 4 is the leader.
func etcdStatus(ctx context.Context, address string) (id, leader uint64, err error) {
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var answer []byte
	if err := c.Invoke(ctx, "/etcdserverpb.Maintenance/Status", []byte{}, &answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return 0, 0, err
	}
	header, _ := fieldOf(answer, 1)
	_, id = fieldOf(header, 2)
	_, leader = fieldOf(answer, 4)
	return id, leader, nil
}

// fieldOf finds a field of a message, as bytes or as a number.
func fieldOf(message []byte, want protowire.Number) (data []byte, value uint64) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, 0
		}
		message = message[n:]
		length := protowire.ConsumeFieldValue(number, kind, message)
		if length < 0 {
			return nil, 0
		}
		if number == want {
			data, _ = protowire.ConsumeBytes(message)
			value, _ = protowire.ConsumeVarint(message)
			return data, value
		}
		message = message[length:]
	}
	return nil, 0
}
