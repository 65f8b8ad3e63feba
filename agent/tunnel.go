package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/logs"
	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

const headerTimeout = 30 * time.Second

// ServeTunnel implements transport.Device: the API of a kubelet, over one connection.
func (a *Agent) ServeTunnel(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener := newOneConn(conn)
	server := &http.Server{
		Handler: a.handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: headerTimeout,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = server.Serve(listener) // it ends with the connection, and the error says just that
}

// oneConn is a listener with one connection, closed when that is.
type oneConn struct {
	net.Conn
	accepted bool
	mu       sync.Mutex
	done     chan struct{}
	once     sync.Once
}

func newOneConn(conn net.Conn) *oneConn { return &oneConn{Conn: conn, done: make(chan struct{})} }

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	first := !l.accepted
	l.accepted = true
	l.mu.Unlock()
	if first {
		return &closeTold{Conn: l.Conn, l: l}, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Addr() net.Addr { return l.LocalAddr() }

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

type closeTold struct {
	net.Conn
	l *oneConn
}

func (c *closeTold) Close() error {
	defer func() { _ = c.l.Close() }()
	return c.Conn.Close()
}

// handler serves the paths that kubelet serves.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLogs)
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", a.serveExec)
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", a.serveAttach)
	mux.HandleFunc("/portForward/{namespace}/{pod}", a.servePortForward)
	mux.HandleFunc("GET /stats/summary", a.serveStats)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return mux
}

// lookup finds the pod of a request, as it is now.
func (a *Agent) lookup(q *http.Request) (*corev1.Pod, runtime.Pod, error) {
	name := q.PathValue("namespace") + "/" + q.PathValue("pod")
	uid := q.URL.Query().Get("uid")
	a.mu.Lock()
	var found *worker
	for _, w := range a.pods {
		if _, last := w.wanted(); last != nil && w.name == name && (uid == "" || w.uid == uid) {
			if pod, _ := w.wanted(); found == nil || pod != nil {
				found = w
			}
		}
	}
	a.mu.Unlock()
	if found == nil {
		return nil, runtime.Pod{}, fmt.Errorf("pod %q is not on this device: %w", name, runtime.ErrNotFound)
	}
	_, last := found.wanted()
	observed, err := a.c.Runtime.Pod(q.Context(), found.uid)
	return last, observed, err
}

// container finds the newest run of a request's container, or the one before.
func (a *Agent) container(q *http.Request, previous bool) (*corev1.Container, *runtime.Container, error) {
	p, observed, err := a.lookup(q)
	if err != nil {
		return nil, nil, err
	}
	name := q.PathValue("container")
	spec := pod.Find(p, name)
	if spec == nil {
		return nil, nil, fmt.Errorf("container %s is not valid for pod %s: %w", name, p.Name, runtime.ErrNotFound)
	}
	skip := 0
	if previous {
		skip = 1
	}
	for i := range observed.Containers {
		if observed.Containers[i].Name != name {
			continue
		}
		if skip == 0 {
			return spec, &observed.Containers[i], nil
		}
		skip--
	}
	if previous {
		return nil, nil, &statusError{http.StatusBadRequest, fmt.Sprintf("previous terminated container %q in pod %q not found", name, p.Name)}
	}
	return nil, nil, &statusError{http.StatusBadRequest, fmt.Sprintf("container %q in pod %q is waiting to start", name, p.Name)}
}

type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return e.message }

func fail(w http.ResponseWriter, err error) {
	var s *statusError
	code := http.StatusInternalServerError
	switch {
	case errors.As(err, &s):
		code = s.code
	case errors.Is(err, runtime.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, runtime.ErrUnavailable):
		code = http.StatusServiceUnavailable
	case errors.Is(err, runtime.ErrUnsupported):
		code = http.StatusNotImplemented
	}
	http.Error(w, err.Error(), code)
}

func (a *Agent) serveLogs(w http.ResponseWriter, q *http.Request) {
	options, previous, err := logOptions(q.URL.Query(), a.c.Now())
	if err != nil {
		fail(w, err)
		return
	}
	_, c, err := a.container(q, previous)
	if err != nil {
		fail(w, err)
		return
	}
	if c.LogPath == "" {
		fail(w, &statusError{http.StatusBadRequest, "the container has no log"})
		return
	}
	if options.Follow {
		ended := make(chan struct{})
		options.Ended = ended
		ctx, cancel := context.WithCancel(q.Context())
		defer cancel()
		go a.awaitEnd(ctx, *c, ended)
		q = q.WithContext(ctx)
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := &flushing{w: w, flusher: w.(http.Flusher)} //nolint:forcetypeassert // every http.Server's writer is one
	if err := logs.Read(q.Context(), c.LogPath, out, options); err != nil && q.Context().Err() == nil {
		_, _ = fmt.Fprintln(w, err)
	}
}

type flushing struct {
	w       io.Writer
	flusher http.Flusher
}

func (f *flushing) Write(p []byte) (int, error) { return f.w.Write(p) }
func (f *flushing) Flush()                      { f.flusher.Flush() }

// awaitEnd closes ended when the container has ended, as the status that is reported of its pod says.
func (a *Agent) awaitEnd(ctx context.Context, c runtime.Container, ended chan<- struct{}) {
	for {
		a.mu.Lock()
		w := a.pods[c.PodUID]
		a.mu.Unlock()
		if w == nil {
			close(ended)
			return
		}
		next := w.look(c.ID)
		if next == nil {
			close(ended)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

func logOptions(v url.Values, now time.Time) (o logs.Options, previous bool, err error) {
	number := func(name string, otherwise int64) int64 {
		s := v.Get(name)
		if s == "" || err != nil {
			return otherwise
		}
		n, parseErr := strconv.ParseInt(s, 10, 64)
		if parseErr != nil || n < 0 {
			err = &statusError{http.StatusBadRequest, fmt.Sprintf("%s must be a number that is not negative, not %q", name, s)}
		}
		return n
	}
	o = logs.Options{Follow: flag(v, "follow"), Timestamps: flag(v, "timestamps"), Tail: number("tailLines", -1), LimitBytes: number("limitBytes", 0)}
	if seconds := number("sinceSeconds", 0); seconds > 0 {
		o.Since = now.Add(-time.Duration(seconds) * time.Second)
	}
	if since := v.Get("sinceTime"); since != "" && err == nil {
		if o.Since, err = time.Parse(time.RFC3339, since); err != nil {
			err = &statusError{http.StatusBadRequest, "sinceTime: " + err.Error()}
		}
	}
	switch v.Get("stream") {
	case "Stdout":
		o.Stream = "stdout"
	case "Stderr":
		o.Stream = "stderr"
	}
	return o, flag(v, "previous"), err
}
