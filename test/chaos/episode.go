package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// checkLimit is how long the checker may think about an episode.
	checkLimit = time.Minute
	// blameLimit is how long it may think about one key, to say which are wrong.
	blameLimit = 2 * time.Second
)

// Report is how an episode went.
type Report struct {
	Plan     string
	Faults   []string
	Ops      int           // recorded
	Unknown  int           // of them, with an outcome that is not known
	Load     time.Duration // how long the clients worked
	Settled  time.Duration // from the end of the faults until all servers were equal
	Events   int           // changes that the watchers told of
	Streams  int           // their connections
	Lists    int           // compared with the changes
	Marks    int           // bookmarks
	Gone     int           // answers 410
	Problems []string
}

func (r *Report) String() string {
	verdict := "ok"
	if len(r.Problems) > 0 {
		verdict = "FAILED"
	}
	text := fmt.Sprintf("%s; %s; %d ops, %.0f/s, %d unknown; %d events on %d streams, %d lists, %d bookmarks, %d times 410; equal after %.1fs; %s",
		r.Plan, strings.Join(r.Faults, "; "), r.Ops, float64(r.Ops)/r.Load.Seconds(), r.Unknown, r.Events, r.Streams, r.Lists, r.Marks, r.Gone,
		r.Settled.Seconds(), verdict)
	for i, p := range r.Problems {
		if i == 10 {
			return text + fmt.Sprintf("\n    and %d more", len(r.Problems)-i)
		}
		text += "\n    " + p
	}
	return text
}

// stage is a cluster with its watchers, on which one episode after another takes place.
type stage struct {
	*Cluster
	record    record
	watchers  []*watcher
	validator *validator
	last      []Op // of the last episode, for who asks why
	info      porcupine.LinearizationInfo
	marks     atomic.Uint64 // makes the values of marks differ

	stop    context.CancelFunc
	running sync.WaitGroup
}

func newStage(ctx context.Context, c *Cluster) (*stage, error) {
	st := &stage{Cluster: c}
	code, reason, err := c.servers[0].admin.do(ctx, http.MethodPost, configMaps, configMap(pulse, "start-0", 0), nil)
	if err != nil || code != http.StatusCreated {
		return nil, fmt.Errorf("create the pulse: %d %s %w", code, reason, err)
	}
	base, err := listAll(ctx, c.servers[0].admin, "the first list")
	if err != nil {
		return nil, err
	}
	st.record.base, st.validator = base.revision, newValidator(base)
	st.watchers = newWatchers(c, &st.record)
	ctx, st.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, w := range st.watchers {
		st.running.Go(func() { w.run(ctx) })
	}
	return st, nil
}

func (st *stage) Close() error {
	st.stop()
	st.running.Wait()
	return st.Cluster.Close()
}

// play runs one episode.
func (st *stage) play(ctx context.Context, p *plan) *Report {
	r := &Report{Plan: p.String()}
	h := &history{since: st.since, name: fmt.Sprintf("e%d", p.seed)}
	began := st.since()
	loadCtx, endLoad := context.WithCancel(ctx)
	var load sync.WaitGroup
	for i := range clients {
		w := newWorker(i, p.seed, st.Cluster, h)
		load.Go(func() { w.run(loadCtx) })
	}
	load.Go(func() { st.beat(loadCtx, p.seed) })
	problems := st.disturb(ctx, p, h, r)
	wait(ctx, 400*time.Millisecond) // they go on for a while in a cluster without faults
	endLoad()
	load.Wait()
	r.Load = st.since() - began
	problems = append(problems, st.conclude(ctx, h, r)...)
	r.Problems = problems
	st.last = h.ops
	return r
}

// beat changes the pulse all the time.
func (st *stage) beat(ctx context.Context, seed uint64) {
	w := newWorker(50, seed, st.Cluster, &history{since: st.since, name: fmt.Sprintf("pulse%d", seed)})
	for ctx.Err() == nil {
		w.do(Op{Client: w.id, Server: w.pick(), Kind: Put, Key: pulse, Value: w.value()}, 0)
		wait(ctx, pulseEvery)
	}
	for _, a := range w.apis {
		a.http.CloseIdleConnections()
	}
}

