package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// mailbox is what the hub knows of one device. It outlives the device's links.
type mailbox struct {
	hub    *Hub
	device string
	turn   chan struct{} // held by the link that is served; there is one at a time

	mu   sync.Mutex
	link *hubLink // nil when there is none
	in   inbox    // touched by the link that has the turn only, under mu
	out  outbox
	live bool // the device's state was asked for: changes are queued from here on

	up, down atomic.Uint64 // bytes of messages and tunnels

	arrivals int // counts the links that came; only the newest is served
}

// hubLink is one link while it lasts. Its fields are guarded by the mailbox's lock.
type hubLink struct {
	ctx     context.Context // ends with the link
	conn    Conn
	workers sync.WaitGroup
	done    chan struct{} // closed when the link is over
	ended   bool
	started bool // the device has said where it stands
	tracked bool // out.state holds what the device has: it can get a difference
	pumping bool
	again   *linkpb.Envelope // to be sent again
	owesAck bool
	tellGap bool
	beats   int // heartbeats since something was sent
	tunnels []string
	heard   time.Time          // a message
	beat    time.Duration      // how often the device promised one; 0: it did not say
	came    uint32             // TCP segments, when last looked at
	reports []*linkpb.Envelope // wait for the owner
	working bool
	retry   *time.Timer
	err     error
}

const (
	// maxReports bounds a device's messages that wait for the owner. A device sends one at a time, or the parts of one
	// whole status, so that more is a device gone wrong.
	maxReports = 24
	maxStatus  = 16 << 20
)

var (
	errClosed   = errors.New("transport: this server does not lead any more")
	errReplaced = errors.New("transport: the link was replaced or cut")
)

func newMailbox(h *Hub, device string) *mailbox {
	return &mailbox{
		hub: h, device: device, turn: make(chan struct{}, 1), in: inbox{limit: maxStatus}, out: newOutbox(h.cfg.Epoch, true),
	}
}

// serve runs one link until it is over.
func (b *mailbox) serve(ctx context.Context, conn Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	b.arrivals++
	arrival := b.arrivals
	b.mu.Unlock()
	b.kick() // an older link of the same device
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	link, err := b.begin(ctx, conn, arrival)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { b.fail(link, ctx.Err()) })
	err = b.read(link)
	stop()
	b.fail(link, err)
	cancel()
	link.workers.Wait()
	b.end(link)
	return link.err
}

func (b *mailbox) begin(ctx context.Context, conn Conn, arrival int) (*hubLink, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hub.mu.Lock() // under b.mu, so that a hub that closes finds the link
	closed := b.hub.closed
	b.hub.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if arrival != b.arrivals {
		return nil, errReplaced
	}
	b.link = &hubLink{ctx: ctx, conn: conn, done: make(chan struct{}), heard: time.Now()}
	b.in.drop()
	return b.link, nil
}

func (b *mailbox) end(link *hubLink) {
	b.mu.Lock()
	live := b.live
	b.link, b.live = nil, false
	b.out.pending.clear()
	if link.retry != nil {
		link.retry.Stop()
	}
	b.mu.Unlock()
	if live {
		b.hub.cfg.Owner.Disconnected(b.device)
	}
}

// read greets the device and takes its messages until the link fails.
func (b *mailbox) read(link *hubLink) error {
	b.mu.Lock()
	hello := &linkpb.Envelope{Epoch: b.hub.cfg.Epoch, AckEpoch: b.in.epoch, AckSeq: b.in.seq, Spread: b.hub.spread()}
	b.mu.Unlock()
	if err := b.transmit(link, hello); err != nil {
		return fmt.Errorf("greet %s: %w", b.device, err)
	}
	for {
		e, err := link.conn.Recv()
		if err != nil {
			return fmt.Errorf("receive from %s: %w", b.device, err)
		}
		b.countMessage(e, true)
		b.hub.cfg.Owner.Heard(b.device)
		if err := b.hear(link, e); err != nil {
			return fmt.Errorf("message from %s: %w", b.device, err)
		}
	}
}

