package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// transmit sends the status, acknowledgements and, when there is nothing else to send, heartbeats.
func (s *deviceSession) transmit(ctx context.Context) error {
	l := s.link
	timer, deadline := time.NewTimer(0), time.NewTimer(silence(s.every))
	defer timer.Stop()
	defer deadline.Stop()
	last, interval := time.Now(), s.beat()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.heard:
			deadline.Reset(silence(s.every))
			continue
		case <-deadline.C:
			if !s.busy() {
				return errors.New("the server fell silent")
			}
			deadline.Reset(silence(s.every))
			continue
		case <-timer.C:
		case <-l.wake:
		}
		sent, err := s.flush(time.Since(last) >= interval)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if sent {
			last, interval = time.Now(), s.beat()
		}
		timer.Reset(s.nextLook(last.Add(interval)))
	}
}

// flush sends all that there is to send, or a heartbeat when asked for one.
func (s *deviceSession) flush(beat bool) (sent bool, err error) {
	for {
		messages := s.messages(beat && !sent)
		if len(messages) == 0 {
			return sent, nil
		}
		for _, e := range messages {
			if err := sendWithin(s.conn, e); err != nil {
				return sent, err
			}
		}
		sent = true
	}
}

// messages makes what is to be sent next; the message of a whole status may have parts.
func (s *deviceSession) messages(beat bool) []*linkpb.Envelope {
	l, now := s.link, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*linkpb.Envelope
	if again := l.out.overdue(now, l.cfg.Retry); again != nil {
		out = append(out, again)
	} else if l.out.whole && l.out.flight == nil {
		out = s.whole(now)
	} else if next := l.out.next(now); next != nil {
		out = append(out, next)
	} else if s.owesAck || beat {
		out = append(out, &linkpb.Envelope{Epoch: l.out.epoch})
	}
	if len(out) > 0 {
		out[0].AckEpoch, out[0].AckSeq, out[0].WantFull = s.in.epoch, s.in.seq, s.wantFull
		s.owesAck = false
		if !s.told {
			out[0].Beat, s.told = seconds(s.every), true
		}
	}
	return out
}

// whole makes the messages of the whole status. The caller holds the lock, which is given up while the device answers:
// what it reports meanwhile is newer and goes next.
func (s *deviceSession) whole(now time.Time) []*linkpb.Envelope {
	l := s.link
	waiting := l.out.pending
	l.out.pending = queue{maxKeys: waiting.maxKeys, maxBytes: waiting.maxBytes}
	l.mu.Unlock()
	items := sendable(l.cfg.Device.Status(), l.cfg.Logger)
	l.mu.Lock()
	listed := make(map[string]bool, len(items))
	for _, item := range items {
		listed[item.Key] = true
	}
	var extra []Item
	for !waiting.empty() {
		if item := waiting.shift(); !listed[item.Key] {
			extra = append(extra, item)
		}
	}
	parts := l.out.full(append(items[:len(items):len(items)], extra...), now)
	l.out.flight.extra = extra
	return parts
}

// nextLook is how long the transmitter may sleep.
func (s *deviceSession) nextLook(beat time.Time) time.Duration {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if due := s.link.out.due(s.link.cfg.Retry); !due.IsZero() && due.Before(beat) {
		beat = due
	}
	return max(time.Until(beat), 0)
}

// tunnel opens and serves a byte stream that the control plane asked for.
func (s *deviceSession) tunnel(ctx context.Context, id string) {
	l := s.link
	select {
	case l.slots <- struct{}{}:
	default:
		l.cfg.Logger.Warn("refused a tunnel", "open", maxTunnels)
		return
	}
	l.tunnels.Go(func() {
		defer func() { <-l.slots }()
		opening, cancel := context.WithTimeout(ctx, tunnelTimeout)
		conn, err := s.conn.OpenTunnel(opening, id)
		cancel()
		if err != nil {
			l.cfg.Logger.Warn("cannot open a tunnel", "error", err)
			return
		}
		s.serve(ctx, conn)
	})
}

func (s *deviceSession) serve(ctx context.Context, conn net.Conn) {
	if tunnel, ok := conn.(*Tunnel); ok {
		tunnel.pace = s.link.bulk // before anybody writes
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s.link.cfg.Device.ServeTunnel(ctx, conn)
}

// busy tells whether the connection has brought anything since it was last asked: a heartbeat's answer may wait behind a tunnel.
func (s *deviceSession) busy() bool {
	conn, ok := s.conn.(interface{ Frames() uint64 })
	if !ok {
		return false
	}
	before := s.frames
	s.frames = conn.Frames()
	return s.frames != before
}

// beat is a heartbeat's time, shorter by up to a tenth at random: what was promised is kept.
func (s *deviceSession) beat() time.Duration {
	tenth := s.every / 10
	return s.every - tenth + rand.N(tenth+1)
}
