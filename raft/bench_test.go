package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/test/load"
)

// BenchmarkWrites creates objects of 256 bytes: through the typed client, and, as the limit of what can be had, in the library alone
// with the same log.
func BenchmarkWrites(b *testing.B) {
	for _, servers := range []int{1, 3} {
		b.Run(fmt.Sprintf("system=store/servers=%d", servers), func(b *testing.B) {
			c := newCluster(b, servers, func(cfg *Config) {
				cfg.Store = store.New(store.Config{Persisted: true, Kinds: api.Kinds()})
				cfg.ElectionTimeout = defaultElectionTimeout
			})
			leader := c.leader()
			client := store.NewClient(store.ClientConfig{Durable: leader.store, Propose: leader})
			round := 0
			writes(b, func(ctx context.Context, request int) error {
				object := &corev1.ConfigMap{Data: map[string]string{"value": strings.Repeat("x", 256)}}
				object.Name, object.Namespace = fmt.Sprintf("bench-%d-%d", round, request), "default"
				_, err := client.Create(ctx, object)
				return err
			}, &round)
		})
		b.Run(fmt.Sprintf("system=library/servers=%d", servers), func(b *testing.B) {
			leader := newLibraryCluster(b, servers)
			data := []byte(strings.Repeat("x", 256))
			writes(b, func(context.Context, int) error { return leader.Apply(data, 0).Error() }, new(int))
		})
	}
}

func writes(b *testing.B, do func(ctx context.Context, request int) error, round *int) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			*round++
			load.Run(b, clients, func(ctx context.Context, _, request int) error { return do(ctx, request) })
		})
	}
}

// newLibraryCluster is the library without anything of ours but the log: no state, no checkpoints. It returns the leader.
func newLibraryCluster(b *testing.B, size int) *hraft.Raft {
	b.Helper()
	var members hraft.Configuration
	nodes := make([]*hraft.Raft, size)
	logs, transports := make([]*logStore, size), make([]*hraft.NetworkTransport, size)
	for i := range size {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		transports[i] = hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
			Stream: plainStream{l}, MaxPool: 4, Timeout: ioTimeout, Logger: hclog.NewNullLogger(),
		})
		members.Servers = append(members.Servers, hraft.Server{ID: hraft.ServerID(fmt.Sprint(i)), Address: transports[i].LocalAddr()})
		if logs[i], err = openLog(b.TempDir(), true); err != nil {
			b.Fatal(err)
		}
	}
	for i := range size {
		conf := hraft.DefaultConfig()
		conf.LocalID, conf.Logger, conf.NoLegacyTelemetry = members.Servers[i].ID, hclog.NewNullLogger(), true
		conf.BatchApplyCh, conf.MaxAppendEntries, conf.SnapshotInterval = true, maxBatch, never
		snapshots := hraft.NewDiscardSnapshotStore()
		if err := hraft.BootstrapCluster(conf, logs[i], logs[i], snapshots, transports[i], members); err != nil {
			b.Fatal(err)
		}
		var err error
		if nodes[i], err = hraft.NewRaft(conf, nothing{}, newRecentLog(logs[i]), logs[i], snapshots, transports[i]); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = nodes[i].Shutdown().Error()
			_ = transports[i].Close()
			_ = logs[i].close()
		})
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, n := range nodes {
			if n.State() == hraft.Leader {
				return n
			}
		}
	}
	b.Fatal("no leader")
	return nil
}

// plainStream is TCP.
type plainStream struct{ net.Listener }

func (plainStream) Dial(to hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(to), timeout)
}

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*hraft.Log) any                 { return nil }
func (nothing) Snapshot() (hraft.FSMSnapshot, error) { return nil, errors.New("there is none") }
func (nothing) Restore(io.ReadCloser) error          { return nil }

// BenchmarkFailover measures from the death of a leader to the next write that succeeds.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	var took []time.Duration
	for range b.N {
		c.same(c.write("before", "v"))
		dead := c.index(c.leader())
		start := time.Now()
		finish := c.cutOff(dead)
		c.write("after", "v")
		took = append(took, time.Since(start))
		finish()
		c.start(dead)
	}
	report(b, took)
}

// BenchmarkOpen opens a server's folder with 10,000 pods of 1 KB in the checkpoint, until they are in memory and indexed.
func BenchmarkOpen(b *testing.B) {
	const count = 10_000
	c := newCluster(b, 1, func(cfg *Config) {
		cfg.Store = store.New(store.Config{Persisted: true, Kinds: api.Kinds()})
		cfg.ElectionTimeout = defaultElectionTimeout
	})
	items := make([]store.Item, count)
	for i := range items {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: fmt.Sprint("node-", i%100)}}
		pod.Name, pod.Namespace = fmt.Sprintf("pod-%05d", i), "default"
		pod.Annotations = map[string]string{"filler": strings.Repeat("x", 900)}
		value, err := api.Encode(pod)
		if err != nil {
			b.Fatal(err)
		}
		items[i] = store.Item{Key: store.Key{Resource: "pods", Namespace: "default", Name: pod.Name}, Revision: uint64(i + 1), Value: value}
	}
	head, _ := golden()
	head.Count = count
	waitForCheckpointAt(b, c.members[0], c.restore(streamOf(b, head, items)))
	var took []time.Duration
	for range b.N {
		c.kill(0)
		start := time.Now()
		m := c.start(0)
		took = append(took, time.Since(start))
		if n := m.store.Len("pods"); n != count {
			b.Fatalf("%d pods", n)
		}
	}
	report(b, took)
}

// BenchmarkFollowerLag measures from an acknowledged write to the moment that a follower has it, with no other writes.
func BenchmarkFollowerLag(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	leader := c.leader()
	follower := c.members[(c.index(leader)+1)%3]
	var took []time.Duration
	for range b.N {
		revision := c.write("a", "v")
		start := time.Now()
		if err := follower.store.Wait(c.soon(), revision); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "median-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdle reports how much of one core each of three servers uses while nothing happens, and what it writes.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	c.same(c.write("a", "v"))
	const period = 10 * time.Second
	cpu, written := usage(b)
	time.Sleep(period) // what is measured is that nothing happens
	cpuAfter, writtenAfter := usage(b)
	b.ReportMetric(100*(cpuAfter-cpu).Seconds()/period.Seconds()/3, "%cpu")
	b.ReportMetric(float64(writtenAfter-written)/3, "disk-bytes")
	b.ReportMetric(0, "ns/op")
}

func usage(b *testing.B) (cpu time.Duration, blocks int64) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), int64(u.Oublock) * 512
}
