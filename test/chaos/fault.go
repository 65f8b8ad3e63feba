package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// scene is what a fault works on.
type scene struct {
	*Cluster
	h    *history
	rng  *rand.Rand
	hold time.Duration
	say  func(format string, args ...any)
}

// fault is one kind of trouble. run begins it, keeps it up for the hold or until ctx ends, and takes it back; an error is
// a failure of the harness or a promise that the server broke.
type fault struct {
	name   string
	weight int
	fits   func(p *plan) bool
	run    func(s *scene, ctx context.Context) error
}

func always(*plan) bool       { return true }
func three(p *plan) bool      { return p.size >= 3 }
func failpoints(p *plan) bool { return p.failpoints }

// roomy: the product's checkpoints are far apart, too far for a short episode.
func roomy(p *plan) bool { return p.failpoints || p.long }

// faults are all kinds.
func faults() []fault {
	return []fault{
		{"kill leader", 4, always, func(s *scene, ctx context.Context) error { return s.kill(ctx, syscall.SIGKILL, s.chooseLeader(ctx)) }},
		{"kill follower", 2, three, func(s *scene, ctx context.Context) error { return s.kill(ctx, syscall.SIGKILL, s.chooseFollower(ctx)) }},
		{"kill two", 2, three, func(s *scene, ctx context.Context) error {
			return s.kill(ctx, syscall.SIGKILL, s.chooseLeader(ctx), s.chooseFollower(ctx))
		}},
		{"kill all", 1, always, func(s *scene, ctx context.Context) error {
			var all []*Server
			for _, server := range s.servers {
				if server.take() {
					all = append(all, server)
				}
			}
			return s.kill(ctx, syscall.SIGKILL, all...)
		}},
		{"stop leader", 1, three, func(s *scene, ctx context.Context) error { return s.kill(ctx, syscall.SIGTERM, s.chooseLeader(ctx)) }},
		{"pause leader", 4, always, func(s *scene, ctx context.Context) error { return s.pause(ctx, s.chooseLeader(ctx)) }},
		{"pause follower", 1, three, func(s *scene, ctx context.Context) error { return s.pause(ctx, s.chooseFollower(ctx)) }},
		{"isolate leader", 3, three, (*scene).isolateLeader},
		{"halves", 2, three, (*scene).halves},
		{"one way", 3, three, (*scene).oneWay},
		{"bridge", 2, three, (*scene).bridge},
		{"loss", 3, three, (*scene).loss},
		{"fall behind", 2, roomy, (*scene).fallBehind},
		{"failpoint", 16, failpoints, (*scene).failpoint},
	}
}

// chooseLeader takes the server that leads, or, if none does, any that is free; nil when there is none.
func (s *scene) chooseLeader(ctx context.Context) *Server {
	if l := s.leader(ctx); l != nil && l.take() {
		return l
	}
	return s.chooseFollower(ctx)
}

// chooseFollower takes a server that does not lead.
func (s *scene) chooseFollower(ctx context.Context) *Server {
	leader := s.leader(ctx)
	for _, i := range s.rng.Perm(len(s.servers)) {
		if candidate := s.servers[i]; candidate != leader && candidate.take() {
			return candidate
		}
	}
	return nil
}

func names(servers []*Server) string {
	var all []string
	for _, s := range servers {
		if s != nil {
			all = append(all, s.Name)
		}
	}
	return strings.Join(all, " and ")
}

// wait returns after the time, or when the episode heals.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// kill ends processes by a signal and starts them again after the hold, one shortly after the other.
func (s *scene) kill(ctx context.Context, signal syscall.Signal, targets ...*Server) error {
	s.say("%s for %.1fs", names(targets), s.hold.Seconds())
	var ending sync.WaitGroup
	ended := make([]error, len(targets))
	for i, t := range targets {
		if t != nil {
			defer t.give()
			ending.Go(func() { ended[i] = t.end(signal) })
		}
	}
	ending.Wait()
	for _, err := range ended {
		if err != nil {
			return err
		}
	}
	wait(ctx, s.hold)
	for _, t := range targets {
		if t == nil {
			continue
		}
		if err := s.ensure(context.WithoutCancel(ctx), t); err != nil {
			return err
		}
		wait(ctx, upTo(s.rng, 200*time.Millisecond))
	}
	return nil
}

// stopLimit is how long a graceful stop may take.
const stopLimit = 15 * time.Second

// end ends the process by a signal and waits for it.
func (s *Server) end(signal syscall.Signal) error {
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	pid := s.ShoalPID()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("%s: %s: %w", s.Name, signal, err)
	}
	err := s.awaitEnd(stopLimit, signal.String())
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // its log then tells what each goroutine waits for
	}
	return err
}

func (s *Server) awaitEnd(limit time.Duration, why string) error {
	for deadline := time.Now().Add(limit); s.ShoalPID() != 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still runs %s after %s", s.Name, limit, why)
		}
	}
	return nil
}

