package raft

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPropose writes objects of 256 bytes from so many clients at a time, without the HTTP API.
func BenchmarkPropose(b *testing.B) {
	for _, servers := range []int{1, 3} {
		for _, clients := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("servers=%d/clients=%d", servers, clients), func(b *testing.B) {
				c := newCluster(b, servers, nil)
				leader := c.leader()
				txn := put("object", strings.Repeat("x", 256))
				var next atomic.Int64
				var group sync.WaitGroup
				b.ResetTimer()
				for range clients {
					group.Go(func() {
						for next.Add(1) <= int64(b.N) {
							if _, err := leader.Propose(b.Context(), txn); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				group.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
			})
		}
	}
}

// BenchmarkFailover measures from the death of a leader to the next write that succeeds.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	var took []time.Duration
	for range b.N {
		c.same(c.write("before", "v"))
		dead := c.index(c.leader())
		start := time.Now()
		finish := c.cutOff(dead)
		c.write("after", "v")
		took = append(took, time.Since(start))
		finish()
		c.start(dead)
	}
	report(b, took)
}

// BenchmarkFollowerLag measures from an acknowledged write to the moment that a follower has it, with no other writes.
func BenchmarkFollowerLag(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	leader := c.leader()
	follower := c.members[(c.index(leader)+1)%3]
	var took []time.Duration
	for range b.N {
		revision := c.write("a", "v")
		start := time.Now()
		if err := follower.store.Wait(c.soon(), revision); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "median-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdle reports how much of one core each of three servers uses while nothing happens, and what it writes.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
	c.same(c.write("a", "v"))
	const period = 10 * time.Second
	cpu, written := usage(b)
	time.Sleep(period) // what is measured is that nothing happens
	cpuAfter, writtenAfter := usage(b)
	b.ReportMetric(100*(cpuAfter-cpu).Seconds()/period.Seconds()/3, "%cpu")
	b.ReportMetric(float64(writtenAfter-written)/3, "disk-bytes")
	b.ReportMetric(0, "ns/op")
}

func usage(b *testing.B) (cpu time.Duration, blocks int64) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Oublock * 512
}
