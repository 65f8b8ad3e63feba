package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

func (a *Agent) serveExec(w http.ResponseWriter, q *http.Request) {
	_, c, err := a.container(q, false)
	if err == nil && c.State != runtime.Running {
		err = &statusError{http.StatusBadRequest, fmt.Sprintf("container %q is not running", c.Name)}
	}
	if err != nil {
		fail(w, err)
		return
	}
	v := q.URL.Query()
	r := runtime.StreamRequest{
		ID: c.ID, Command: v["command"], Stdin: flag(v, "stdin", "input"), Stdout: flag(v, "stdout", "output"),
		Stderr: flag(v, "stderr", "error"), TTY: flag(v, "tty", "tty"),
	}
	target, err := a.c.Runtime.ExecURL(q.Context(), r)
	a.stream(w, q, target, err)
}

func (a *Agent) serveAttach(w http.ResponseWriter, q *http.Request) {
	spec, c, err := a.container(q, false)
	if err == nil && c.State != runtime.Running {
		err = &statusError{http.StatusBadRequest, fmt.Sprintf("container %q is not running", c.Name)}
	}
	if err != nil {
		fail(w, err)
		return
	}
	v := q.URL.Query()
	r := runtime.StreamRequest{
		ID: c.ID, Stdin: flag(v, "stdin", "input") && spec.Stdin, Stdout: flag(v, "stdout", "output"),
		Stderr: flag(v, "stderr", "error"), TTY: spec.TTY,
	}
	target, err := a.c.Runtime.AttachURL(q.Context(), r)
	a.stream(w, q, target, err)
}

func (a *Agent) servePortForward(w http.ResponseWriter, q *http.Request) {
	p, observed, err := a.lookup(q)
	if err == nil && (len(observed.Sandboxes) == 0 || !observed.Sandboxes[0].Ready || p.Status.Phase == corev1.PodFailed) {
		err = &statusError{http.StatusBadRequest, fmt.Sprintf("pod %q is not running", p.Name)}
	}
	if err != nil {
		fail(w, err)
		return
	}
	target, err := a.c.Runtime.PortForwardURL(q.Context(), runtime.StreamRequest{ID: observed.Sandboxes[0].ID})
	a.stream(w, q, target, err)
}

// flag reads a parameter by its name in the API or by kubelet's own.
func flag(v url.Values, names ...string) bool {
	for _, name := range names {
		if b, err := strconv.ParseBool(v.Get(name)); err == nil && b {
			return true
		}
	}
	return false
}

// stream hands the request to the runtime's streaming server, and then every byte in both directions.
func (a *Agent) stream(w http.ResponseWriter, q *http.Request, target string, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	u, err := url.Parse(target)
	if err != nil {
		fail(w, err)
		return
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(q.Context(), "tcp", u.Host)
	if err != nil {
		fail(w, fmt.Errorf("streaming server of the container runtime: %w", err))
		return
	}
	defer func() { _ = server.Close() }()
	out := &http.Request{Method: q.Method, URL: u, Host: u.Host, Header: q.Header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	client, buffered, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // HTTP/1.1 only
	if err != nil {
		fail(w, err)
		return
	}
	defer func() { _ = client.Close() }()
	if err := out.Write(server); err != nil {
		return
	}
	stop := context.AfterFunc(q.Context(), func() { _, _ = client.Close(), server.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(server, io.MultiReader(io.LimitReader(buffered, int64(buffered.Reader.Buffered())), client))
		closeWrite(server)
		done <- struct{}{}
	}()
	go func() {
		_, _ = io.Copy(client, server)
		closeWrite(client)
		done <- struct{}{}
	}()
	// The server's end is the end; the client's may be a stdin that is over while output still comes.
	<-done
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}
