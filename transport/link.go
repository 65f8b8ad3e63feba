package transport

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// ServersKey is the key of the desired state that lists the servers, one host:port a line.
const ServersKey = "servers"

// ContactKey is the key of a report with which a device asks for an acknowledgement, and says nothing else.
const ContactKey = "contact"

// LinkConfig configures a Link. Name, Device, Carriers and Logger are required.
type LinkConfig struct {
	Name     string
	Device   Device
	Carriers []Carrier // the most wanted first; a later one is used while no earlier one works
	Logger   *slog.Logger
	// Heartbeat is how often a link that is silent says that it is alive, by carriers that have no pace of their own. Default: 10s.
	Heartbeat time.Duration
	// Epoch numbers this start of the device; it must be greater than at the start before. Default: the clock. When the
	// control plane knows a greater one, the link takes the next.
	Epoch uint64
	// Bulk is how much tunnels may send together, in bytes a second, so that they leave room for the rest. Zero: as much as goes.
	Bulk int
	// Acknowledged is told when a message was first sent that the control plane has acknowledged: since then at least it has heard of
	// the device. Reports are those that came with it, but for those that are part of the device's whole status. It must not block. Nil:
	// nobody is told.
	Acknowledged func(sent time.Time, reports []Item)
	// Connect bounds one attempt to connect. Default: 15s.
	Connect time.Duration
	// MinDelay and MaxDelay bound the pause between attempts. Defaults: 100ms, 30s.
	MinDelay, MaxDelay time.Duration
	// Return is when a link by a less wanted carrier first tries the better ones again; the pauses double up to 16m. Default: 1m.
	Return time.Duration
	// Retry is when an unacknowledged message is sent again. Default: 30s.
	Retry time.Duration
}

// serverSetter is a carrier that can be told at run time where the servers are.
type serverSetter interface{ SetServers(servers []string) }

// Link is the device's end of the mailbox. It finds the server that leads, and comes back by itself whatever happens.
type Link struct {
	cfg     LinkConfig
	up      atomic.Bool
	by      atomic.Pointer[string] // the carrier's name
	wake    chan struct{}          // holds one
	tunnels sync.WaitGroup
	slots   chan struct{} // one for each tunnel that is served
	bulk    *rate.Limiter // nil: none
	spread  time.Duration // a link that is lost comes back within this time, at random; touched by Run and what it waits for
	next    *found        // the connection to use now, made by climb; touched by Run and what it waits for

	mu  sync.Mutex
	out outbox
}

// NewLink returns a link; Run makes it work.
func NewLink(cfg LinkConfig) *Link {
	orDefault(&cfg.Heartbeat, 10*time.Second)
	orDefault(&cfg.Connect, 15*time.Second)
	orDefault(&cfg.MinDelay, 100*time.Millisecond)
	orDefault(&cfg.MaxDelay, 30*time.Second)
	orDefault(&cfg.Return, time.Minute)
	orDefault(&cfg.Retry, 30*time.Second)
	if cfg.Epoch == 0 {
		cfg.Epoch = uint64(max(time.Now().UnixNano(), 1))
	}
	l := &Link{
		cfg:   cfg,
		wake:  make(chan struct{}, 1),
		slots: make(chan struct{}, maxTunnels),
		out:   newOutbox(cfg.Epoch, false),
	}
	if cfg.Bulk > 0 {
		l.bulk = rate.NewLimiter(rate.Limit(cfg.Bulk), min(max(cfg.Bulk/4, 1<<10), chunkBytes))
	}
	return l
}

// Connected tells whether a server that leads has answered on the present link.
func (l *Link) Connected() bool { return l.up.Load() }

// Carrier is the name of the carrier of the present link, or "".
func (l *Link) Carrier() string {
	if name := l.by.Load(); name != nil && l.up.Load() {
		return *name
	}
	return ""
}

// Report queues changes of the device's status, coalesced by key. While there is no link they wait, bounded: the whole
// status goes first when the link comes back.
func (l *Link) Report(items ...Item) {
	items = sendable(items, l.cfg.Logger)
	l.mu.Lock()
	for _, item := range items {
		l.out.put(item)
	}
	l.mu.Unlock()
	l.poke()
}

// Run keeps the link up until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	defer l.tunnels.Wait()
	defer func() {
		if l.next != nil {
			_ = l.next.conn.Close()
		}
	}()
	for failures := 0; ; failures++ {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errBetter) {
			failures = 0
			continue
		}
		if time.Since(began) > 5*time.Second && !errors.Is(err, errConnect) {
			failures = 0
		}
		pause := l.pause(failures)
		if !errors.Is(err, errConnect) && l.spread > 0 {
			pause = max(pause, rand.N(l.spread))
		}
		l.cfg.Logger.Log(ctx, level(failures), "no link to the control plane", "reason", err, "retry", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// once connects and runs one link until it is over.
func (l *Link) once(ctx context.Context) error {
	got, err := l.connect(ctx)
	if err != nil {
		return err
	}
	carrier, conn := l.cfg.Carriers[got.index], got.conn
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &deviceSession{link: l, conn: conn, heard: make(chan struct{}, 1), in: inbox{limit: maxDesired}}
	s.every = l.cfg.Heartbeat
	if p, ok := carrier.(paced); ok && p.Beat() > 0 {
		s.every = p.Beat()
	}
	if err := s.greet(carrier); err != nil {
		return err
	}
	name := carrier.Name()
	l.by.Store(&name)
	l.up.Store(true)
	defer l.up.Store(false)
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error { return s.transmit(ctx) })
	if got.index > 0 {
		group.Go(func() error { return l.climb(ctx, got.index) })
	}
	return group.Wait()
}

// pause is how long to wait after some failures in a row: the first retry is at once but for a jitter that keeps a
// thousand devices from coming back in the same instant.
func (l *Link) pause(failures int) time.Duration {
	limit := min(l.cfg.MaxDelay, l.cfg.MinDelay<<min(failures, 16))
	return limit/4 + rand.N(limit*3/4+1)
}

// poke wakes the transmitter.
func (l *Link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// learnServers tells the carriers of a new list of servers.
func (l *Link) learnServers(items []Item) {
	for _, item := range items {
		if item.Key != ServersKey || item.Deleted {
			continue
		}
		for _, carrier := range l.cfg.Carriers {
			if setter, ok := carrier.(serverSetter); ok {
				setter.SetServers(strings.Fields(string(item.Value)))
			}
		}
	}
}

func orDefault(value *time.Duration, standard time.Duration) {
	if *value == 0 {
		*value = standard
	}
}

// level keeps a long outage from filling the log: the first failures tell, the later ones only on request.
func level(failures int) slog.Level {
	if failures < 3 {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
