package transport_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// script is a link whose other end the test plays.
type script struct {
	in, out chan *linkpb.Envelope
	done    chan struct{}
	once    sync.Once
}

func newScript() *script {
	return &script{in: make(chan *linkpb.Envelope, 16), out: make(chan *linkpb.Envelope, 16), done: make(chan struct{})}
}

func (s *script) Send(e *linkpb.Envelope) error {
	select {
	case s.out <- e:
		return nil
	case <-s.done:
		return net.ErrClosed
	}
}

func (s *script) Recv() (*linkpb.Envelope, error) {
	select {
	case e := <-s.in:
		return e, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *script) OpenTunnel(context.Context, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Name and Connect make the script a carrier that connects once.
func (s *script) Name() string { return "script" }

func (s *script) Connect(ctx context.Context) (transport.Conn, error) {
	select {
	case <-s.done:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return s, nil
	}
}

func state(seq uint64, full bool, keys ...string) *linkpb.Envelope {
	e := &linkpb.Envelope{Epoch: 3, Seq: seq, Full: full}
	for _, key := range keys {
		e.Items = append(e.Items, &linkpb.Item{Key: key, Value: []byte(fmt.Sprint(seq))})
	}
	return e
}

func start(t *testing.T, run func(context.Context) error, s *script) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		s.Close()
		<-done
	})
}

// until reads messages up to the first that matches.
func until(t *testing.T, s *script, what string, match func(*linkpb.Envelope) bool) *linkpb.Envelope {
	t.Helper()
	for range 50 {
		select {
		case e := <-s.out:
			if match(e) {
				return e
			}
		case <-t.Context().Done():
			t.Fatal("the test ended before: " + what)
		}
	}
	t.Fatal("did not come: " + what)
	return nil
}

func acks(epoch, seq uint64) func(*linkpb.Envelope) bool {
	return func(e *linkpb.Envelope) bool { return e.AckEpoch == epoch && e.AckSeq == seq }
}

func TestDeviceAsksForTheWholeStateAfterAGap(t *testing.T) {
	s, device := newScript(), transporttest.NewDevice()
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{s}, Logger: slog.New(slog.DiscardHandler), Epoch: 1,
	})
	start(t, link.Run, s)
	s.in <- &linkpb.Envelope{Epoch: 3}
	until(t, s, "its status", func(e *linkpb.Envelope) bool { return e.Full && e.Seq == 1 })
	s.in <- state(1, true, "a", "b")
	until(t, s, "its acknowledgement", acks(3, 1))
	s.in <- state(3, false, "c")
	if e := until(t, s, "the question", func(e *linkpb.Envelope) bool { return e.WantFull }); !acks(3, 1)(e) {
		t.Fatalf("acknowledged %d/%d", e.AckEpoch, e.AckSeq)
	}
	s.in <- state(4, true, "a", "c")
	if e := until(t, s, "its acknowledgement", acks(3, 4)); e.WantFull {
		t.Fatal("it asks on")
	}
	if got := device.Desired(); len(got) != 2 || got["c"] != "4" {
		t.Fatalf("has %v", got)
	}
	// Another server's messages are not this one's.
	s.in <- &linkpb.Envelope{Epoch: 2, Seq: 9, Full: true}
	<-s.done
	if len(device.Applied()) != 2 {
		t.Fatalf("applied %+v", device.Applied())
	}
}

func TestDeviceTakesTheNextEpoch(t *testing.T) {
	s, device := newScript(), transporttest.NewDevice()
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{s}, Logger: slog.New(slog.DiscardHandler), Epoch: 1,
	})
	start(t, link.Run, s)
	// The control plane remembers a disk that has been replaced since.
	s.in <- &linkpb.Envelope{Epoch: 3, AckEpoch: 8, AckSeq: 40}
	if e := until(t, s, "its status", func(e *linkpb.Envelope) bool { return e.Full }); e.Epoch != 9 || e.Seq != 1 {
		t.Fatalf("reports as %d/%d, want 9/1", e.Epoch, e.Seq)
	}
}

func TestHubSendsTheWholeStateWhenAsked(t *testing.T) {
	s, owner := newScript(), transporttest.NewOwner()
	hub := transport.NewHub(transport.HubConfig{Epoch: 3, Owner: owner, Logger: slog.New(slog.DiscardHandler)})
	owner.Use(hub)
	owner.Set("a", "k", "1")
	start(t, func(ctx context.Context) error { return hub.Serve(ctx, "a", s) }, s)
	until(t, s, "the greeting", func(e *linkpb.Envelope) bool { return e.Epoch == 3 })
	s.in <- &linkpb.Envelope{Epoch: 1, Seq: 1, Full: true}
	until(t, s, "the state", func(e *linkpb.Envelope) bool { return e.Full && e.Seq == 1 && len(e.Items) == 1 })
	s.in <- &linkpb.Envelope{Epoch: 1, AckEpoch: 3, AckSeq: 1}
	owner.Set("a", "k", "2")
	until(t, s, "the change", func(e *linkpb.Envelope) bool { return !e.Full && e.Seq == 2 })
	s.in <- &linkpb.Envelope{Epoch: 1, WantFull: true}
	until(t, s, "the state again", func(e *linkpb.Envelope) bool { return e.Full && e.Seq == 3 && string(e.Items[0].Value) == "2" })
	s.in <- &linkpb.Envelope{Epoch: 1, AckEpoch: 3, AckSeq: 3}
	owner.Set("a", "k", "3")
	until(t, s, "the next change", func(e *linkpb.Envelope) bool { return !e.Full && e.Seq == 4 })
	if owner.Up("a") != 1 {
		t.Fatalf("the owner counts %d links", owner.Up("a"))
	}

	// A report with a gap is not taken, and the device is asked for all.
	s.in <- &linkpb.Envelope{Epoch: 1, Seq: 5, Items: []*linkpb.Item{{Key: "s", Value: []byte("5")}}}
	until(t, s, "the question", func(e *linkpb.Envelope) bool { return e.WantFull })
	// One of an older start of the device is refused.
	s.in <- &linkpb.Envelope{Epoch: 0, Seq: 9, Full: true, Items: []*linkpb.Item{{Key: "s", Value: []byte("old")}}}
	until(t, s, "what the hub knows", acks(1, 1))
	if got := owner.Reported("a"); len(got) != 0 {
		t.Fatalf("reported %v", got)
	}
}
