package transport

import (
	"fmt"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// syncPatience is how long a device waits for its turn to get its whole state.
const syncPatience = 2 * time.Second

// send queues changes of the device's desired state.
func (b *mailbox) send(items []Item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.live {
		return // what it lacks is found when the owner is asked for the whole state
	}
	for _, item := range sendable(items, b.hub.cfg.Logger) {
		b.out.put(item)
	}
	b.wake(b.link)
}

// ask has the device open a tunnel; the channel is closed when the link is over.
func (b *mailbox) ask(tunnel string) (gone <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	link := b.link
	if link == nil || link.ended || !link.started {
		return nil, ErrNotConnected
	}
	if len(link.tunnels) >= maxTunnels {
		return nil, fmt.Errorf("%d tunnels wait to be opened already", maxTunnels)
	}
	link.tunnels = append(link.tunnels, tunnel)
	b.wake(link)
	return link.done, nil
}

// wake starts the pump of a link if it has something to do. An idle link has none. The caller holds the lock.
func (b *mailbox) wake(link *hubLink) {
	if link == nil || link.pumping || link.ended || !link.started {
		return
	}
	link.pumping = true
	link.workers.Go(func() { b.pump(link) })
}

// pump sends until there is nothing to send.
func (b *mailbox) pump(link *hubLink) {
	for {
		b.mu.Lock()
		if link.ended {
			link.pumping = false
			b.mu.Unlock()
			return
		}
		if b.out.whole && b.out.flight == nil {
			b.mu.Unlock()
			if err := b.sync(link); err != nil {
				b.fail(link, err)
			}
			continue
		}
		e := b.nextMessage(link)
		if e == nil {
			link.pumping = false
			b.armRetry(link)
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		if err := b.transmit(link, e); err != nil {
			b.fail(link, fmt.Errorf("send to %s: %w", b.device, err))
		}
	}
}

// nextMessage is what to send now, or nil. The caller holds the lock.
func (b *mailbox) nextMessage(link *hubLink) *linkpb.Envelope {
	e := link.again
	if link.again = nil; e == nil {
		e = b.out.next(time.Now())
	}
	if e == nil {
		if !link.owesAck && !link.tellGap && len(link.tunnels) == 0 {
			return nil
		}
		e = &linkpb.Envelope{Epoch: b.hub.cfg.Epoch}
	}
	b.address(link, e)
	return e
}

// address adds to a message what rides along with any. The caller holds the lock.
func (b *mailbox) address(link *hubLink, e *linkpb.Envelope) {
	e.AckEpoch, e.AckSeq = b.in.epoch, b.in.seq
	e.WantFull, e.Tunnels = link.tellGap, link.tunnels
	link.owesAck, link.tellGap, link.tunnels, link.beats = false, false, nil, 0
}

// sync asks the owner for the device's whole state and sends it, or what the device lacks of it.
func (b *mailbox) sync(link *hubLink) error {
	// Many devices that come back at once must not have their states in memory all at once; but those that are slow to
	// take theirs must not keep the others waiting for long.
	patience := time.NewTimer(syncPatience)
	defer patience.Stop()
	select {
	case b.hub.syncs <- struct{}{}:
		defer func() { <-b.hub.syncs }()
	case <-patience.C:
	case <-link.done:
		return nil
	}
	b.mu.Lock()
	again := b.live
	b.live = false
	b.mu.Unlock()
	if again {
		b.hub.cfg.Owner.Disconnected(b.device)
	}
	// What the owner sends from here on is newer than the state that it is about to give.
	b.mu.Lock()
	b.out.pending.clear()
	b.live = true
	b.mu.Unlock()
	items := sendable(b.hub.cfg.Owner.Connected(b.device), b.hub.cfg.Logger)

	b.mu.Lock()
	if link.tracked {
		b.out.whole = false
		if b.out.diff(items); !b.out.whole {
			b.mu.Unlock()
			return nil
		}
	}
	parts := b.out.full(items, time.Now())
	link.tracked = true // as soon as it is acknowledged, and nothing else is sent before
	b.address(link, parts[0])
	b.mu.Unlock()
	for _, part := range parts {
		if err := b.transmit(link, part); err != nil {
			return fmt.Errorf("send its state to %s: %w", b.device, err)
		}
	}
	return nil
}

// armRetry has the message in flight looked at when it is overdue. The caller holds the lock.
func (b *mailbox) armRetry(link *hubLink) {
	if b.out.flight == nil {
		if link.retry != nil {
			link.retry.Stop()
		}
		return
	}
	wait := time.Until(b.out.due(b.hub.cfg.Retry))
	if link.retry == nil {
		link.retry = time.AfterFunc(wait, func() { b.overdue(link) })
	} else {
		link.retry.Reset(wait)
	}
}

func (b *mailbox) overdue(link *hubLink) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if link.ended {
		return
	}
	link.again = b.out.overdue(time.Now(), b.hub.cfg.Retry)
	if link.tracked = link.tracked && link.again != nil; link.again != nil || b.out.whole {
		b.wake(link)
	} else if !link.pumping {
		b.armRetry(link)
	}
}

func (b *mailbox) transmit(link *hubLink, e *linkpb.Envelope) error {
	b.countMessage(e, false)
	return sendWithin(link.conn, e)
}

// sendWithin bounds the time that a message may take by its size: a peer that does not read is gone, and 1 KB/s is the
// slowest link that still counts as one.
func sendWithin(conn Conn, e *linkpb.Envelope) error {
	size := 0
	for _, item := range e.Items {
		size += len(item.Key) + len(item.Value)
	}
	limit := 30*time.Second + time.Duration(size)*time.Millisecond
	timer := time.AfterFunc(limit, func() { _ = conn.Close() })
	defer timer.Stop()
	return conn.Send(e)
}