// disturb makes the faults of the plan, and heals everything at the end of the load.
func (st *stage) disturb(ctx context.Context, p *plan, h *history, r *Report) []string {
	var mu sync.Mutex
	var problems []string
	faultCtx, heal := context.WithTimeout(ctx, p.load)
	defer heal()
	var running sync.WaitGroup
	told := make([]string, len(p.steps))
	for i, step := range p.steps {
		running.Go(func() {
			wait(faultCtx, step.after)
			if faultCtx.Err() != nil {
				told[i] = step.fault.name + " (too late)"
				return
			}
			s := &scene{Cluster: st.Cluster, h: h, rng: rand.New(rand.NewPCG(step.seed, 1)), hold: step.hold}
			s.say = func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				told[i] = fmt.Sprintf("%.1fs %s: ", step.after.Seconds(), step.fault.name) + fmt.Sprintf(format, args...)
			}
			s.say("nothing left to disturb")
			if err := step.fault.run(s, faultCtx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, fmt.Sprintf("%s: %v", step.fault.name, err))
			}
		})
	}
	running.Wait()
	wait(faultCtx, p.load)
	r.Faults = told
	return append(problems, st.heal(ctx)...)
}

// heal takes back every fault and starts every process.
func (st *stage) heal(ctx context.Context) (problems []string) {
	if err := st.network.heal(ctx); err != nil {
		problems = append(problems, err.Error())
	}
	for _, s := range st.servers {
		pid := s.ShoalPID()
		if err := s.resume(); err != nil {
			problems = append(problems, err.Error())
		}
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		if pid == 0 && !down {
			problems = append(problems, s.Name+" has ended by itself")
		}
		if err := st.ensure(ctx, s); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

// conclude waits until all is calm and checks everything.
func (st *stage) conclude(ctx context.Context, h *history, r *Report) (problems []string) {
	fail := func(err error) []string { return append(problems, err.Error()) }
	until, err := st.mark(ctx, h)
	if err != nil {
		return fail(err)
	}
	if r.Settled, err = st.settle(ctx, until); err != nil {
		return fail(err)
	}
	if err := st.readAll(ctx, h); err != nil {
		problems = fail(err)
	}
	// Once more, so that the watches tell of all that the reads can have seen.
	if until, err = st.mark(ctx, h); err != nil {
		return fail(err)
	}
	if err := st.awaitWatchers(ctx, until); err != nil {
		return fail(err)
	}
	holes := len(st.validator.holes)
	problems = append(problems, st.validator.check(&st.record, until, h)...)
	problems = append(problems, st.judgeGone(r)...)
	r.count(h, st.validator)
	resolved := resolve(h.ops, st.validator.changes, len(st.validator.holes) > holes)
	verdict, info := checkLinearizable(resolved, checkLimit)
	st.info = info
	if verdict != porcupine.Ok {
		problems = append(problems, fmt.Sprintf("the history is not linearizable: %s", verdict))
		problems = append(problems, illegal(resolved)...)
	}
	if err := st.tidy(ctx, h); err != nil {
		problems = fail(err)
	}
	return problems
}

// illegal finds the keys whose history breaks the model.
func illegal(ops []Op) []string {
	parts := map[string][]Op{}
	for _, o := range ops {
		parts[o.Key] = append(parts[o.Key], o)
	}
	var out []string
	for key, part := range parts {
		if verdict, _ := checkLinearizable(part, blameLimit); verdict != porcupine.Ok {
			out = append(out, fmt.Sprintf("%s: %s (%d operations)", key, verdict, len(part)))
		}
	}
	return out
}

func (r *Report) count(h *history, v *validator) {
	r.Ops = len(h.ops)
	for _, o := range h.ops {
		if o.Result == Unknown {
			r.Unknown++
		}
	}
	r.Events, r.Streams, r.Lists, r.Marks = v.events, v.streams, v.lists, v.marks
	v.events, v.streams, v.lists, v.marks = 0, 0, 0, 0
}

// mark writes once more, to an object that every watcher sees, and returns the revision.
func (st *stage) mark(ctx context.Context, h *history) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var got thing
	err := eventually(ctx, func() error {
		value := fmt.Sprintf("%s-mark-%d", h.name, 2*st.marks.Add(1)) // even, for the phase a
		limited, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		for _, s := range st.servers {
			code, reason, err := s.admin.do(limited, http.MethodPut, configMaps+"/"+pulse, configMap(pulse, value, 0), &got)
			if err == nil && code == http.StatusOK {
				return nil
			}
			if err == nil {
				err = fmt.Errorf("%d %s", code, reason)
			}
			if s == st.servers[len(st.servers)-1] {
				return fmt.Errorf("no write succeeds after the faults: %s: %w", s.Name, err)
			}
		}
		return nil
	})
	return got.revision(), err
}

// readAll reads every key at every server: what was acknowledged must be there.
func (st *stage) readAll(ctx context.Context, h *history) error {
	var names []string
	for _, o := range h.ops {
		names = append(names, o.Key)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	errs := make([]error, len(st.servers))
	var reading sync.WaitGroup
	for i := range st.servers {
		w := newWorker(200+i, 0, st.Cluster, h)
		reading.Go(func() {
			for _, name := range names {
				o := w.do(Op{Client: w.id, Server: i, Kind: Get, Key: name}, 0)
				for n := 0; o.Result == Unknown && n < 4 && ctx.Err() == nil; n++ {
					o = w.do(Op{Client: w.id, Server: i, Kind: Get, Key: name}, 0)
				}
				if o.Result == Unknown {
					errs[i] = fmt.Errorf("server-%d does not answer reads after the faults", i+1)
					return
				}
			}
			for _, a := range w.apis {
				a.http.CloseIdleConnections()
			}
		})
	}
	reading.Wait()
	return errors.Join(errs...)
}

// awaitWatchers waits until every watcher has heard everything up to a revision.
func (st *stage) awaitWatchers(ctx context.Context, until uint64) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	return eventually(ctx, func() error {
		for _, w := range st.watchers {
			if at := w.heard(); at < until {
				return fmt.Errorf("watcher %s has heard of revision %d only, not of %d, %s after the faults", w.name, at, until, settleLimit)
			}
		}
		return nil
	})
}

// goneGrace is for how long a fault is a reason for an answer 410. A server that was away may get its checkpoint only 10 seconds
// after it is back: that is how long the library waits, in the end, between two tries to send it something.
const goneGrace = 15 * time.Second

// judgeGone checks the answers 410: a history goes when its server starts anew, gets a checkpoint, or after a burst; so if there
// was no fault near, there was no reason.
func (st *stage) judgeGone(r *Report) (problems []string) {
	st.record.mu.Lock()
	gones := st.record.gones
	st.record.gones = nil
	st.record.mu.Unlock()
	r.Gone = len(gones)
	for _, g := range gones {
		recent := g.heard - goneGrace
		if time.Duration(st.servers[g.server].touched.Load()) < recent && time.Duration(st.bursts.Load()) < recent {
			problems = append(problems, fmt.Sprintf("watcher %s: 410 for revision %d at server-%d without a reason", g.who, g.after, g.server+1))
		}
	}
	return problems
}

// tidy removes the episode's objects, so that the next begins as the model does.
func (st *stage) tidy(ctx context.Context, h *history) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	return eventually(ctx, func() error {
		code, reason, err := st.servers[0].admin.do(ctx, http.MethodDelete, configMaps+query("labelSelector", labelRun+"="+h.name), nil, nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("remove the objects: %d %s", code, reason)
		}
		return err
	})
}

// keep writes down what a person needs to find the cause of a failure.
func (st *stage) keep(dir string, r *Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintln(&text, r)
	slices.SortFunc(st.last, func(a, b Op) int { return int(a.Call - b.Call) })
	for _, o := range st.last {
		fmt.Fprintln(&text, o)
	}
	errs := []error{os.WriteFile(dir+"/history.txt", []byte(text.String()), 0o644)}
	for _, s := range st.servers {
		log, err := os.ReadFile(s.ShoalLog())
		if err == nil {
			err = os.WriteFile(dir+"/"+s.Name+".log", log, 0o644)
		}
		errs = append(errs, err)
	}
	if len(st.last) > 0 {
		errs = append(errs, porcupine.VisualizePath(model(), st.info, dir+"/history.html"))
	}
	return errors.Join(errs...)
}