// pause stops a process without its knowing.
func (s *scene) pause(ctx context.Context, t *Server) error {
	if t == nil {
		return nil
	}
	defer t.give()
	s.say("%s for %.1fs", t.Name, s.hold.Seconds())
	pid := t.ShoalPID()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("%s: SIGSTOP: %w", t.Name, err)
	}
	wait(ctx, s.hold)
	s.touch(t)
	return t.resume()
}

// resume lets a stopped process go on. The program that entered the namespaces stops and goes on together with it.
func (s *Server) resume() error {
	pid := s.ShoalPID()
	if pid == 0 {
		return nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil // it has just ended
	}
	var parent int
	if _, rest, ok := strings.Cut(string(status), "\nPPid:"); ok {
		_, _ = fmt.Sscan(rest, &parent)
	}
	for _, p := range []int{pid, parent} {
		if p <= 1 {
			continue
		}
		if err := syscall.Kill(p, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("%s: SIGCONT: %w", s.Name, err)
		}
	}
	return nil
}

func (s *scene) cut(ctx context.Context, what string, cuts []cut) error {
	s.say("%s for %.1fs", what, s.hold.Seconds())
	undo, err := s.network.add(context.WithoutCancel(ctx), cuts...)
	if err != nil {
		return err
	}
	wait(ctx, s.hold)
	return undo(context.WithoutCancel(ctx))
}

// someone is the leader or, if none leads, any server.
func (s *scene) someone(ctx context.Context) int {
	if l := s.leader(ctx); l != nil {
		return l.index
	}
	return s.rng.IntN(len(s.servers))
}

func (s *scene) others(but int) []int {
	var all []int
	for i := range s.servers {
		if i != but {
			all = append(all, i)
		}
	}
	return all
}

func (s *scene) isolateLeader(ctx context.Context) error {
	l := s.someone(ctx)
	return s.cut(ctx, s.servers[l].Name, between([]int{l}, s.others(l), 100))
}

// halves splits the servers in two, anywhere.
func (s *scene) halves(ctx context.Context) error {
	order := s.rng.Perm(len(s.servers))
	n := 1 + s.rng.IntN(len(order)-1)
	return s.cut(ctx, fmt.Sprint(s.listed(order[:n]), " | ", s.listed(order[n:])), between(order[:n], order[n:], 100))
}

func (s *scene) listed(indexes []int) string {
	var all []string
	for _, i := range indexes {
		all = append(all, fmt.Sprint(i+1))
	}
	return strings.Join(all, ",")
}

// oneWay makes a server deaf or mute, for all others or for some.
func (s *scene) oneWay(ctx context.Context) error {
	l := s.someone(ctx)
	others := s.others(l)
	s.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	others = others[:1+s.rng.IntN(len(others))]
	deaf := s.rng.IntN(2) == 0
	what := fmt.Sprintf("%s does not reach %s", s.servers[l].Name, s.listed(others))
	if deaf {
		what = fmt.Sprintf("%s does not hear %s", s.servers[l].Name, s.listed(others))
	}
	var cuts []cut
	for _, i := range others {
		if deaf {
			cuts = append(cuts, cut{i, l, 100})
		} else {
			cuts = append(cuts, cut{l, i, 100})
		}
	}
	return s.cut(ctx, what, cuts)
}

// bridge leaves one server that reaches both sides, which do not reach each other.
func (s *scene) bridge(ctx context.Context) error {
	order := s.rng.Perm(len(s.servers))
	half := (len(order) - 1) / 2
	left, middle, right := order[:half], order[half], order[half+1:]
	return s.cut(ctx, fmt.Sprintf("%s | %s over %d", s.listed(left), s.listed(right), middle+1), between(left, right, 100))
}

// loss drops 30 % of all packets between servers, or of one server's.
func (s *scene) loss(ctx context.Context) error {
	if s.rng.IntN(2) == 0 {
		var all []int
		for i := range s.servers {
			all = append(all, i)
		}
		var cuts []cut
		for i := range all {
			cuts = append(cuts, between(all[i:i+1], all[i+1:], 30)...)
		}
		return s.cut(ctx, "30 % everywhere", cuts)
	}
	l := s.someone(ctx)
	return s.cut(ctx, "30 % at "+s.servers[l].Name, between([]int{l}, s.others(l), 30))
}

// A burst is enough for two checkpoints, of which the second leaves a server behind that missed both. With the product's limits
// it is also more than the history of the watches holds.
const (
	burstWriters = 24
	burstWrites  = 18 // of each, with the limits of a build with failpoints
	burstFiller  = 2 << 10
	productTimes = 8
)

