package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Finder finds the server that leads, for carriers that dial: it asks the last known leader first, the others soon after
// if that says nothing, and follows redirects.
type Finder struct {
	mu      sync.Mutex
	servers []string
	leader  string // where the link was or should be; "" when unknown
	epoch   uint64 // the highest seen: a server with a lower one does not lead any more
}

// Opener opens a mailbox at one server. ctx bounds the opening only.
type Opener func(ctx context.Context, address string) (Conn, error)

const (
	// stagger is how long one server is given before the next is asked too.
	stagger = 300 * time.Millisecond
	// brief is how long a link must last for its server to be asked first again.
	brief = 2 * time.Second
)

// SetServers replaces the list of servers, host:port, most wanted first. An empty list changes nothing.
func (f *Finder) SetServers(servers []string) {
	if len(servers) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = slices.Clone(servers)
}

// Connect returns a link to a server that leads.
func (f *Finder) Connect(ctx context.Context, open Opener) (Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &search{finder: f, open: open, queue: f.candidates(), tried: make(map[string]bool), results: make(chan outcome)}
	conn, err := s.run(ctx)
	cancel()
	s.drain()
	return conn, err
}

// candidates are the addresses to try, the most likely first.
func (f *Finder) candidates() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	if f.leader != "" {
		out = append(out, f.leader)
	}
	for _, address := range f.servers {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}

// follow remembers a leader, unless a later one is known.
func (f *Finder) follow(address string, epoch uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch < f.epoch {
		return false
	}
	f.leader, f.epoch = address, epoch
	return true
}

// learn takes note of an address that does not lead, and of those that it says do.
func (f *Finder) learn(address string, redirect []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(redirect) > 0 {
		f.leader = redirect[0]
	} else if f.leader == address {
		f.leader = ""
	}
}

// search is one Connect.
type search struct {
	finder   *Finder
	open     Opener
	queue    []string
	tried    map[string]bool
	results  chan outcome
	running  sync.WaitGroup
	pending  int
	failures []error
}

// outcome is what asking one server came to.
type outcome struct {
	conn     *foundConn
	redirect []string
	err      error
}

func (s *search) run(ctx context.Context) (Conn, error) {
	if len(s.queue) == 0 {
		return nil, errors.New("no server is known")
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for len(s.queue) > 0 || s.pending > 0 {
		select {
		case <-next.C:
			if len(s.queue) > 0 {
				s.start(ctx)
				next.Reset(stagger)
			}
		case got := <-s.results:
			s.pending--
			if got.err == nil {
				return got.conn, nil
			}
			s.failures = append(s.failures, got.err)
			s.prefer(got.redirect)
			next.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(s.failures, ctx.Err())...)
		}
	}
	return nil, errors.Join(s.failures...)
}

func (s *search) start(ctx context.Context) {
	address := s.queue[0]
	s.queue, s.tried[address] = s.queue[1:], true
	s.pending++
	s.running.Go(func() { s.results <- s.ask(ctx, address) })
}

// prefer puts addresses that are said to lead first.
func (s *search) prefer(redirect []string) {
	var first []string
	for _, address := range redirect {
		if !s.tried[address] && !slices.Contains(first, address) {
			first = append(first, address)
		}
	}
	s.queue = append(first, slices.DeleteFunc(s.queue, func(a string) bool { return slices.Contains(first, a) })...)
}

// drain ends the attempts that were not needed.
func (s *search) drain() {
	go func() {
		s.running.Wait()
		close(s.results)
	}()
	for late := range s.results {
		if late.conn != nil {
			_ = late.conn.Conn.Close()
		}
	}
}

// ask opens a mailbox at one server and waits for its first message, which tells whether it leads.
func (s *search) ask(ctx context.Context, address string) outcome {
	conn, err := s.open(ctx, address)
	if err != nil {
		s.finder.learn(address, nil)
		return outcome{err: fmt.Errorf("%s: %w", address, err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	first, err := conn.Recv()
	switch {
	case !stop():
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("%s: %w", address, err)
	case len(first.Redirect) > 0:
		err = fmt.Errorf("%s does not lead, %v does", address, first.Redirect)
	case first.Epoch == 0:
		err = fmt.Errorf("%s knows no leader", address)
	case !s.finder.follow(address, first.Epoch):
		err = fmt.Errorf("%s does not lead any more", address)
	}
	if err != nil {
		_ = conn.Close()
		s.finder.learn(address, first.GetRedirect())
		return outcome{err: err, redirect: first.GetRedirect()}
	}
	return outcome{conn: &foundConn{Conn: conn, finder: s.finder, address: address, first: first, since: time.Now()}}
}

// foundConn is a link to a server that leads; its first message was taken by the search.
type foundConn struct {
	Conn
	finder  *Finder
	address string
	first   *linkpb.Envelope
	since   time.Time
}

func (c *foundConn) Recv() (*linkpb.Envelope, error) {
	if first := c.first; first != nil {
		c.first = nil
		return first, nil
	}
	e, err := c.Conn.Recv()
	if err == nil && len(e.Redirect) > 0 {
		c.finder.learn(c.address, e.Redirect)
	}
	return e, err
}

// Frames is how many frames have come in, if the carrier counts them.
func (c *foundConn) Frames() uint64 {
	if conn, ok := c.Conn.(interface{ Frames() uint64 }); ok {
		return conn.Frames()
	}
	return 0
}

// Close ends the link. A server whose link ends at once is not asked first again.
func (c *foundConn) Close() error {
	if time.Since(c.since) < brief {
		c.finder.learn(c.address, nil)
	}
	return c.Conn.Close()
}
