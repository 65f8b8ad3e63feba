package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// headStart is how long a carrier is tried alone before the next one is tried too: a network that swallows one kind of
	// connection must not cost more than that.
	headStart = 5 * time.Second
	// maxReturn bounds the pause between attempts to return to a better carrier.
	maxReturn = 16 * time.Minute
)

var (
	errConnect = errors.New("cannot connect")
	errBetter  = errors.New("a better carrier works again")
)

// found is a connection that a carrier has made.
type found struct {
	index int // of the carrier; 0 is the most wanted
	conn  Conn
	err   error
}

// connect returns the first connection that comes up. The carriers are tried in their order, each with a head start, which ends
// when it fails.
func (l *Link) connect(ctx context.Context) (found, error) {
	if next := l.next; next != nil {
		l.next = nil
		return *next, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan found)
	started, running := 0, 0
	start := func() {
		if started < len(l.cfg.Carriers) {
			index := started
			go func() { results <- l.try(ctx, index) }()
			started, running = started+1, running+1
		}
	}
	start()
	more := time.NewTicker(headStart)
	defer more.Stop()
	all := []error{errConnect}
	for running > 0 {
		select {
		case <-more.C:
			start()
		case got := <-results:
			running--
			if got.err != nil {
				all = append(all, got.err)
				start()
				continue
			}
			cancel()
			for ; running > 0; running-- {
				if late := <-results; late.err == nil {
					_ = late.conn.Close()
				}
			}
			return got, nil
		}
	}
	return found{}, errors.Join(all...)
}

func (l *Link) try(ctx context.Context, index int) found {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Connect)
	defer cancel()
	conn, err := l.cfg.Carriers[index].Connect(ctx)
	return found{index: index, conn: conn, err: err}
}

// climb tries from time to time whether a more wanted carrier than the present one works, and ends the present link when one does.
func (l *Link) climb(ctx context.Context, present int) error {
	for pause := l.cfg.Return; ; pause = min(2*pause, max(maxReturn, l.cfg.Return)) {
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
			return nil
		}
		for index := range present {
			got := l.try(ctx, index)
			switch {
			case got.err != nil:
				l.cfg.Logger.Debug("a better carrier does not work yet", "carrier", l.cfg.Carriers[index].Name(), "error", got.err)
			case ctx.Err() != nil:
				_ = got.conn.Close()
				return nil
			default:
				l.next = &got // read once the present link is over
				return errBetter
			}
		}
	}
}
