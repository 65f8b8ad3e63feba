package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/store"
)

// tcpLayer is loopback TCP whose connections a test can cut.
type tcpLayer struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (l *tcpLayer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.track(c)
	return c, nil
}

func (l *tcpLayer) Dial(ctx context.Context, address string) (net.Conn, error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return nil, errors.New("cut off")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		l.track(c)
	}
	return c, err
}

func (l *tcpLayer) track(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		c.Close()
		return
	}
	l.conns = append(l.conns, c)
}

// setCut cuts all connections, and new ones too, until it is called with false.
func (l *tcpLayer) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *tcpLayer) Close() error {
	err := l.Listener.Close()
	l.setCut(true)
	return err
}

// member is one server of a test cluster.
type member struct {
	*Node
	layer *tcpLayer
	store *store.Store
	stop  context.CancelFunc
	done  chan error
}

type testCluster struct {
	testing.TB
	configure func(*Config)
	dirs      []string
	addresses []string
	members   []*member // nil: not running
	lead      Lead
}

func idle(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func newCluster(t testing.TB, size int, configure func(*Config)) *testCluster {
	return newClusterThat(t, idle, size, configure)
}

func newClusterThat(t testing.TB, lead Lead, size int, configure func(*Config)) *testCluster {
	c := &testCluster{TB: t, configure: configure, members: make([]*member, size), lead: lead}
	for range size {
		c.dirs = append(c.dirs, t.TempDir())
		c.addresses = append(c.addresses, "127.0.0.1:0")
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.kill(i)
		}
	})
	for i := range size {
		c.start(i)
		if i == 0 {
			continue
		}
		c.join(i)
	}
	return c
}

// join makes a server that has just been started a member, with a vote.
func (c *testCluster) join(i int) {
	c.Helper()
	leader := c.leader()
	if err := c.members[i].Adopt(leader.Cluster()); err != nil {
		c.Fatal(err)
	}
	c.announce(i)
	s, _ := find(leader.Servers(), fmt.Sprint("s", i))
	_, index := leader.membership()
	if err := leader.giveVote(c.soon(), &s, index); err != nil {
		c.Fatal(err)
	}
}

// announce tells the leader where a server is, and has it readmitted first if it needs to be.
func (c *testCluster) announce(i int) {
	c.Helper()
	c.readmit(i)
	for {
		err := c.leader().Announce(c.soon(), fmt.Sprint("s", i), c.addresses[i], c.config(i).Witness)
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrNotLeader) {
			c.Fatal(err)
		}
	}
}

// readmit does what a new server, or one that has lost its state, does with the leader, and waits until it has caught up.
func (c *testCluster) readmit(i int) {
	c.Helper()
	m := c.members[i]
	for m.OnProbation() {
		r, err := c.leader().Readmit(c.soon(), fmt.Sprint("s", i), c.addresses[i], c.config(i).Witness)
		if errors.Is(err, store.ErrNotLeader) {
			continue
		}
		if err := errors.Join(err, m.Readmitted(r)); err != nil {
			c.Fatal(err)
		}
		for ended := time.After(20 * time.Second); m.OnProbation(); {
			select {
			case <-m.LeaderChanges():
			case <-time.After(10 * time.Millisecond):
			case <-ended:
				c.Fatalf("server %d does not catch up to %+v: it has applied entry %d", i, r, m.raft.AppliedIndex())
			}
		}
	}
}

// soon is a context that ends when something must have happened long ago.
func (c *testCluster) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.Cleanup(cancel)
	return ctx
}

func (c *testCluster) config(i int) Config {
	cfg := Config{
		ID: fmt.Sprint("s", i), Dir: c.dirs[i], Bootstrap: i == 0, Store: store.New(store.Config{Persisted: true}),
		Logger: slog.New(slog.NewTextHandler(c.Output(), nil)), ElectionTimeout: 300 * time.Millisecond,
	}
	if c.configure != nil {
		c.configure(&cfg)
	}
	return cfg
}

func (c *testCluster) start(i int) *member {
	c.Helper()
	l, err := net.Listen("tcp", c.addresses[i])
	if err != nil {
		c.Fatal(err)
	}
	c.addresses[i] = l.Addr().String()
	layer := &tcpLayer{Listener: l}
	cfg := c.config(i)
	cfg.Layer, cfg.Address = layer, c.addresses[i]
	node, err := Open(cfg)
	if err != nil {
		c.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &member{Node: node, layer: layer, store: cfg.Store, stop: stop, done: make(chan error, 1)}
	go func() { m.done <- node.Run(ctx, c.lead) }()
	c.members[i] = m
	return m
}

// kill stops a server as a crash does: nothing is handed over.
func (c *testCluster) kill(i int) { c.cutOff(i)() }

// cutOff is the first moment of a crash: the server is gone for all others. What it returns cleans up.
func (c *testCluster) cutOff(i int) (finish func()) {
	m := c.members[i]
	if m == nil {
		return func() {}
	}
	c.members[i] = nil
	_ = m.layer.Close()
	return func() {
		_ = m.Close()
		m.stop()
		<-m.done
	}
}

func (c *testCluster) leader() *member {
	c.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		var changes []<-chan struct{}
		for _, m := range c.members {
			if m == nil {
				continue
			}
			changes = append(changes, m.LeaderChanges())
			if _, err := m.ReadIndex(c.soon()); err == nil {
				return m
			}
		}
		select {
		case <-changes[0]:
		case <-time.After(20 * time.Millisecond):
		}
	}
	c.Fatal("no leader")
	return nil
}

func (c *testCluster) index(m *member) int { return slices.Index(c.members, m) }

// write writes through whoever leads, trying again as a client does.
func (c *testCluster) write(name, value string) uint64 {
	c.Helper()
	for range 200 {
		m := c.leader()
		revision, err := m.Propose(c.soon(), put(name, value))
		switch {
		case err == nil:
			return revision
		case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrUncertain):
		default:
			c.Fatal(err)
		}
	}
	c.Fatal("no write succeeds")
	return 0
}

func put(name, value string) store.Txn {
	return store.Txn{Ops: []store.Op{{Key: key(name), Value: []byte(value), Expect: store.Any}}}
}

func key(name string) store.Key {
	return store.Key{Resource: "configmaps", Namespace: "default", Name: name}
}

// same waits until every running server has applied the revision and compares their states.
func (c *testCluster) same(revision uint64) {
	c.Helper()
	var first []store.Item
	for i, m := range c.members {
		if m == nil {
			continue
		}
		if err := m.store.Wait(c.soon(), revision); err != nil {
			c.Fatalf("server %d: %v", i, err)
		}
		items, _ := m.store.All()
		if first == nil {
			first = items
		}
		if diff := cmp.Diff(first, items); diff != "" {
			c.Fatalf("server %d differs:\n%s", i, diff)
		}
	}
}
