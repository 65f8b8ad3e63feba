package e2e

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/test/site"
)

// mostGrowth is how much memory hostile clients may cost a server, with what its collector has not got to yet: 36 MiB is the most that was measured.
const mostGrowth = 64 << 20

// attack is what hostile clients do for a while: each of so many at the same time.
type attack struct {
	name    string
	clients int
	lasts   time.Duration // zero: a few seconds
	do      func(ctx context.Context, address string, admin, nobody *tls.Config)
}

// attacks use an administrator's certificate where one helps, so that nothing stops them at the door.
var attacks = []attack{
	{"idle connections without a certificate", 10_000, 15 * time.Second, func(ctx context.Context, address string, _, nobody *tls.Config) {
		hold(ctx, address, nobody, "")
	}},
	{"idle connections with one", 500, 0, func(ctx context.Context, address string, admin, _ *tls.Config) {
		hold(ctx, address, admin, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	}},
	{"headers that do not end", 200, 0, func(ctx context.Context, address string, admin, _ *tls.Config) {
		hold(ctx, address, admin, "GET /api HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 4<<10))
	}},
	{"bodies that do not come", 200, 0, func(ctx context.Context, address string, admin, _ *tls.Config) {
		hold(ctx, address, admin, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n{")
	}},
	{"watches that nobody reads", 200, 0, func(ctx context.Context, address string, admin, _ *tls.Config) {
		hold(ctx, address, admin, "GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	}},
	{"bodies of 100 MB", 4, 0, post(func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", 100<<20)
		_, _ = io.CopyN(w, endless('x'), 100<<20)
	})},
	{"headers of 10 MB", 4, 0, post(func(w io.Writer) {
		_, _ = io.WriteString(w, "GET /api HTTP/1.1\r\nHost: x\r\nX-A: ")
		_, _ = io.CopyN(w, endless('x'), 10<<20)
	})},
	{"deep JSON", 8, 0, post(body("application/json", strings.Repeat(`{"a":`, 500_000)))},
	{"small deep JSON", 64, 0, post(body("application/json", strings.Repeat(`{"a":`, 9_900)+strings.Repeat("}", 9_900)))},
	{"deep lists", 8, 0, post(body("application/json", strings.Repeat("[", 2_000_000)))},
	{"YAML aliases", 8, 0, post(body("application/yaml", aliases()))},
	{"wrong lengths", 8, 0, post(func(w io.Writer) {
		_, _ = io.WriteString(w, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
			"Content-Length: 10\r\nContent-Length: 99999999999999999999\r\n\r\n{}")
	})},
	{"Protobuf that is none", 8, 0, post(body("application/vnd.kubernetes.protobuf", "k8s\x00"+strings.Repeat("\xff", 1<<20)))},
}

// hold opens a connection, sends something, reads nothing, and does so again when it is closed.
func hold(ctx context.Context, address string, settings *tls.Config, text string) {
	for ctx.Err() == nil {
		conn := reach(ctx, address, settings)
		if conn == nil {
			continue
		}
		_, _ = io.WriteString(conn, text)
		gone := make(chan struct{})
		if text == "" {
			go func() { _, _ = io.Copy(io.Discard, conn); close(gone) }()
		}
		select {
		case <-gone: // it is not wanted; the next one is a while away
			_ = conn.Close()
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		_ = conn.Close()
	}
}

// dialling bounds how many connections are being made at a time: the attackers share the machine with those whom they attack.
var dialling = make(chan struct{}, 32)

func reach(ctx context.Context, address string, settings *tls.Config) net.Conn {
	// From another address than the honest client: that one host does not starve the others is what is promised.
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}
	select {
	case dialling <- struct{}{}:
		defer func() { <-dialling }()
	case <-ctx.Done():
		return nil
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second, LocalAddr: from}, Config: settings}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		select { // it is refused: the next try is a moment away
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	}
	return conn
}

// post sends one request after another, each on a connection of its own, and reads some of the answer.
func post(send func(io.Writer)) func(context.Context, string, *tls.Config, *tls.Config) {
	return func(ctx context.Context, address string, admin, _ *tls.Config) {
		for ctx.Err() == nil {
			conn := reach(ctx, address, admin)
			if conn == nil {
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			send(conn)
			_, _ = io.CopyN(io.Discard, conn, 1<<10)
			stop()
			_ = conn.Close()
		}
	}
}

func body(media, text string) func(io.Writer) {
	return func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", media, len(text))
		_, _ = io.WriteString(w, text)
	}
}

// endless is a reader of one byte again and again.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// aliases is a document of a few hundred bytes that means 10^9 words.
func aliases() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		_, _ = fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

// TestHostileClients attacks a server in a dozen ways, one after the other and the first ones at once: its memory stays bounded, and an honest
// client is answered throughout.
func TestHostileClients(t *testing.T) {
	s := newSite(t, need.Built(t, "../..", "shoal"))
	// What a busy server lets gather as garbage, up to 48 MB, is its own choice and no harm: here it collects as Go does by default.
	m := s.Add("one", "server", "GOGC=100")
	s.Leader()
	client, err := kube.Load(m.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	admin := client.TLS()
	admin.NextProtos = []string{"http/1.1"}
	nobody := admin.Clone()
	nobody.GetClientCertificate, nobody.Certificates = nil, nil
	honest := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: nobody.Clone(), DisableKeepAlives: true}}
	token := honestToken(t, m.Kubeconfig())
	serve := func(during string) {
		t.Helper()
		const path = "/api/v1/namespaces/default/configmaps"
		method, to, want := http.MethodPut, path+"/honest", http.StatusOK
		if during == "" {
			method, to, want = http.MethodPost, path, http.StatusCreated
		}
		text := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"honest"},"data":{"at":%q}}`, time.Now())
		q, err := http.NewRequestWithContext(t.Context(), method, "https://"+m.Address+to, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("Authorization", "Bearer "+token)
		reply, err := honest.Do(q)
		if err != nil {
			t.Fatalf("an honest client, during %s: %v", during, err)
		}
		defer func() { _ = reply.Body.Close() }()
		if reply.StatusCode != want {
			out, _ := io.ReadAll(reply.Body)
			t.Fatalf("an honest client, during %s: %s: %s", during, reply.Status, out)
		}
	}
	serve("")
	for range 200 {
		serve("warming up")
	}
	before := anonymous(t, m)
	for _, a := range attacks {
		ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(a.lasts, 3*time.Second))
		var running sync.WaitGroup
		for range a.clients {
			running.Go(func() { a.do(ctx, m.Address, admin.Clone(), nobody.Clone()) })
		}
		peak, waits := 0, []time.Duration{}
		for ctx.Err() == nil {
			began := time.Now()
			serve(a.name)
			waits = append(waits, time.Since(began))
			peak = max(peak, anonymous(t, m))
		}
		cancel()
		running.Wait()
		slices.Sort(waits)
		t.Logf("%s: %d MiB more at most; of %d requests of an honest client, each with a connection of its own, 99 %% took at most %s",
			a.name, (peak-before)>>20, len(waits), waits[len(waits)*99/100].Round(time.Millisecond))
		if peak-before > mostGrowth {
			t.Errorf("%s cost %d MiB", a.name, (peak-before)>>20)
		}
	}
}

// honestToken makes an account of its own for the honest client: one bad client must not starve the others.
func honestToken(t *testing.T, kubeconfig string) string {
	t.Helper()
	kubectl := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), need.Built(t, "../..", "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	kubectl("create", "serviceaccount", "honest")
	kubectl("create", "rolebinding", "honest", "--clusterrole=edit", "--serviceaccount=default:honest")
	return kubectl("create", "token", "honest")
}

// anonymous is a member's memory, in bytes.
func anonymous(t *testing.T, m *site.Member) int {
	t.Helper()
	n, err := m.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
