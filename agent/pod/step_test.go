package pod

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// world does what Step says, as a runtime would, and breaks things at random.
type world struct {
	t    *rapid.T
	p    *corev1.Pod
	o    *Observed
	now  time.Time
	next int
	// gone: Step said that nothing is left.
	gone bool
}

func newWorld(t *rapid.T) *world {
	policy := rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}).Draw(t, "policy")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy}}
	always := corev1.ContainerRestartPolicyAlways
	for i := range rapid.IntRange(0, 3).Draw(t, "init containers") {
		c := corev1.Container{Name: fmt.Sprintf("init-%d", i), Image: "i"}
		if rapid.Bool().Draw(t, "sidecar") {
			c.RestartPolicy = &always
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "containers") {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("main-%d", i), Image: "i"})
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "ephemeral containers") {
		c := corev1.EphemeralContainerCommon{Name: fmt.Sprintf("debug-%d", i), Image: "i"}
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: c})
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &world{t: t, p: p, now: now, o: &Observed{Seen: now, Health: map[string]Health{}, Problems: map[string]Problem{}}}
}

func (w *world) container(id string) *runtime.Container {
	for i := range w.o.Containers {
		if w.o.Containers[i].ID == id {
			return &w.o.Containers[i]
		}
	}
	w.t.Fatalf("there is no container %s", id)
	return nil
}

func (w *world) end(c *runtime.Container, code int32) {
	if c.State == runtime.Running {
		c.State, c.ExitCode, c.FinishedAt = runtime.Exited, code, w.now
	}
}

// do does one action and checks that it is allowed.
func (w *world) do(p *corev1.Pod, a Action) {
	w.next++
	switch a.Kind {
	case RunSandbox:
		for _, s := range w.o.Sandboxes {
			if s.Ready || s.Attempt >= a.Attempt {
				w.t.Fatalf("a second sandbox: %+v, %+v", a, w.o.Sandboxes)
			}
		}
		s := runtime.Sandbox{ID: fmt.Sprintf("s%d", w.next), Attempt: a.Attempt, Ready: true, CreatedAt: w.now}
		w.o.Sandboxes = append([]runtime.Sandbox{s}, w.o.Sandboxes...)
	case StopSandbox, RemoveSandbox:
		for i := range w.o.Containers {
			if c := &w.o.Containers[i]; c.SandboxID == a.ID && c.State == runtime.Running {
				w.t.Fatalf("%s kills %s without its grace", a.Kind, c.Name)
			}
		}
		i := slices.IndexFunc(w.o.Sandboxes, func(s runtime.Sandbox) bool { return s.ID == a.ID })
		w.o.Sandboxes[i].Ready = false
		if a.Kind == RemoveSandbox {
			w.o.Sandboxes = slices.Delete(w.o.Sandboxes, i, i+1)
			w.o.Containers = slices.DeleteFunc(w.o.Containers, func(c runtime.Container) bool { return c.SandboxID == a.ID })
		}
	case StartContainer:
		w.start(p, a)
	case StopContainer:
		w.mayStop(p, w.container(a.ID))
		w.end(w.container(a.ID), 143)
		if c := w.container(a.ID); c.State == runtime.Unknown {
			c.State, c.ExitCode, c.FinishedAt = runtime.Exited, 137, w.now
		}
	case RemoveContainer:
		if c := w.container(a.ID); c.State == runtime.Running {
			w.t.Fatalf("%s is removed while it runs", c.Name)
		}
		w.o.Containers = slices.DeleteFunc(w.o.Containers, func(c runtime.Container) bool { return c.ID == a.ID })
	case Forget:
		if len(w.o.Sandboxes)+len(w.o.Containers) > 0 {
			w.t.Fatalf("forgotten with things left: %+v", w.o.Pod)
		}
		w.gone = true
	}
}

func (w *world) start(p *corev1.Pod, a Action) {
	for _, c := range w.o.Containers {
		if c.Name == a.Container && (c.State == runtime.Running || c.Attempt >= a.Attempt) {
			w.t.Fatalf("%s attempt %d is started beside %+v", a.Container, a.Attempt, c)
		}
	}
	if p == nil || p.DeletionTimestamp != nil {
		w.t.Fatalf("%s is started in a pod that ends", a.Container)
	}
	c := runtime.Container{
		ID: fmt.Sprintf("c%d", w.next), SandboxID: w.o.Sandboxes[0].ID, Name: a.Container, Attempt: a.Attempt, State: runtime.Running,
		CreatedAt: w.now, StartedAt: w.now, Annotations: map[string]string{AnnotationBackoff: a.Backoff.String(), AnnotationImage: Find(p, a.Container).Image},
	}
	w.o.Containers = append([]runtime.Container{c}, w.o.Containers...)
}

