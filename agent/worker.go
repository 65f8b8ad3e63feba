package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/static"
	"github.com/shoal-edge/shoal/transport"
)

// exitLag is how long the runtime's books may lag behind its event of an exit.
const exitLag = 3 * time.Second

// worker owns one pod: its goroutine observes, steps, reports and has actions done, and alone touches the fields below.
type worker struct {
	a   *Agent
	uid string
	wk  chan struct{}

	// static: it comes from the folder, or is left of one that did.
	static bool

	mu      sync.Mutex
	pod     *corev1.Pod // nil: not wanted any more
	last    *corev1.Pod // the pod as it was last wanted; nil for one that nobody knows
	name    string      // namespace/name
	exits   map[string]time.Time
	health  map[string]pod.Health
	seenIDs map[string]runtime.State
	waiting atomic.Bool // it has problems
	repeat  atomic.Bool // its status is to be reported though it has not changed
	bound   atomic.Bool // it may not run for long without the control plane
	fenced  atomic.Bool // and has to end now for that reason
	// logPaths are of the running containers. looked is closed at the next look, when somebody waits for it.
	logPaths map[string]string
	// runs are the ids of the running containers, by name.
	runs    map[string]string
	looked  chan struct{}
	retry   bool        // something it waited for may have changed: try again now
	refresh bool        // what its volumes are made of has changed
	halted  time.Time   // until when its containers are to end, for the device goes down; zero: it does not
	ending  *pod.Ending // why this device ends it for good; nil: it does not
	over    bool        // it has ended for good
	cleared bool        // and its volumes are gone

	tasks       map[string]*task
	results     chan *task
	failed      map[string]int       // how often a task failed in a row, by its key
	paused      map[string]time.Time // tasks that wait after a failure
	problems    map[string]pod.Problem
	termination map[string]string
	sizes       map[string]string // of containers that this worker has resized
	probes      map[string]context.CancelFunc
	probing     sync.WaitGroup
	prior       *corev1.PodStatus
	reported    []byte
	seen        time.Time
	failures    int
	stopping    time.Time
	began       time.Time // of the worker, for the metric of how long a start takes
	wasRunning  bool
}

// newWorker makes a worker for a wanted pod, or for one of which only the runtime or the disk knows; name is then its namespace/name,
// as far as that is known.
func newWorker(a *Agent, uid string, p *corev1.Pod, name string) *worker {
	w := &worker{
		a: a, uid: uid, wk: make(chan struct{}, 1), pod: p, last: p, exits: map[string]time.Time{}, health: map[string]pod.Health{},
		tasks: map[string]*task{}, failed: map[string]int{}, paused: map[string]time.Time{}, results: make(chan *task, 64), problems: map[string]pod.Problem{}, termination: map[string]string{}, sizes: map[string]string{},
		probes: map[string]context.CancelFunc{}, seen: a.c.Now(), began: a.c.Now(),
	}
	if p != nil {
		w.name, w.static = p.Namespace+"/"+p.Name, pod.Static(p)
		if saved := a.db.get(bucketStatus, uid); saved != nil {
			known := &corev1.Pod{}
			if err := known.Unmarshal(saved); err == nil {
				w.prior, w.reported = &known.Status, saved
				a.statuses[w.key()+"/"+uid] = transport.Item{Key: w.key() + "/" + uid, Value: saved}
				w.wasRunning = true
			}
		}
	} else {
		w.name = name
	}
	return w
}

// podName is the namespace/name of a pod that only the runtime knows; empty when it does not say.
func podName(found runtime.Pod) string {
	if len(found.Sandboxes) == 0 {
		return ""
	}
	return found.Sandboxes[0].Namespace + "/" + found.Sandboxes[0].Name
}

// key is the pod's key in the desired state.
func (w *worker) key() string { return "pods/" + w.name }

func (w *worker) nudge() { wake(w.wk) }

// want changes what is wanted; nil is the pod's end.
func (w *worker) want(p *corev1.Pod) {
	w.mu.Lock()
	w.pod = p
	if p != nil {
		w.last = p
	}
	w.retry, w.refresh = true, true
	w.mu.Unlock()
	w.nudge()
}

// again has the worker try again what had a problem.
func (w *worker) again() {
	w.mu.Lock()
	w.retry = true
	w.mu.Unlock()
	w.nudge()
}