// hear takes one message of the device.
func (b *mailbox) hear(link *hubLink, e *linkpb.Envelope) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	link.heard = time.Now()
	switch {
	case !link.started:
		link.started = true
		link.beat = time.Duration(e.Beat) * time.Second
		link.tracked = b.out.resume(e.AckEpoch, e.AckSeq) && !e.WantFull
		b.out.whole = true
	case e.WantFull && b.out.flight.isWhole():
		// It is on its way; if it is lost, it is sent again in time.
	case e.WantFull:
		link.tracked, b.out.whole, b.out.flight = false, true, nil
	default:
		b.out.ack(e.AckEpoch, e.AckSeq)
	}
	if e.Seq == 0 {
		// The device learns from an answer now and then that somebody is there.
		if link.beats++; link.beats >= 2 || link.beat >= longBeat {
			link.owesAck = true
		}
	} else {
		if len(link.reports) >= maxReports {
			return errors.New("too many messages without waiting for an acknowledgement")
		}
		link.reports = append(link.reports, e)
		if !link.working && !link.ended {
			link.working = true
			link.workers.Go(func() { b.work(link) })
		}
	}
	b.wake(link)
	return nil
}

// work hands the device's messages to the owner, one after the other.
func (b *mailbox) work(link *hubLink) {
	for {
		b.mu.Lock()
		if len(link.reports) == 0 || link.ended {
			link.working = false
			b.mu.Unlock()
			return
		}
		e := link.reports[0]
		link.reports = link.reports[1:]
		what, whole, err := b.in.receive(e)
		b.mu.Unlock()
		if err == nil && what == vApply {
			err = b.hub.cfg.Owner.Report(link.ctx, b.device, whole.full, whole.items)
		}
		if err != nil {
			b.fail(link, fmt.Errorf("report of %s: %w", b.device, err))
			continue
		}
		b.judged(link, e, what, whole)
	}
}

// judged answers a message.
func (b *mailbox) judged(link *hubLink, e *linkpb.Envelope, what verdict, whole *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch what {
	case vApply:
		b.in.applied(whole)
	case vPart:
		return
	case vStale:
		b.hub.cfg.Logger.Warn("refused a message of a stale epoch", "device", b.device, "epoch", e.Epoch, "known", b.in.epoch)
	case vGap:
		link.tellGap = true
	}
	link.owesAck = true
	b.wake(link)
}

// fail ends a link; the first reason stays.
func (b *mailbox) fail(link *hubLink, err error) {
	b.mu.Lock()
	if link.ended {
		b.mu.Unlock()
		return
	}
	link.ended, link.err = true, err
	close(link.done)
	b.mu.Unlock()
	_ = link.conn.Close() // the reason is told already
}

func (b *mailbox) kick() {
	b.mu.Lock()
	link := b.link
	b.mu.Unlock()
	if link != nil {
		b.fail(link, errReplaced)
	}
}

// look finds out whether the device is still there: from its TCP, which may speak while it has nothing to say itself.
func (b *mailbox) look(now time.Time) {
	b.mu.Lock()
	link := b.link
	if link == nil || link.ended {
		b.mu.Unlock()
		return
	}
	there := false
	if conn, ok := link.conn.(alive); ok && link.started {
		if n, ok := conn.Segments(); ok && n != link.came {
			link.came, there = n, true
		}
	}
	silent := now.Sub(link.heard) > max(b.hub.cfg.Silence, link.beat*5/2)
	b.mu.Unlock()
	if there {
		b.hub.cfg.Owner.Heard(b.device)
	}
	if silent {
		b.fail(link, errors.New("transport: the link was silent for too long"))
	}
}

func (b *mailbox) connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.link != nil && b.link.started && !b.link.ended
}