// burst writes much at once, through the other servers. Where two faults together leave no quorum, every write waits until it is given
// up: the burst ends with the load.
func (s *scene) burst(ctx context.Context, but *Server) {
	s.bursts.Store(int64(s.since()))
	writes, filler := burstWrites, 0
	if !s.failpoints {
		writes, filler = productTimes*burstWrites, burstFiller
	}
	var writers sync.WaitGroup
	for i := range burstWriters {
		w := newWorker(100+i, s.rng.Uint64(), s.Cluster, s.h)
		writers.Go(func() {
			o := Op{Client: w.id}
			for n := 0; n < writes && ctx.Err() == nil; n++ {
				if o.Key == "" {
					o.Key, o.Kind = fmt.Sprintf("%s-b%d-%d", s.h.name, i, n), Create
				}
				for o.Server = w.pick(); but != nil && o.Server == but.index; {
					o.Server = w.rng.IntN(len(w.apis))
				}
				o.Value = w.value()
				if w.do(o, filler).Result == Done {
					o.Kind = Put
				} else {
					o.Key = "" // another one, so that no history of a key has many unknown outcomes
				}
			}
			for _, a := range w.apis {
				a.http.CloseIdleConnections()
			}
		})
	}
	writers.Wait()
	s.bursts.Store(int64(s.since()))
}

// fallBehind keeps a follower away for so long that the log does not reach back to it: it gets a checkpoint.
func (s *scene) fallBehind(ctx context.Context) error {
	t := s.chooseFollower(ctx)
	if t == nil {
		return nil
	}
	defer t.give()
	s.say("%s", t.Name)
	if s.rng.IntN(2) == 0 {
		undo, err := s.network.add(context.WithoutCancel(ctx), between([]int{t.index}, s.others(t.index), 100)...)
		if err != nil {
			return err
		}
		s.burst(ctx, t)
		return undo(context.WithoutCancel(ctx))
	}
	if err := t.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.burst(ctx, t)
	return s.ensure(context.WithoutCancel(ctx), t)
}

// points are where a process can be made to die.
func points() []string {
	return []string{
		"log.store.before", "log.store.after", "log.truncate.before", "log.truncate.after", "log.segment.before",
		"log.segment.after", "vote.store.before", "vote.store.after",
		"fsm.apply.before", "fsm.apply.after",
		"checkpoint.write.before", "checkpoint.write.after", "file.rename.before", "file.rename.after",
		"restore.before", "restore.after",
	}
}

// failpoint lets a server die at a point in its code, and starts it again.
func (s *scene) failpoint(ctx context.Context) error {
	name := points()[s.rng.IntN(len(points()))]
	restore := strings.HasPrefix(name, "restore.") || strings.HasPrefix(name, "file.rename.")
	var t *Server
	if restore || s.rng.IntN(2) == 0 {
		t = s.chooseFollower(ctx)
	} else {
		t = s.chooseLeader(ctx)
	}
	if t == nil {
		return nil
	}
	defer t.give()
	hit := 1
	if strings.HasPrefix(name, "log.store.") || strings.HasPrefix(name, "fsm.apply.") {
		hit += s.rng.IntN(60)
	}
	file := filepath.Join(t.Dir, "failpoint")
	arm := func() error {
		t.mu.Lock()
		t.down = true // from now on it may end
		t.mu.Unlock()
		if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%s %d", name, hit), 0o600); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}
	switch {
	case restore:
		if err := t.end(syscall.SIGKILL); err != nil {
			return err
		}
		s.burst(ctx, t)
		if err := arm(); err != nil {
			return err
		}
		if err := s.ensure(context.WithoutCancel(ctx), t); err != nil {
			return err
		}
		t.mu.Lock()
		t.down = true
		t.mu.Unlock()
	case strings.HasPrefix(name, "vote."):
		if err := arm(); err != nil {
			return err
		}
		if err := s.voteAgain(ctx, t); err != nil {
			return err
		}
	default:
		if err := arm(); err != nil {
			return err
		}
		if strings.HasPrefix(name, "checkpoint.") || strings.HasPrefix(name, "log.truncate.") {
			s.burst(ctx, nil)
		}
	}
	died := t.awaitEnd(max(s.hold, 2*time.Second), "its failpoint") == nil
	if err := os.Remove(file); !died && errors.Is(err, fs.ErrNotExist) { // it was there at the last moment
		died = t.awaitEnd(10*time.Second, "its failpoint") == nil
	}
	s.say("%s at %s, %d. time, died: %t", t.Name, name, hit, died)
	wait(ctx, s.hold)
	return s.ensure(context.WithoutCancel(ctx), t)
}

// voteAgain makes an election: the leader is away for a moment.
func (s *scene) voteAgain(ctx context.Context, but *Server) error {
	l := s.leader(ctx)
	if l == nil || l == but {
		return nil
	}
	undo, err := s.network.add(context.WithoutCancel(ctx), between([]int{l.index}, s.others(l.index), 100)...)
	if err != nil {
		return err
	}
	wait(ctx, 1500*time.Millisecond)
	return undo(context.WithoutCancel(ctx))
}
