package powercut

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/test/powercut/disk"
)

const (
	diskSize = 64 << 20
	// writeLimit ends the writing of an episode whose disk does less than was planned.
	writeLimit = 4 * time.Second
	// baseBig and baseWrites fill a disk so far that it has a checkpoint.
	baseBig, baseWrites = 2, 400
)

// Suite makes episodes with one binary.
type Suite struct {
	bench  *Bench
	binary string
	empty  *disk.Disk // a file system with nothing in it
	used   *disk.Disk // one with a server's data: a cluster, objects, a log, a checkpoint
	ledger *ledger    // what the server has acknowledged on the used one
}

// NewSuite prepares the disks that episodes begin with.
func NewSuite(ctx context.Context, bench *Bench, binary string) (*Suite, error) {
	s := &Suite{bench: bench, binary: binary, ledger: newLedger()}
	var err error
	if s.empty, err = bench.format(diskSize); err != nil {
		return nil, err
	}
	s.used = disk.New(s.empty.Content())
	m := bench.machine(binary, s.used)
	defer func() { err = errors.Join(err, m.dead()) }()
	if err = m.powerOn(); err != nil {
		return nil, err
	}
	if err = m.startSoon(); err != nil {
		return nil, err
	}
	if _, err = m.ready(ctx); err != nil {
		return nil, err
	}
	if err = m.write(ctx, s.ledger, newRand(0, 0), plan{clients: 8, big: baseBig, until: baseWrites}).Wait(); err != nil {
		return nil, err
	}
	return s, m.shutDown()
}

// plan is what a seed decides.
type plan struct {
	fresh   bool // the disk is empty, the server makes a new cluster
	clients int
	big     int // of so many writes one is large
	until   int // so many writes are acknowledged, 0 for no end
	inStart bool
	cutAt   int   // disk operation, from the start of the process (inStart) or of the writers
	again   []int // further cuts during the starts that follow, in these disk operations
}

func newPlan(rng *rand.Rand) plan {
	p := plan{fresh: rng.IntN(8) == 0, clients: 1 + rng.IntN(12), big: []int{1, 10, 1000}[rng.IntN(3)]}
	p.cutAt = 1 + rng.IntN(1200)
	if p.inStart = rng.IntN(8) == 0; p.inStart {
		p.cutAt = 1 + rng.IntN(80)
	}
	for rng.IntN(4) == 0 && len(p.again) < 3 {
		p.again = append(p.again, 1+rng.IntN(60))
	}
	return p
}

func (p plan) String() string {
	var b strings.Builder
	b.WriteString("used disk")
	if p.fresh {
		b.Reset()
		b.WriteString("empty disk")
	}
	if p.inStart {
		b.WriteString(", cut during the start")
	} else {
		fmt.Fprintf(&b, ", %d clients", p.clients)
	}
	if len(p.again) > 0 {
		fmt.Fprintf(&b, ", %d more cuts during starts", len(p.again))
	}
	return b.String()
}

// Result tells of one episode.
type Result struct {
	Seed  uint64
	Plan  string
	Loss  []disk.Loss
	Acks  int           // writes acknowledged before the cut
	Ready time.Duration // after the last power-on, from the start of the process
	Wrong []string
	Err   error
}

// Passed says whether nothing was wrong.
func (r Result) Passed() bool { return r.Err == nil && len(r.Wrong) == 0 }

