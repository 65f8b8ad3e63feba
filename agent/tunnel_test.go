package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/agent/logs"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// streaming is a runtime whose streams are served by an HTTP server.
type streaming struct {
	*fake.Runtime
	url  string
	last runtime.StreamRequest
}

func (s *streaming) ExecURL(_ context.Context, r runtime.StreamRequest) (string, error) {
	s.last = r
	return s.url + "/exec/token", nil
}

// echo upgrades and sends back what it gets, in upper case.
func echo(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path != "/exec/token" || q.Header.Get("Upgrade") != "SPDY/3.1" || q.Method != http.MethodPost {
		http.Error(w, "unexpected "+q.Method+" "+q.URL.Path, http.StatusBadRequest)
		return
	}
	conn, in, _ := w.(http.Hijacker).Hijack()
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	line, _ := in.ReadString('\n')
	_, _ = io.WriteString(conn, strings.ToUpper(line))
}

func TestExecIsProxied(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	defer server.Close()
	r := &streaming{Runtime: fake.New(fake.Config{}), url: server.URL}
	a, err := New(Config{NodeName: "n", DataDir: t.TempDir(), Runtime: r})
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan struct{}, 8)
	a.SetReporter(func(items ...transport.Item) {
		for _, item := range items {
			if strings.Contains(string(item.Value), "Running") {
				wake(running)
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	if err := a.Apply(ctx, 1, 1, true, []transport.Item{set(t, newPod("web"))}); err != nil {
		t.Fatal(err)
	}
	<-running

	// Early bytes, sent with the request, must not be lost.
	ask := func(path, more string) string {
		here, there := tcpPair(t)
		go a.ServeTunnel(ctx, there)
		defer func() { _ = here.Close() }()
		_, _ = fmt.Fprintf(here, "POST %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n%s", path, more)
		_ = here.SetReadDeadline(time.Now().Add(10 * time.Second))
		in := bufio.NewReader(here)
		reply, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := io.Reader(reply.Body)
		if reply.StatusCode == http.StatusSwitchingProtocols {
			body = in // from here on it is no HTTP
		}
		data, _ := io.ReadAll(body)
		return fmt.Sprint(reply.StatusCode, " ", string(data))
	}
	if got := ask("/exec/default/web/main?command=sh&command=-c&stdin=true&stdout=true&tty=true", "hello\n"); got != "101 HELLO\n" {
		t.Errorf("got %q", got)
	}
	if q := r.last; strings.Join(q.Command, " ") != "sh -c" || !q.Stdin || !q.Stdout || q.Stderr || !q.TTY || q.ID == "" {
		t.Errorf("request: %+v", q)
	}
	if got := ask("/exec/default/none/main?command=sh", ""); !strings.HasPrefix(got, "404 pod \"default/none\" is not on this device") {
		t.Errorf("got %q", got)
	}
	if got := ask("/exec/default/web/none?command=sh", ""); !strings.HasPrefix(got, "404 container none is not valid for pod web") {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func tcpPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	return here, <-accepted
}

func TestLogOptions(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	v, _ := url.ParseQuery("follow=true&tailLines=5&sinceSeconds=60&timestamps=true&limitBytes=10&previous=1")
	o, previous, err := logOptions(v, now)
	want := logs.Options{Follow: true, Tail: 5, Since: now.Add(-time.Minute), Timestamps: true, LimitBytes: 10}
	if err != nil || !previous || o != want {
		t.Errorf("got %+v, %t, %v", o, previous, err)
	}
	for _, bad := range []string{"tailLines=x", "tailLines=-1", "sinceTime=yesterday"} {
		v, _ := url.ParseQuery(bad)
		if _, _, err := logOptions(v, now); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
}