func (w *worker) wanted() (p, last *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.last
}

// sourceChanged wakes the pod when it uses that object; what has no namespace is for pods of all.
func (w *worker) sourceChanged(kind, namespace, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod == nil || namespace != "" && w.pod.Namespace != namespace || !uses(w.pod, kind, name) {
		return
	}
	w.retry, w.refresh = true, true
	w.nudge()
}

// renewed has the worker write its volumes anew, and go on if it waited for that.
func (w *worker) renewed() {
	w.mu.Lock()
	w.retry, w.refresh = true, true
	w.mu.Unlock()
	w.nudge()
}

// end ends the pod for good.
func (w *worker) end(e *pod.Ending) {
	w.mu.Lock()
	if w.ending == nil {
		w.ending = e
	}
	w.mu.Unlock()
	w.nudge()
}

// reportAgain has the worker report its status once more.
func (w *worker) reportAgain() {
	w.repeat.Store(true)
	w.nudge()
}

// alive reports whether the pod is wanted, and neither over nor about to end.
func (w *worker) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod != nil && w.pod.DeletionTimestamp == nil && w.ending == nil && !w.over
}

// ids are the running containers by their names.
func (w *worker) ids() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.runs)
}

func (w *worker) exited(id string) {
	w.mu.Lock()
	w.exits[id] = w.a.c.Now().Add(exitLag)
	w.mu.Unlock()
	w.nudge()
}

// changed reports whether the pod, as listed, differs from what the worker last saw.
func (w *worker) changed(p runtime.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !maps.Equal(w.seenIDs, states(p))
}

func states(p runtime.Pod) map[string]runtime.State {
	s := make(map[string]runtime.State, len(p.Sandboxes)+len(p.Containers))
	for _, b := range p.Sandboxes {
		s[b.ID] = runtime.Exited
		if b.Ready {
			s[b.ID] = runtime.Running
		}
	}
	for _, c := range p.Containers {
		s[c.ID] = c.State
	}
	return s
}

// run is the worker's loop. It ends with ctx, leaving the pod running, or when nothing of the pod is left.
func (w *worker) run(ctx context.Context) {
	defer w.probing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			for len(w.tasks) > 0 {
				t := <-w.results
				delete(w.tasks, t.key)
			}
			return
		case <-w.wk:
		case <-timer.C:
		case t := <-w.results:
			w.settle(t)
		}
		next, done := w.pass(ctx)
		if done {
			return
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(0, next.Sub(w.a.c.Now())))
		}
	}
}

// pass observes once, reports, and launches what is to be done. next is when to look again without being told.
func (w *worker) pass(ctx context.Context) (next time.Time, done bool) {
	if !w.a.ready.Load() {
		return time.Time{}, false // resync wakes us
	}
	found, err := w.a.c.Runtime.Pod(ctx, w.uid)
	now := w.a.c.Now()
	if err != nil {
		w.failures++
		return now.Add(min(100*time.Millisecond<<min(w.failures, 10), time.Minute)), false
	}
	w.failures = 0
	next = w.catchUp(found, now)
	p, last := w.wanted()
	if p != nil && p.DeletionTimestamp != nil || p == nil {
		w.abandonStarts()
		if w.stopping.IsZero() {
			w.stopping = now
		}
	}
	w.mu.Lock()
	halted := !w.halted.IsZero()
	w.mu.Unlock()
	if p != nil {
		was := w.fenced.Load()
		next = earlier(next, w.fence(p, now))
		if fenced := w.fenced.Load(); fenced != was {
			w.tellFenced(p, fenced)
		}
	}
	if halted || w.fenced.Load() {
		w.abandonStarts()
	}
	w.syncProbes(ctx, p, found)
	o := w.observed(last, found)
	troubles, any := w.a.devices.troubles(w.uid)
	w.ailing(last, o, troubles)
	actions := pod.Step(p, o, now)
	if p != nil {
		w.report(p, o, now, func(s *corev1.PodStatus) { w.tellDevices(p, s, troubles, any, now) })
	}
	for _, action := range actions {
		switch action.Kind {
		case pod.Wait:
			next = earlier(next, action.Until)
		case pod.Forget:
			if len(w.tasks) == 0 {
				return w.forget(ctx, now)
			}
		default:
			w.launch(ctx, action, o, p, last)
		}
	}
	if p != nil && p.DeletionTimestamp == nil && w.over && !w.cleared && len(actions) == 0 && len(w.tasks) == 0 {
		w.clear()
	}
	for key, until := range w.paused {
		if now.Before(until) {
			next = earlier(next, until)
		} else {
			delete(w.paused, key)
		}
	}
	return earlier(next, w.flipImageProblems(now)), false
}