func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s; %d writes acknowledged", r.Seed, r.Plan, r.Acks)
	for _, l := range r.Loss {
		fmt.Fprintf(&b, "; cut %v", l)
	}
	if r.Passed() {
		fmt.Fprintf(&b, "; ready in %d ms: ok", r.Ready.Milliseconds())
		return b.String()
	}
	b.WriteString(": FAILED")
	if r.Err != nil {
		fmt.Fprintf(&b, "\n  %v", r.Err)
	}
	for i, w := range r.Wrong {
		if i == 10 {
			fmt.Fprintf(&b, "\n  and %d more", len(r.Wrong)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s", w)
	}
	return b.String()
}

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// streams of random numbers, so that one use of them does not move another.
const (
	streamPlan = iota
	streamCut
	streamWriters
)

// Episode runs the episode of a seed.
func (s *Suite) Episode(ctx context.Context, seed uint64) Result {
	p := newPlan(newRand(seed, streamPlan))
	r := Result{Seed: seed, Plan: p.String()}
	cuts := newRand(seed, streamCut)
	start, ledger := s.used, s.ledger.clone()
	if p.fresh {
		start, ledger = s.empty, newLedger()
	}
	m := s.bench.machine(s.binary, disk.New(start.Content()))
	r.Err = m.live(ctx, p, cuts, newRand(seed, streamWriters), ledger)
	r.Acks = ledger.acked()
	r.Err = errors.Join(r.Err, m.dead())
	r.Loss = append(r.Loss, m.disk.Lost())
	for _, op := range p.again {
		if r.Err != nil {
			return r
		}
		r.Err = errors.Join(m.stumble(ctx, op, cuts), m.dead())
		r.Loss = append(r.Loss, m.disk.Lost())
	}
	if r.Err == nil {
		r.Ready, r.Wrong, r.Err = m.examine(ctx, ledger)
		r.Err = errors.Join(r.Err, m.dead())
	}
	return r
}

// live is the first life of a machine, until its power fails.
func (m *Machine) live(ctx context.Context, p plan, cuts, writers *rand.Rand, l *ledger) error {
	if p.inStart {
		return m.stumble(ctx, p.cutAt, cuts)
	}
	if err := errors.Join(m.powerOn(), m.startSoon()); err != nil {
		return err
	}
	have, err := m.ready(ctx)
	if err != nil {
		return fmt.Errorf("before the cut: %w", err)
	}
	if wrong := l.check(have); len(wrong) > 0 {
		return fmt.Errorf("before the cut: %s", strings.Join(wrong, "; "))
	}
	dark := m.planCut(p.cutAt, cuts)
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	failed := make(chan error, 1)
	group := m.write(ctx, l, writers, p)
	go func() { failed <- group.Wait() }()
	select {
	case err = <-failed:
		select {
		case <-dark: // that is why
			return nil
		case <-time.After(10 * time.Millisecond):
		}
		if ctx.Err() == nil {
			err = fmt.Errorf("before the cut: %w\n%s", err, m.server.log)
		} else {
			err = nil
		}
		m.disk.Cut()
		<-dark
		return err
	case <-ctx.Done():
		m.disk.Cut()
		<-dark
	case <-dark:
	}
	cancel()
	if err := <-failed; err == nil && ctx.Err() == nil { // the writers lose their server
		return errors.New("the writers go on without a server")
	}
	return nil
}

// stumble turns the machine on and cuts its power while the server starts.
func (m *Machine) stumble(ctx context.Context, op int, cuts *rand.Rand) error {
	if err := m.powerOn(); err != nil {
		return err
	}
	if err := m.startSoon(); err != nil {
		return err
	}
	dark := m.planCut(op, cuts)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	select {
	case <-dark:
		return nil
	case <-ctx.Done(): // a start that writes less than that
	case <-m.server.ended:
		select {
		case <-dark:
			return nil
		case <-time.After(time.Second):
		}
		m.disk.Cut()
		return fmt.Errorf("the server ended by itself (%v):\n%s", m.server.cmd.ProcessState, m.server.log)
	}
	m.disk.Cut()
	<-dark
	return nil
}

// planCut makes the disk's power fail in an operation and the process end with it. The channel is closed then.
func (m *Machine) planCut(op int, cuts *rand.Rand) <-chan struct{} {
	dark := make(chan struct{})
	m.disk.PlanCut(op, cuts, func() {
		m.server.kill()
		close(dark)
	})
	return dark
}

// write starts clients that write until something fails or ctx ends.
func (m *Machine) write(ctx context.Context, l *ledger, rng *rand.Rand, p plan) *errgroup.Group {
	group, ctx := errgroup.WithContext(ctx)
	for i := range p.clients {
		w := &writer{
			client: m.server.kube, ledger: l, rng: newRand(rng.Uint64(), uint64(i)), name: fmt.Sprintf("client%d", i), names: 20, big: p.big,
			until: p.until,
		}
		group.Go(func() error { return w.run(ctx) })
	}
	return group
}

// examine turns the machine on after a cut, with nobody's help, and compares what is there with what was acknowledged.
func (m *Machine) examine(ctx context.Context, l *ledger) (ready time.Duration, wrong []string, err error) {
	if err := m.powerOn(); err != nil {
		return 0, nil, err
	}
	began := time.Now()
	if err := m.start(); err != nil {
		return 0, nil, err
	}
	have, err := m.ready(ctx)
	if err != nil {
		return 0, nil, err
	}
	ready = time.Since(began)
	wrong = l.check(have)
	aside, err := m.setAside()
	if err != nil {
		return ready, wrong, err
	}
	for _, path := range aside {
		wrong = append(wrong, "a file was set aside: "+path)
	}
	more, err := m.goOn(ctx, have, l)
	if m.server.log.panicked() {
		wrong = append(wrong, "the server panicked: "+m.server.log.String())
	}
	return ready, append(wrong, more...), err
}

// goOn writes a few more objects: revisions go on from where they were.
func (m *Machine) goOn(ctx context.Context, have map[string]object, l *ledger) (wrong []string, err error) {
	last := l.highest
	for name, o := range have {
		if name != readyName && o.revision > last {
			last = o.revision
		}
	}
	if have[readyName].revision <= last {
		wrong = append(wrong, fmt.Sprintf("the first write after the cut has the revision %d, but %d was there before",
			have[readyName].revision, last))
	}
	for i := range 5 {
		want := object{value: fmt.Sprintf("after-%d", i)}
		got, err := write(ctx, m.server.kube, "POST", fmt.Sprintf("after-%d", i), want)
		if err != nil {
			return wrong, fmt.Errorf("write after the cut: %w\n%s", err, m.server.log)
		}
		if got.revision <= last {
			wrong = append(wrong, fmt.Sprintf("a write after the cut has the revision %d, but %d was there before", got.revision, last))
		}
		last = got.revision
	}
	return wrong, nil
}
