package mqtt_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/mqtt"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestSuiteElsewhere has the servers join brokers that are not theirs.
func TestSuiteElsewhere(t *testing.T) {
	transporttest.RunOverTCP(t, func(t *testing.T) transporttest.Lab { return &remoteLab{lab: newLab(t)} })
}

// remoteLab has a broker for each server, as a stranger's.
type remoteLab struct {
	*lab
	tamper func(b *mochi.Server, pk packets.Packet) (packets.Packet, error) // what the broker does with a message; may be nil
}

func (l *remoteLab) Listen(t *testing.T, name string, a transport.Acceptor) string {
	t.Helper()
	id := l.Server(t, name)
	address, broker := startBroker(t, id, l.tamper)
	server := l.server(id, a)
	joined := make(chan struct{}, 1)
	l.Run(t, address, broker, func(ctx context.Context) error {
		return server.Join(ctx, mqtt.RemoteConfig{
			Address: address, Principal: id.Leaf().Subject.CommonName, Acceptor: a,
			Joined: func() {
				select {
				case joined <- struct{}{}:
				default:
				}
			},
			Dial: func(ctx context.Context, address string) (net.Conn, error) {
				return id.Dial(ctx, address, pki.ProtoMQTT)
			},
		})
	})
	<-joined
	return address
}

// startBroker starts a plain broker that lets everybody do everything.
func startBroker(t *testing.T, id *pki.Identity, tamper func(*mochi.Server, packets.Packet) (packets.Packet, error)) (string, func()) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(id.CAPEM())
	own, err := id.ClientConfig().GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{*own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		MinVersion: tls.VersionTLS13, NextProtos: []string{pki.ProtoMQTT},
	})
	if err != nil {
		t.Fatal(err)
	}
	broker := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler), InlineClient: true})
	hook := &openHook{broker: broker, tamper: tamper, over: map[net.Conn]chan struct{}{}, last: map[string]net.Conn{}}
	if err := broker.AddHook(hook, nil); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	closed := false
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			if closed {
				conn.Close()
			}
			mu.Unlock()
			over := hook.begin(conn)
			group.Go(func() {
				defer close(over)
				defer conn.Close()
				_ = broker.EstablishConnection("test", conn)
			})
		}
	})
	return listener.Addr().String(), sync.OnceFunc(func() {
		listener.Close()
		mu.Lock()
		closed = true
		for _, conn := range conns {
			conn.(*tls.Conn).NetConn().Close()
		}
		mu.Unlock()
		group.Wait()
	})
}

type openHook struct {
	mochi.HookBase
	broker *mochi.Server
	tamper func(*mochi.Server, packets.Packet) (packets.Packet, error)

	mu   sync.Mutex
	over map[net.Conn]chan struct{}
	last map[string]net.Conn // by client
}

func (h *openHook) begin(conn net.Conn) (over chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over[conn] = make(chan struct{})
	return h.over[conn]
}

func (*openHook) ID() string { return "open" }

func (h *openHook) Provides(what byte) bool {
	return bytes.Contains([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublish}, []byte{what})
}

// OnConnectAuthenticate waits until the client's older connection is over: this broker sometimes takes away a client's new
// subscriptions with its old ones.
func (h *openHook) OnConnectAuthenticate(cl *mochi.Client, _ packets.Packet) bool {
	h.mu.Lock()
	old := h.last[cl.ID]
	h.last[cl.ID] = cl.Net.Conn
	over := h.over[old]
	h.mu.Unlock()
	if old != nil {
		old.(*tls.Conn).NetConn().Close()
		<-over
	}
	return true
}

func (*openHook) OnACLCheck(*mochi.Client, string, bool) bool { return true }

func (h *openHook) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if h.tamper == nil || cl.Net.Inline {
		return pk, nil
	}
	return h.tamper(h.broker, pk)
}

// TestHostileBroker has a broker repeat frames, hold them back and send them later, as of yesterday, and make some up: both
// ends get what they are to have, nothing is applied twice, and what was refused is counted.
func TestHostileBroker(t *testing.T) {
	l := &remoteLab{lab: newLab(t)}
	var mu sync.Mutex
	var kept []packets.Packet
	count := 0
	l.tamper = func(b *mochi.Server, pk packets.Packet) (packets.Packet, error) {
		mu.Lock()
		count++
		n := count
		kept = append(kept, pk)
		old := kept[(n*7)%len(kept)]
		mu.Unlock()
		switch {
		case n%97 == 0: // lost
			return pk, packets.ErrRejectPacket
		case n%7 < 2: // twice
			_ = b.Publish(pk.TopicName, pk.Payload, false, 0)
		case n%7 < 4: // one of long ago
			_ = b.Publish(old.TopicName, old.Payload, false, 0)
		case n%7 < 6: // changed on its way
			forged := bytes.Clone(pk.Payload)
			forged[len(forged)-1] ^= 1
			_ = b.Publish(pk.TopicName, forged, false, 0)
		}
		return pk, nil
	}
	owner, device := transporttest.NewOwner(), transporttest.NewDevice()
	logger := slog.New(slog.DiscardHandler)
	hub, gate := transporttest.Lead(owner, transport.HubConfig{Retry: 50 * time.Millisecond})
	address := l.Listen(t, "server", gate)
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{l.Carrier(t, "a", address)}, Logger: logger,
		Heartbeat: 100 * time.Millisecond, MinDelay: 2 * time.Millisecond, MaxDelay: 50 * time.Millisecond, Retry: 50 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = hub.Run(ctx) })
	group.Go(func() { _ = link.Run(ctx) })
	defer group.Wait()
	defer cancel()
	for i := range 300 {
		owner.Set("a", string(rune('a'+i%26)), strings.Repeat("x", i))
		device.Report(link, string(rune('a'+i%13)), strings.Repeat("y", i))
		if i%10 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	deadline := time.Now().Add(time.Minute) // a handshake that was tampered with takes seconds
	same := func() bool {
		want, have := owner.Wanted("a"), device.Desired()
		for key, value := range want {
			if have[key] != value {
				return false
			}
		}
		reported := owner.Reported("a")
		for _, item := range device.Status() {
			if reported[item.Key] != string(item.Value) {
				return false
			}
		}
		return len(have) == len(want)
	}
	refused := func() bool { return l.refusals(mqtt.RefusedReplay) > 0 && l.refusals(mqtt.RefusedForged) > 0 }
	for i := 0; !same() || !refused(); i++ {
		if !refused() {
			device.Report(link, "more", strings.Repeat("z", i))
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ends did not agree, or nothing was refused: %v", l.refused)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := device.Wrong(); err != nil {
		t.Error(err)
	}
}