// catchUp takes over what was seen, and returns when to look again for exits that the runtime told but does not show yet.
func (w *worker) catchUp(found runtime.Pod, now time.Time) (next time.Time) {
	w.mu.Lock()
	old := w.seenIDs
	w.seenIDs = states(found)
	for id, until := range w.exits {
		if state, ok := w.seenIDs[id]; !ok || state != runtime.Running || now.After(until) {
			delete(w.exits, id)
		} else {
			next = now.Add(10 * time.Millisecond)
		}
	}
	retry, refresh := w.retry, w.refresh
	w.retry, w.refresh = false, false
	for id := range w.sizes {
		if w.seenIDs[id] != runtime.Running {
			delete(w.sizes, id)
		}
	}
	for id := range w.health {
		if w.seenIDs[id] != runtime.Running {
			delete(w.health, id)
		}
	}
	w.logPaths, w.runs = map[string]string{}, map[string]string{}
	for _, c := range found.Containers {
		if c.State == runtime.Running {
			w.runs[c.Name] = c.ID
		}
		if c.State == runtime.Running && c.LogPath != "" {
			w.logPaths[c.ID] = c.LogPath
		}
	}
	if w.looked != nil {
		close(w.looked)
		w.looked = nil
	}
	fresh := w.seenIDs
	w.mu.Unlock()
	if retry {
		for name, problem := range w.problems {
			problem.Retry = now
			w.problems[name] = problem
		}
	}
	if refresh && !w.over {
		w.updateVolumes()
	}
	if !maps.Equal(old, fresh) {
		w.a.setOwner(w, old, fresh)
	}
	return next
}

// setOwner says whose the ids are, so that events find their worker.
func (a *Agent) setOwner(w *worker, old, fresh map[string]runtime.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range old {
		if _, ok := fresh[id]; !ok {
			delete(a.owners, id)
		}
	}
	for id := range fresh {
		a.owners[id] = w
	}
}

func (w *worker) observed(last *corev1.Pod, found runtime.Pod) *pod.Observed {
	if last != nil {
		w.readTerminations(last, found)
	}
	o := &pod.Observed{
		Pod: found, Problems: maps.Clone(w.problems), Prior: w.prior, Termination: maps.Clone(w.termination), Seen: w.seen, Sizes: maps.Clone(w.sizes),
		Health: map[string]pod.Health{},
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Ending, o.Halted, o.Fenced = w.ending, !w.halted.IsZero(), w.fenced.Load()
	maps.Copy(o.Health, w.health)
	for _, t := range w.tasks {
		if t.action.Kind == pod.StartContainer && t.started != "" {
			o.Health[t.started] = pod.Health{} // its postStart hook runs
		}
	}
	return o
}

// report tells the status when it changed; more adds what does not come from the containers.
func (w *worker) report(p *corev1.Pod, o *pod.Observed, now time.Time, more func(*corev1.PodStatus)) {
	status := pod.Status(p, o, w.a.runtimeName(), w.a.c.Address, now)
	more(&status)
	out := &corev1.Pod{Status: status}
	out.Name, out.Namespace, out.UID = p.Name, p.Namespace, p.UID
	if w.static { // the control plane knows of it from here only
		out.Labels, out.Annotations, out.Spec = p.Labels, maps.Clone(p.Annotations), p.Spec
		out.Annotations[static.AnnotationMirror] = w.uid
	}
	value, err := out.Marshal()
	if err != nil {
		w.a.c.Logger.Error("encode pod status", "pod", w.name, "err", err)
		return
	}
	w.mu.Lock()
	w.over = status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed
	w.mu.Unlock()
	if slices.Equal(value, w.reported) && !w.repeat.Swap(false) {
		return
	}
	if !w.wasRunning && status.Phase == corev1.PodRunning {
		w.wasRunning = true
		w.a.metrics.started.Observe(now.Sub(w.began).Seconds())
	}
	w.prior, w.reported = &status, value
	w.a.publish(w.key(), w.uid, value)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
