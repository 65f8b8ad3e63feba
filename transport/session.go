package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// maxDesired bounds a device's whole desired state.
const maxDesired = 64 << 20

// A fleet comes back over a time that grows with it: spreadPerDevice milliseconds for each device, up to maxSpread.
const (
	spreadPerDevice = 3
	maxSpread       = 60_000
)

// deviceSession is one link while it lasts, at the device's end.
type deviceSession struct {
	link   *Link
	conn   Conn
	in     inbox
	epoch  uint64        // the control plane's
	every  time.Duration // the heartbeat
	heard  chan struct{} // holds one: something came in
	frames uint64        // that had come in when last asked; of transmit

	// Guarded by the link's lock.
	owesAck, wantFull, told bool
}

// greet takes the server's first message and readies the whole status to be sent.
func (s *deviceSession) greet(carrier Carrier) error {
	guard := time.AfterFunc(s.link.cfg.Connect, func() { _ = s.conn.Close() })
	defer guard.Stop()
	hello, err := s.conn.Recv()
	if err != nil {
		return fmt.Errorf("%s: no greeting: %w", carrier.Name(), err)
	}
	if hello.Epoch == 0 || len(hello.Redirect) > 0 {
		return fmt.Errorf("%s: the server does not lead (leader: %s)", carrier.Name(), strings.Join(hello.Redirect, " "))
	}
	s.in.epoch, s.in.seq = s.link.cfg.Device.Position()
	s.epoch = hello.Epoch
	if hello.Epoch < s.in.epoch {
		return fmt.Errorf("%s: the server's epoch %d is older than the device's, %d", carrier.Name(), hello.Epoch, s.in.epoch)
	}
	l := s.link
	l.spread = time.Duration(min(hello.Spread, maxSpread)) * time.Millisecond
	l.mu.Lock()
	defer l.mu.Unlock()
	// Somebody else's numbers, or those of an earlier start with a clock that was ahead: take the next epoch.
	if o := &l.out; hello.AckEpoch > o.epoch || (hello.AckEpoch == o.epoch && hello.AckSeq > o.sent) {
		o.epoch, o.sent, o.acked = hello.AckEpoch+1, 0, 0
	}
	l.out.recall()
	l.out.whole = true
	l.cfg.Logger.Info("link to the control plane", "carrier", carrier.Name(), "epoch", hello.Epoch, "position", s.in.seq)
	return nil
}

// receive takes the server's messages until the link fails.
func (s *deviceSession) receive(ctx context.Context) error {
	for {
		e, err := s.conn.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		select {
		case s.heard <- struct{}{}:
		default:
		}
		if len(e.Redirect) > 0 || e.Epoch != s.epoch {
			return errors.New("the server does not lead any more")
		}
		s.link.mu.Lock()
		arrived := s.link.out.ack(e.AckEpoch, e.AckSeq)
		if e.WantFull && !s.link.out.flight.isWhole() {
			s.link.out.recall()
			s.link.out.whole = true
		}
		s.link.mu.Unlock()
		if arrived != nil && s.link.cfg.Acknowledged != nil {
			s.link.cfg.Acknowledged(arrived.first, arrived.items())
		}
		for _, id := range e.Tunnels {
			s.tunnel(ctx, id)
		}
		if e.Seq != 0 {
			if err := s.take(ctx, e); err != nil {
				return err
			}
		}
		s.link.poke()
	}
}

// take applies a message that carries items, once.
func (s *deviceSession) take(ctx context.Context, e *linkpb.Envelope) error {
	s.link.mu.Lock()
	what, got, err := s.in.receive(e)
	s.link.mu.Unlock()
	if err != nil {
		return err
	}
	if what == vApply {
		if err := s.link.cfg.Device.Apply(ctx, got.epoch, got.seq, got.full, got.items); err != nil {
			return fmt.Errorf("apply the desired state: %w", err)
		}
		s.link.learnServers(got.items)
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	switch what {
	case vApply:
		s.in.applied(got)
		s.wantFull = s.wantFull && !got.full
	case vPart:
		s.wantFull = false
		return nil
	case vGap:
		s.wantFull = true
	}
	s.owesAck = true
	return nil
}
