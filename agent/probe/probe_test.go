package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-edge/shoal/agent/pod"
)

// bench watches one container whose checks answer as told.
type bench struct {
	*Container
	answer atomic.Pointer[error]
	health atomic.Pointer[pod.Health]
	checks atomic.Int32
}

func newBench(c Container, err error) *bench {
	b := &bench{Container: &c}
	b.say(err)
	c.StartedAt = time.Now()
	c.Check = func(context.Context, *corev1.Probe) error {
		b.checks.Add(1)
		return *b.answer.Load()
	}
	c.Failed = func(string, error) {}
	c.Report = func(h pod.Health) { b.health.Store(&h) }
	h := c.Initial()
	b.health.Store(&h)
	return b
}

func (b *bench) say(err error) { b.answer.Store(&err) }

var errSick = errors.New("sick")

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Container{Readiness: &corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 2, FailureThreshold: 3, SuccessThreshold: 2}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go b.Watch(ctx)
		at := func(d time.Duration, ready bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if h := b.health.Load(); h.Ready != ready || !h.Started || h.Failed != "" {
				t.Errorf("got %+v", h)
			}
		}
		at(6*time.Second, false) // one success of two
		at(2*time.Second, true)
		b.say(errSick)
		at(4*time.Second, true) // two failures of three
		at(2*time.Second, false)
		b.say(ErrUnknown)
		at(20*time.Second, false)
		b.say(nil)
		at(4*time.Second, true)
		cancel()
	})
}

func TestLivenessWaitsForStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(Container{
			Startup:  &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30},
			Liveness: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1},
		}, errSick)
		done := make(chan struct{})
		go func() { b.Watch(t.Context()); close(done) }()
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		if h := b.health.Load(); h.Started || h.Failed != "" {
			t.Errorf("before the startup probe passed: %+v", h)
		}
		b.say(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if h := b.health.Load(); !h.Started || !h.Ready || h.Failed != "" {
			t.Errorf("after: %+v", h)
		}
		b.say(errSick)
		<-done
		if h := b.health.Load(); h.Failed == "" {
			t.Errorf("liveness failed, and nothing came of it: %+v", h)
		}
	})
}

func TestStartupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := int64(7)
		b := newBench(Container{Startup: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, TerminationGracePeriodSeconds: &own}}, errSick)
		b.Watch(t.Context())
		if h := b.health.Load(); h.Failed == "" || b.checks.Load() != 3 || h.Grace != 7*time.Second {
			t.Errorf("after %d checks: %+v", b.checks.Load(), h)
		}
	})
}

func TestAdopted(t *testing.T) {
	c := Container{Startup: &corev1.Probe{}, Readiness: &corev1.Probe{}, Before: &pod.Health{Started: true, Ready: true}}
	if h := c.Initial(); !h.Started || !h.Ready {
		t.Errorf("a restart of the agent makes a healthy container unready: %+v", h)
	}
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Path == "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case q.URL.Path == "/away":
			http.Redirect(w, q, "http://192.0.2.1/", http.StatusFound)
		case q.Host != "example.com":
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	host, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	number, _ := strconv.Atoi(port)
	target := Target{IP: host, Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(number)}}}
	get := func(path, port string) error {
		return target.Check(t.Context(), corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.Parse(port), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "example.com"}},
		}})
	}
	if err := get("/good?a=b", "web"); err != nil {
		t.Error(err)
	}
	if err := get("/away", port); err != nil {
		t.Errorf("a redirect to another host: %v", err)
	}
	if err := get("/bad", port); err == nil {
		t.Error("500 is no failure")
	}
	if err := get("/", "none"); err == nil {
		t.Error("a port without a number is no failure")
	}
	if err := target.Check(t.Context(), corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(number)}}); err != nil {
		t.Error(err)
	}
}
