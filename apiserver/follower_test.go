package apiserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// toServer carries a server's requests to another bed, with a server's certificate.
type toServer struct{ leader *bed }

func (f toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "leader:6443" {
		return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("no such host %s", r.URL.Host)}
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(f.leader.url, "http://")
	r.Header.Set(identityHeader, "system:shoal:server:b|system:shoal:servers")
	return http.DefaultTransport.RoundTrip(r)
}

// newPair is a leader and a follower that has the same log.
func newPair(t *testing.T, change ...func(*bed, *apiserver.Config)) (leader, follower *bed) {
	t.Helper()
	leader = newBed(t, change...)
	follower = &bed{t: t, durable: leader.durable, consensus: &consensus{durable: leader.durable}}
	follower.consensus.leader.Store("leader:6443")
	follower.client = store.NewClient(store.ClientConfig{Durable: leader.durable, Propose: unable{}})
	follower.serve(apiserver.New(apiserver.Config{
		Client: follower.client, Durable: follower.durable, Consensus: follower.consensus, Forward: toServer{leader},
		LeaderWait: 300 * time.Millisecond,
	}).Handler())
	return leader, follower
}

type unable struct{ store.Proposer }

func TestFollower(t *testing.T) {
	leader, follower := newPair(t)
	var c corev1.ConfigMap
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"bogus":1}`
	answer := follower.get(&c, call{method: "POST", path: configMaps, body: body})
	if c.UID == "" || answer.StatusCode != http.StatusCreated || answer.Header.Get("Warning") == "" {
		t.Errorf("%d %s %+v", answer.StatusCode, answer.Header, c)
	}
	follower.get(&c, call{path: configMaps + "/a"})
	follower.watch(configMaps + "?watch=1").expect("ADDED a")

	// The leader decides who may do what, by the name that the follower passes on.
	denied, data := follower.do(call{method: "DELETE", path: configMaps + "/a", as: "joe|users"})
	if denied.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", denied.StatusCode, data)
	}
	mustContain(t, data, `User \"joe\"`)

	// Volatile kinds are the leader's.
	leader.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "e", Namespace: "default"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"},
	})
	var events corev1.EventList
	follower.get(&events, call{path: "/api/v1/namespaces/default/events"})
	if len(events.Items) != 1 {
		t.Errorf("%d events", len(events.Items))
	}
}

func TestNoLeader(t *testing.T) {
	leader, follower := newPair(t)
	leader.consensus.leads.Store(false)
	for _, c := range []call{
		{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`},
		{path: configMaps},
		{path: "/api/v1/namespaces/default/events"},
	} {
		answer, data := follower.do(c)
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, answer.StatusCode, data)
		}
	}
	var list corev1.ConfigMapList
	follower.get(&list, call{path: configMaps + "?resourceVersion=0"}) // memory is always there
}

// TestFailOver: requests that come while there is no leader are answered by the next one.
func TestFailOver(t *testing.T) {
	leader, follower := newPair(t)
	leader.consensus.leads.Store(false)
	var asked atomic.Int32
	follower.consensus.asked = func() {
		switch asked.Add(1) {
		case 1: // the old one, which does not lead any more
		case 2:
			follower.consensus.leader.Store("")
		case 3: // one that is not up yet
			follower.consensus.leader.Store("elsewhere:6443")
		case 4:
			leader.consensus.leads.Store(true)
			follower.consensus.leader.Store("leader:6443")
		}
	}
	var c corev1.ConfigMap
	follower.get(&c, call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`})
	if c.UID == "" {
		t.Error("nothing was created")
	}
}

func TestStreamsReachTheDevice(t *testing.T) {
	device := pipeListener{conns: make(chan net.Conn, 8)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/default/p/c", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Remote-User") != "" || r.URL.Query().Get("tailLines") != "2" {
			http.Error(w, "unexpected "+r.URL.String(), http.StatusBadRequest)
		}
		fmt.Fprintln(w, "one")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the client gets the first line while the log goes on
	})
	mux.HandleFunc("POST /exec/default/p/c", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(conn, "%s: %s", r.URL.Query()["command"], line)
	})
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(device) }()
	t.Cleanup(func() { close(device.conns); server.Close() })

	leader, follower := newPair(t, func(_ *bed, cfg *apiserver.Config) {
		cfg.DialDevice = func(_ context.Context, node string) (net.Conn, error) {
			if node != "n1" {
				return nil, fmt.Errorf("%s is not connected", node)
			}
			here, there := net.Pipe()
			device.conns <- there
			return here, nil
		}
	})
	leader.create(podOn("p", "n1"))
	leader.create(podOn("q", "n2"))

	for _, b := range []*bed{leader, follower} {
		answer := b.open(call{path: pods + "/p/log?follow=true&tailLines=2"})
		line, err := bufio.NewReader(answer.Body).ReadString('\n')
		if err != nil || line != "one\n" {
			t.Errorf("%q %v", line, err)
		}
		answer.Body.Close()

		answer = b.open(call{
			method: "POST", path: pods + "/p/exec?command=ls&command=-l&stdout=true",
			header: map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"},
		})
		if answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%d", answer.StatusCode)
		}
		conn := answer.Body.(io.ReadWriteCloser)
		fmt.Fprintln(conn, "hello")
		line, err = bufio.NewReader(conn).ReadString('\n')
		if err != nil || line != "[ls -l]: hello\n" {
			t.Errorf("%q %v", line, err)
		}
		conn.Close()

		answer, data := b.do(call{path: pods + "/q/log"})
		if answer.StatusCode != http.StatusInternalServerError {
			t.Errorf("%d", answer.StatusCode)
		}
		mustContain(t, data, `error dialing device \"n2\"`)
	}
}
