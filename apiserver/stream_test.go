package apiserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/moby/spdystream"
	"golang.org/x/net/websocket"

	"github.com/shoal-edge/shoal/apiserver"
)

// kubelet is a device that speaks SPDY. Its command says what it was started with, echoes its input in capitals, tells the sizes
// of its terminal on stderr, and ends with its input.
type kubelet struct {
	pipeListener
	pipe map[string]string // ports of its pods behind which other servers are
}

func newKubelet(t *testing.T) kubelet {
	t.Helper()
	k := kubelet{pipeListener: pipeListener{conns: make(chan net.Conn, 8)}, pipe: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/default/p/c", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "one\ntwo\n") })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("POST /exec/default/p/c", k.exec)
	mux.HandleFunc("POST /attach/default/p/c", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `container "c" is not running`, http.StatusBadRequest)
	})
	mux.HandleFunc("POST /portForward/default/p", k.forward)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(k) }()
	t.Cleanup(func() { close(k.conns); server.Close() })
	return k
}

func (k kubelet) dial(_ context.Context, node string) (net.Conn, error) {
	if node != "n1" {
		return nil, errors.New("it is not connected")
	}
	here, there := net.Pipe()
	k.conns <- there
	return here, nil
}

// upgrade speaks SPDY from then on; each new stream is one call.
func (kubelet) upgrade(w http.ResponseWriter, r *http.Request, opened func(*spdystream.Stream)) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Stream-Protocol-Version: %s\r\n\r\n",
		r.Header.Get("Upgrade"), r.Header.Get("X-Stream-Protocol-Version"))
	spdy, err := spdystream.NewConnection(conn, true)
	if err != nil {
		return
	}
	spdy.Serve(func(s *spdystream.Stream) {
		if s.SendReply(http.Header{}, false) == nil {
			opened(s)
		}
	})
}

func (k kubelet) exec(w http.ResponseWriter, r *http.Request) {
	var mu sync.Mutex
	streams := map[string]*spdystream.Stream{}
	want := 1
	for _, name := range []string{"stdin", "stdout", "stderr", "tty"} {
		if r.URL.Query().Get(name) == "true" {
			want++
		}
	}
	k.upgrade(w, r, func(s *spdystream.Stream) {
		mu.Lock()
		streams[s.Headers().Get("streamType")] = s
		all := len(streams) == want
		mu.Unlock()
		if all {
			go command(r.URL.Query()["command"], streams)
		}
	})
}

func command(args []string, streams map[string]*spdystream.Stream) {
	fmt.Fprint(streams["stdout"], args)
	if resize := streams["resize"]; resize != nil {
		size := make([]byte, 100)
		n, _ := resize.Read(size)
		fmt.Fprintf(streams["stdout"], " %s", size[:n])
	}
	input := []byte{}
	if stdin := streams["stdin"]; stdin != nil {
		input, _ = io.ReadAll(stdin)
	}
	fmt.Fprintf(streams["stdout"], " %s", bytes.ToUpper(input))
	if streams["stderr"] != nil {
		fmt.Fprint(streams["stderr"], "oops")
	}
	fmt.Fprint(streams["error"], `{"status":"Failure","reason":"NonZeroExitCode","message":"it failed","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`)
	for _, s := range streams {
		s.Close()
	}
}

// forward echoes what comes on a port's data stream behind the port. On 8080 a web server listens, and on 9999 nobody.
func (k kubelet) forward(w http.ResponseWriter, r *http.Request) {
	k.upgrade(w, r, func(s *spdystream.Stream) {
		go func() {
			defer s.Close()
			kind, port := s.Headers().Get("streamType"), s.Headers().Get("port")
			switch {
			case port == "9999" && kind == "error":
				fmt.Fprint(s, "connection refused")
			case port == "9999" || kind == "error":
			case k.pipe[port] != "":
				behind, err := net.Dial("tcp", k.pipe[port])
				if err != nil {
					return
				}
				defer behind.Close()
				go func() { _, _ = io.Copy(behind, s) }()
				_, _ = io.Copy(s, behind)
			case port == "8080":
				q, err := http.ReadRequest(bufio.NewReader(s))
				if err != nil {
					return
				}
				body, _ := io.ReadAll(q.Body)
				text := fmt.Sprintf("%s %s %q %q", q.Method, q.RequestURI, body, q.Header["Authorization"])
				fmt.Fprintf(s, "HTTP/1.1 203 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			default:
				buffer := make([]byte, 100)
				n, _ := s.Read(buffer)
				fmt.Fprintf(s, "%s: %s", port, buffer[:n])
			}
		}()
	})
}

// socket opens a WebSocket to the bed.
func (b *bed) socket(path string, protocols ...string) (*websocket.Conn, error) {
	config, err := websocket.NewConfig("ws"+strings.TrimPrefix(b.url, "http")+path, b.url)
	if err != nil {
		return nil, err
	}
	config.Protocol = protocols
	config.Header.Set(identityHeader, "admin|system:masters")
	ws, err := config.DialContext(b.t.Context())
	if err == nil {
		ws.PayloadType = websocket.BinaryFrame
		b.t.Cleanup(func() { ws.Close() })
	}
	return ws, err
}

// heard collects what comes on each channel until the end.
func heard(t *testing.T, ws *websocket.Conn) map[byte]string {
	t.Helper()
	all := map[byte]string{}
	for {
		var message []byte
		if err := websocket.Message.Receive(ws, &message); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return all
		}
		all[message[0]] += string(message[1:])
	}
}

