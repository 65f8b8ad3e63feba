package e2e

import (
	"testing"
	"time"
)

// TestWitness takes a site of two servers and a witness through the loss of each of them.
func TestWitness(t *testing.T) {
	need(t, "ip")
	s := newSite(t)
	s.add("server-1", "server", "")
	s.add("server-2", "server", s.join("server"))
	s.add("witness-1", "witness", s.join("witness"))
	s.await("server-1", "metrics", "\nshoal_raft_voters 3\n")
	s.await("witness-1", "readyz", "ok")
	s.await("witness-1", "metrics", "\nshoal_raft_voters 3\n")

	const secret = "what-no-witness-keeps"
	s.write("server-2", secret)
	s.kill("server-1")
	s.write("server-2", "with-the-witness")
	if s.holds("witness-1", secret) {
		t.Error("the witness has an object on its disk")
	}
	s.kill("witness-1")
	if err := s.tryWrite("server-2", "alone", 3*time.Second); err == nil {
		t.Fatal("one server of two wrote without the witness")
	}
	s.run("witness-1")
	s.write("server-2", "with-the-witness-again")
	s.run("server-1")
	s.await("server-1", "metrics", "\nshoal_raft_has_leader 1\n")
	s.kill("witness-1")
	s.write("server-1", "without-the-witness")
	for _, name := range []string{secret, "with-the-witness", "with-the-witness-again", "without-the-witness"} {
		if out, err := s.kubectl(t.Context(), "server-1", "get", "configmap", name); err != nil {
			t.Errorf("%s is lost: %v: %s", name, err, out)
		}
	}
}
