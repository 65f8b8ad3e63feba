package fairness

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestOneCannotTakeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{Total: 8, Waiting: 4, Wait: time.Second})
		var mu sync.Mutex
		var held []func()
		results := map[string]int{}
		ask := func(who string) {
			go func() {
				release, ok := q.Enter(t.Context(), who)
				mu.Lock()
				defer mu.Unlock()
				results[fmt.Sprintf("%s %v", who, ok)]++
				if ok {
					held = append(held, release)
				}
			}()
		}
		count := func(what string) int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return results[what]
		}
		for range 20 {
			ask("greedy")
		}
		if let, away := count("greedy true"), count("greedy false"); let != 6 || away != 10 {
			t.Errorf("%d run, %d were turned away", let, away) // four wait
		}
		ask("modest")
		if count("modest true") != 1 {
			t.Error("there is no room for another")
		}
		mu.Lock()
		first := held[0]
		mu.Unlock()
		first()
		first() // once counts
		if let := count("greedy true"); let != 7 {
			t.Errorf("%d were let in", let)
		}
		time.Sleep(2 * time.Second)
		if away := count("greedy false"); away != 13 {
			t.Errorf("%d were turned away", away) // three have waited for too long
		}
		mu.Lock()
		defer mu.Unlock()
		for _, release := range held {
			release()
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.running != 0 || len(q.flows) != 0 {
			t.Errorf("%d run, %d are known", q.running, len(q.flows))
		}
	})
}

func TestTheModestComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{Total: 4, Waiting: 10, Wait: time.Minute})
		var releases []func()
		for _, who := range []string{"greedy", "greedy", "greedy", "other"} {
			release, ok := q.Enter(t.Context(), who)
			if !ok {
				t.Fatal(who)
			}
			releases = append(releases, release)
		}
		order := make(chan string, 10)
		for _, who := range []string{"greedy", "greedy", "other", "modest"} {
			go func() {
				release, ok := q.Enter(t.Context(), who)
				if !ok {
					t.Error(who)
					return
				}
				order <- who
				release()
			}()
			time.Sleep(time.Millisecond)
		}
		releases[3]()
		synctest.Wait()
		for _, want := range []string{"other", "modest"} {
			if got := <-order; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		for _, release := range releases[:3] {
			release()
		}
	})
}

func TestWhoLeavesWaitsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{Total: 1, Waiting: 1, Wait: time.Minute})
		release, _ := q.Enter(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() {
			_, ok := q.Enter(ctx, "b")
			done <- ok
		}()
		synctest.Wait()
		cancel()
		if <-done {
			t.Error("it came in")
		}
		release()
		if len(q.flows) != 0 {
			t.Error("somebody is left")
		}
	})
}

// TestBounds lets many come and go, and counts.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total := rapid.IntRange(1, 12).Draw(rt, "total")
		q := New(Config{Total: total, Waiting: rapid.IntRange(0, 5).Draw(rt, "waiting"), Wait: time.Millisecond})
		var mu sync.Mutex
		running, most := map[string]int{}, 0
		var group sync.WaitGroup
		for i := range rapid.IntRange(1, 40).Draw(rt, "requests") {
			who := fmt.Sprint(i % rapid.IntRange(1, 4).Draw(rt, "users"))
			group.Go(func() {
				release, ok := q.Enter(context.Background(), who)
				if !ok {
					return
				}
				mu.Lock()
				running[who]++
				all := 0
				for _, n := range running {
					all += n
				}
				most = max(most, all)
				if running[who] > q.each {
					rt.Errorf("%d of one", running[who])
				}
				mu.Unlock()
				runtime.Gosched() // others may come in now
				mu.Lock()
				running[who]--
				mu.Unlock()
				release()
			})
		}
		group.Wait()
		if most > total || q.running != 0 || len(q.flows) != 0 {
			rt.Errorf("%d at once, %d are left, %d are known", most, q.running, len(q.flows))
		}
	})
}
