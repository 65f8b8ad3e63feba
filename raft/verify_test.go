package raft

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestVerifierCountsFreshAnswersOfVoters checks what the library's own check gets wrong.
func TestVerifierCountsFreshAnswersOfVoters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		follows := map[string]bool{"b": true, "c": true, "spare": true}
		v := newVerifier(func(to Server, _ uint64) bool {
			mu.Lock()
			yes := follows[to.ID] // as of when the question arrives; the answer takes its time
			mu.Unlock()
			time.Sleep(time.Second)
			return yes
		})
		servers := []Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "spare"}, {ID: "spare2"}}
		verify := func() error { return v.verify(context.Background(), "a", servers, 3) }

		if err := verify(); err != nil {
			t.Error(err)
		}
		early := make(chan error, 1)
		go func() { early <- verify() }()
		time.Sleep(500 * time.Millisecond) // the questions are answered with yes, and the answers are on their way
		mu.Lock()
		follows["b"], follows["c"] = false, false
		mu.Unlock()
		if err := verify(); err == nil {
			t.Error("answers that were on their way before were counted, or those of servers without a vote")
		}
		if err := <-early; err != nil {
			t.Error(err)
		}
		mu.Lock()
		follows["b"] = true
		mu.Unlock()
		if err := verify(); err != nil {
			t.Errorf("with two of three: %v", err)
		}
		synctest.Wait()
		time.Sleep(5 * time.Second) // nobody asks any more
	})
}

func TestVerifierEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(func(Server, uint64) bool { time.Sleep(time.Hour); return true })
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := v.verify(ctx, "a", []Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}}, 3); err == nil {
			t.Error("confirmed by nobody")
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestReadyIsOfOneTerm checks that a leadership that was lost and won again does not count as ready before its own barrier.
func TestReadyIsOfOneTerm(t *testing.T) {
	c := newCluster(t, 1, nil)
	leader := c.leader()
	c.write("a", "1")
	term := leader.ready.term()
	leader.ready.passed.Store(term - 1) // as if the news of the loss had not arrived yet
	defer leader.ready.passed.Store(term)
	if leader.Ready() {
		t.Error("it is ready by a term that is over")
	}
	if _, err := leader.Propose(c.soon(), put("a", "2")); err == nil {
		t.Error("it takes a write")
	}
	if _, err := leader.ReadIndex(c.soon()); err == nil {
		t.Error("it answers a read")
	}
}