// onServers is a leader and a follower with a pod p on the device and a pod q on one that is not connected.
func onServers(t *testing.T) []*bed {
	k := newKubelet(t)
	leader, follower := newPair(t, func(_ *bed, cfg *apiserver.Config) { cfg.DialDevice = k.dial })
	leader.create(podOn("p", "n1"))
	leader.create(podOn("q", "n2"))
	return []*bed{leader, follower}
}

func TestExecOverWebSocket(t *testing.T) {
	for _, b := range onServers(t) {
		exec := pods + "/p/exec?command=tr&command=a-z&stdin=true&stdout=true&stderr=true"
		ws, err := b.socket(exec, "v5.channel.k8s.io", "v4.channel.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		if p := ws.Config().Protocol; len(p) != 1 || p[0] != "v5.channel.k8s.io" {
			t.Errorf("protocol %q", p)
		}
		for _, message := range []string{"\x00hello ", "\x00world", "\xff\x00"} {
			if _, err := ws.Write([]byte(message)); err != nil {
				t.Fatal(err)
			}
		}
		got := heard(t, ws)
		if got[1] != "[tr a-z] HELLO WORLD" || got[2] != "oops" || !strings.Contains(got[3], `"reason":"NonZeroExitCode"`) {
			t.Errorf("%q", got)
		}

		// Before the fourth protocol the error channel carried a text.
		ws, err = b.socket(pods+"/p/exec?command=true&stdout=true", "channel.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		if got := heard(t, ws); got[1] != "[true] " || got[3] != "it failed" {
			t.Errorf("%q", got)
		}
		ws, err = b.socket(pods+"/p/exec?command=true&stdout=true", "v4.base64.channel.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		if got := heard(t, ws); !strings.HasPrefix(got['1'], "W3RydWVd") {
			t.Errorf("%q", got)
		}
	}
}

func TestTerminalOverWebSocket(t *testing.T) {
	b := onServers(t)[0]
	ws, err := b.socket(pods+"/p/exec?command=sh&stdin=true&stdout=true&tty=true", "v5.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"\x04{\"Width\":80,\"Height\":24}", "\x00x", "\xff\x00"} {
		if _, err := ws.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	if got := heard(t, ws); got[1] != `[sh] {"Width":80,"Height":24} X` {
		t.Errorf("%q", got)
	}
}

func TestLogOverWebSocket(t *testing.T) {
	for _, b := range onServers(t) {
		ws, err := b.socket(pods+"/p/log", "binary.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(ws)
		if err != nil || string(text) != "one\ntwo\n" {
			t.Errorf("%q %v", text, err)
		}
	}
}

func TestPortForwardOverWebSocket(t *testing.T) {
	for _, b := range onServers(t) {
		ws, err := b.socket(pods+"/p/portforward", "SPDY/3.1+portforward.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		spdy, err := spdystream.NewConnection(ws, false)
		if err != nil {
			t.Fatal(err)
		}
		go spdy.Serve(spdystream.NoOpStreamHandler)
		stream, err := spdy.CreateStream(http.Header{"streamType": {"data"}, "port": {"80"}}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(stream, "ping")
		answer, err := io.ReadAll(stream)
		if err != nil || string(answer) != "80: ping" {
			t.Errorf("%q %v", answer, err)
		}
		ws.Close()

		// Without SPDY inside, each port has two channels, which begin with its number.
		ws, err = b.socket(pods+"/p/portforward?ports=80&ports=81", "v4.channel.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ws.Write([]byte("\x02ping")); err != nil {
			t.Fatal(err)
		}
		want, got := string(binary.LittleEndian.AppendUint16(nil, 81))+"81: ping", ""
		for got != want {
			var message []byte
			if err := websocket.Message.Receive(ws, &message); err != nil {
				t.Fatal(err, got)
			}
			if message[0] == 2 {
				got += string(message[1:])
			}
		}
		ws.Close()
	}
}

// TestWebSocketRefusals: what is refused is refused before the upgrade, so that clients see why.
func TestWebSocketRefusals(t *testing.T) {
	b := onServers(t)[0]
	upgrade := func(protocol string) map[string]string {
		return map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": protocol,
			"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		}
	}
	for _, c := range []struct {
		path, protocol string
		code           int
		want           string
	}{
		{pods + "/p/exec?command=x&stdout=true", "v9.channel.k8s.io", 400, "requested protocol(s) are not supported: [v9.channel.k8s.io]"},
		{pods + "/p/exec?command=x", "v5.channel.k8s.io", 400, "you must specify at least 1 of stdin, stdout, stderr"},
		{pods + "/p/attach?stdout=true", "v5.channel.k8s.io", 400, `container "c" is not running`},
		{pods + "/q/exec?command=x&stdout=true", "v5.channel.k8s.io", 500, `error dialing device \"n2\": it is not connected`},
		{pods + "/none/exec?command=x&stdout=true", "v5.channel.k8s.io", 404, `pods \"none\" not found`},
		{pods + "/p/portforward?ports=0", "v4.channel.k8s.io", 400, `unable to parse \"0\" as a port`},
	} {
		answer, data := b.do(call{path: c.path, header: upgrade(c.protocol)})
		if answer.StatusCode != c.code {
			t.Errorf("%s: %d %s", c.path, answer.StatusCode, data)
		}
		mustContain(t, data, c.want)
	}
}
