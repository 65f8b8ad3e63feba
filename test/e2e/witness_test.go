package e2e

import (
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
)

// TestWitness takes a site of two servers and a witness through the loss of each of them.
func TestWitness(t *testing.T) {
	needs(t, "ip")
	s := newSite(t, need.Built(t, "../..", "shoal"))
	first, second, witness := s.Add("server-1", "server"), s.Add("server-2", "server"), s.Add("witness-1", "witness")
	s.Voters(3)
	s.Await(witness, "readyz", "ok")

	const secret = "what-no-witness-keeps"
	s.write(second, secret)
	first.Kill()
	s.write(second, "with-the-witness")
	if s.holds(witness, secret) {
		t.Error("the witness has an object on its disk")
	}
	witness.Kill()
	if err := s.tryWrite(second, "alone", 3*time.Second); err == nil {
		t.Fatal("one server of two wrote without the witness")
	}
	s.Run(witness)
	s.write(second, "with-the-witness-again")
	s.Run(first)
	s.Await(first, "metrics", "\nshoal_raft_has_leader 1\n")
	witness.Kill()
	s.write(first, "without-the-witness")
	for _, name := range []string{secret, "with-the-witness", "with-the-witness-again", "without-the-witness"} {
		if out, err := s.kubectl(t.Context(), first, "get", "configmap", name); err != nil {
			t.Errorf("%s is lost: %v: %s", name, err, out)
		}
	}
}
