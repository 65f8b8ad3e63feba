package share

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// patience is how long a neighbour has to begin to answer.
	patience = 3 * time.Second
	// keep is how long a connection stays open: an image is many pieces.
	keep = 30 * time.Second
	// sulk is how long a neighbour that did not answer is left out.
	sulk = time.Minute
)

var errAway = errors.New("it did not answer a while ago")

// clients are the connections to neighbours.
type clients struct {
	dial func(name string) *tls.Config

	mu    sync.Mutex
	known map[Peer]*client
}

type client struct {
	http.Client
	away time.Time // since when it does not answer
}

// of is the client for a neighbour. When there are more than there are neighbours, all are made anew: some have gone or moved.
func (c *clients) of(p Peer, present int) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) > present {
		c.drop()
	}
	known := c.known[p]
	if known == nil {
		dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: c.dial(p.Name)}
		known = &client{Client: http.Client{Transport: &http.Transport{
			DialTLSContext: dialer.DialContext, IdleConnTimeout: keep, MaxIdleConnsPerHost: 2, MaxConnsPerHost: 8, DisableCompression: true,
		}}}
		c.known[p] = known
	}
	return known
}

// do asks a neighbour, which has so long to begin its answer. One that does not answer is left out for a while.
func (c *clients) do(ctx context.Context, p Peer, present int, q *http.Request, limit time.Duration) (*http.Response, error) {
	to := c.of(p, present)
	c.mu.Lock()
	away := !to.away.IsZero() && time.Since(to.away) < sulk
	c.mu.Unlock()
	if away {
		return nil, errAway
	}
	limited, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(limit, cancel)
	reply, err := to.Do(q.WithContext(limited))
	timer.Stop()
	if err != nil {
		cancel()
		if ctx.Err() == nil {
			c.mu.Lock()
			to.away = time.Now()
			c.mu.Unlock()
		}
		return nil, err
	}
	reply.Body = &ending{reply.Body, cancel}
	return reply, nil
}

// ending is a body with whose end the context of its request ends.
type ending struct {
	io.ReadCloser
	cancel func()
}

func (e *ending) Close() error {
	defer e.cancel()
	return e.ReadCloser.Close()
}

func (c *clients) drop() {
	for p, known := range c.known {
		known.CloseIdleConnections()
		delete(c.known, p)
	}
}

func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// discard reads a little of what is left of a body, so that its connection can be used again.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 4<<10)
	_ = body.Close()
}