// mayStop: a healthy container is stopped only when the pod ends or changes, or its sandbox is gone.
func (w *world) mayStop(p *corev1.Pod, c *runtime.Container) {
	if p == nil || p.DeletionTimestamp != nil || c.State == runtime.Unknown || terminal(p, w.o) {
		return
	}
	if sandbox := w.o.sandbox(); sandbox == nil || !sandbox.Ready || sandbox.ID != c.SandboxID {
		return
	}
	if w.o.health(c).Failed != "" || c.Annotations[AnnotationImage] != Find(p, c.Name).Image {
		return
	}
	w.t.Fatalf("healthy container %+v is stopped", c)
}

// settle steps until there is nothing to do but to wait, and then lets the time pass that it takes.
func (w *world) settle(p *corev1.Pod) {
	for range 200 {
		actions := Step(p, w.o, w.now)
		if again := Step(p, w.o, w.now); !reflect.DeepEqual(actions, again) {
			w.t.Fatalf("two steps from one state differ: %+v, %+v", actions, again)
		}
		if p != nil {
			status := Status(p, w.o, "test", "192.0.2.1", w.now)
			w.o.Prior = &status
		}
		idle := true
		for _, a := range actions {
			if a.Kind == Wait {
				if !a.Until.After(w.now) {
					w.t.Fatalf("waits for the past: %+v", a)
				}
				continue
			}
			idle = false
			w.do(p, a)
			if w.gone {
				return
			}
			if rapid.IntRange(0, 3).Draw(w.t, "killed between two actions") == 0 {
				break // the rest of the actions is lost with the agent
			}
		}
		w.finishInits()
		if idle && !w.pendingInits() {
			return
		}
	}
	w.t.Fatalf("no end of steps: %+v", w.o.Pod)
}

// finishInits ends init containers that run, well.
func (w *world) finishInits() {
	for i := range w.o.Containers {
		c := &w.o.Containers[i]
		if spec := Find(w.p, c.Name); spec != nil && c.Name[0] == 'i' && !Sidecar(spec) {
			w.end(c, 0)
		}
	}
}

func (w *world) pendingInits() bool {
	return slices.ContainsFunc(w.o.Containers, func(c runtime.Container) bool {
		return c.Name[0] == 'i' && !Sidecar(Find(w.p, c.Name)) && c.State == runtime.Running
	})
}

// breakSomething makes one thing happen to the pod.
func (w *world) breakSomething() {
	var running []*runtime.Container
	for i := range w.o.Containers {
		if w.o.Containers[i].State == runtime.Running {
			running = append(running, &w.o.Containers[i])
		}
	}
	pick := func() *runtime.Container { return running[rapid.IntRange(0, len(running)-1).Draw(w.t, "which")] }
	what := rapid.SampledFrom([]string{"exit 0", "exit 1", "unhealthy", "reboot", "sandbox dies", "image", "lost", "created", "time"}).Draw(w.t, "what")
	if len(running) == 0 {
		what = "time"
	}
	switch what {
	case "exit 0":
		w.end(pick(), 0)
	case "exit 1":
		w.end(pick(), 1)
	case "unhealthy":
		w.o.Health[pick().ID] = Health{Started: true, Failed: "sick"}
	case "reboot":
		for _, c := range running {
			w.end(c, 255)
		}
		w.o.Sandboxes[0].Ready = false
	case "sandbox dies":
		w.o.Sandboxes[0].Ready = false
	case "image":
		c := Find(w.p, pick().Name)
		c.Image += "2"
	case "lost":
		pick().State = runtime.Unknown
	case "created":
		c := pick()
		c.State, c.StartedAt = runtime.Created, time.Time{}
	}
	w.now = w.now.Add(time.Duration(rapid.IntRange(0, 700).Draw(w.t, "seconds")) * time.Second)
}

func TestStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.settle(w.p)
		for range rapid.IntRange(0, 8).Draw(t, "events") {
			w.breakSomething()
			w.settle(w.p)
		}
		w.now = w.now.Add(maxBackoff)
		w.settle(w.p)
		if w.p.Spec.RestartPolicy == corev1.RestartPolicyAlways {
			for i := range w.p.Spec.Containers {
				if c, _ := w.o.newest(w.p.Spec.Containers[i].Name, ""); c == nil || c.State != runtime.Running {
					t.Fatalf("%s does not run: %+v", w.p.Spec.Containers[i].Name, w.o.Pod)
				}
			}
		}
		runs := map[string]int{}
		for _, c := range w.o.Containers {
			runs[c.Name]++
		}
		for name, n := range runs {
			if n > 3 || n > 2 && !terminal(w.p, w.o) {
				t.Fatalf("%d runs of %s are kept", n, name)
			}
		}
		last := w.p
		if rapid.Bool().Draw(t, "graceful") {
			last = last.DeepCopy()
			at := metav1.NewTime(w.now)
			last.DeletionTimestamp = &at
		} else {
			last = nil
		}
		w.settle(last)
		if !w.gone {
			t.Fatalf("not gone: %+v", w.o.Pod)
		}
	})
}

