// Package load drives a number of clients at a time in a benchmark and reports how fast they were served.
package load

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Run has so many clients make b.N requests, each of them one after another, and reports the requests a second and the times that
// half and 99 % of them took at most. A request is told its client and a number that no other request of this call has.
func Run(b *testing.B, clients int, do func(ctx context.Context, client, request int) error) {
	b.Helper()
	took := make([][]time.Duration, clients)
	var next atomic.Int64
	var running sync.WaitGroup
	b.ResetTimer()
	for client := range clients {
		running.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				began := time.Now()
				if err := do(b.Context(), client, i); err != nil {
					b.Errorf("client %d: %v", client, err)
					return
				}
				took[client] = append(took[client], time.Since(began))
			}
		})
	}
	running.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		return
	}
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "txn/s")
	b.ReportMetric(milliseconds(all[len(all)/2]), "p50-ms")
	b.ReportMetric(milliseconds(all[len(all)*99/100]), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