func TestBackoff(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		had         string
		ran         time.Duration
		after, next time.Duration
	}{
		{"0s", time.Second, 0, 10 * time.Second},
		{"10s", time.Second, 10 * time.Second, 20 * time.Second},
		{"4m0s", time.Second, 4 * time.Minute, 5 * time.Minute},
		{"5m0s", time.Second, 5 * time.Minute, 5 * time.Minute},
		{"5m0s", 11 * time.Minute, 0, 10 * time.Second},
		{"rubbish", time.Second, 0, 10 * time.Second},
	} {
		c := &runtime.Container{StartedAt: now.Add(-tc.ran), FinishedAt: now, Annotations: map[string]string{AnnotationBackoff: tc.had}}
		at, next := backoff(c, now)
		if at.Sub(now) != tc.after || next != tc.next {
			t.Errorf("%s after %v: waits %v, then %v", tc.had, tc.ran, at.Sub(now), next)
		}
	}
	// A clock that was ahead when the container ended makes nobody wait for a year.
	c := &runtime.Container{StartedAt: now, FinishedAt: now.Add(8760 * time.Hour), Annotations: map[string]string{AnnotationBackoff: "10s"}}
	c.StartedAt = c.FinishedAt.Add(-time.Second)
	if at, _ := backoff(c, now); at.Sub(now) > 10*time.Second {
		t.Errorf("waits %v", at.Sub(now))
	}
}

func TestRestarts(t *testing.T) {
	always, never := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	rule := func(op corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) []corev1.ContainerRestartRule {
		return []corev1.ContainerRestartRule{{
			Action: corev1.ContainerRestartRuleActionRestart, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: op, Values: codes},
		}}
	}
	for _, tc := range []struct {
		pod       corev1.RestartPolicy
		container *corev1.ContainerRestartPolicy
		rules     []corev1.ContainerRestartRule
		yes, no   []int32
	}{
		{corev1.RestartPolicyAlways, nil, nil, []int32{0, 1}, nil},
		{corev1.RestartPolicyOnFailure, nil, nil, []int32{1, 137}, []int32{0}},
		{corev1.RestartPolicyNever, nil, nil, nil, []int32{0, 1}},
		{corev1.RestartPolicyNever, &always, nil, []int32{0, 1}, nil},
		{corev1.RestartPolicyAlways, &never, rule(corev1.ContainerRestartRuleOnExitCodesOpIn, 42), []int32{42}, []int32{0, 1}},
		{corev1.RestartPolicyNever, &never, rule(corev1.ContainerRestartRuleOnExitCodesOpNotIn, 0, 7), []int32{1, 42}, []int32{0, 7}},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: tc.pod}}
		c := &corev1.Container{Name: "c", RestartPolicy: tc.container, RestartPolicyRules: tc.rules}
		for want, codes := range map[bool][]int32{true: tc.yes, false: tc.no} {
			for _, code := range codes {
				if got := restarts(p, c, code); got != want {
					t.Errorf("%+v: after %d restarts: %t", tc, code, got)
				}
			}
		}
	}
}

// An init container is ready when it is done, and not while it runs, be it for the first time or again.
func TestInitNotReadyYet(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{Spec: corev1.PodSpec{
		RestartPolicy:  corev1.RestartPolicyAlways,
		InitContainers: []corev1.Container{{Name: "side", RestartPolicy: &always}, {Name: "first"}, {Name: "second"}},
		Containers:     []corev1.Container{{Name: "main"}},
	}}
	now := time.Unix(1e9, 0)
	o := &Observed{Seen: now, Pod: runtime.Pod{
		Sandboxes: []runtime.Sandbox{{ID: "s", Ready: true, CreatedAt: now}},
		Containers: []runtime.Container{
			{ID: "0", Name: "side", SandboxID: "s", State: runtime.Running, StartedAt: now},
			{ID: "2", Name: "first", SandboxID: "s", State: runtime.Running, Attempt: 1, StartedAt: now},
			{ID: "1", Name: "first", SandboxID: "s", State: runtime.Exited, ExitCode: 1, StartedAt: now, FinishedAt: now},
		},
	}}
	s := Status(p, o, "fake", "", now)
	if side, first := s.InitContainerStatuses[0], s.InitContainerStatuses[1]; !side.Ready || first.Ready || first.State.Running == nil {
		t.Errorf("%+v, %+v", side, first)
	}
	want := "containers with incomplete status: [first second]"
	if c := find(s.Conditions, corev1.PodInitialized); c == nil || c.Message != want {
		t.Errorf("%+v, want %s", c, want)
	}
}
