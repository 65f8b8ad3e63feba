package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/site"
)

// BenchmarkLeaderKill measures from the SIGKILL of the leader to the next creation that succeeds, at another server and with new
// connections. Each of b.N kills finds all servers up.
func BenchmarkLeaderKill(b *testing.B) {
	c := start(b, 3)
	var took []time.Duration
	for i := range b.N {
		leader := c.Leader()
		other := c.Members[(slices.Index(c.Members, leader)+1)%len(c.Members)]
		body, err := media[0].encode(fmt.Sprint("kill-", i, "-", time.Now().UnixNano()), objectSize)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		leader.Kill()
		site.Eventually(b, func() error {
			conn, err := dial(b.Context(), other.Address, c.tls)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			return conn.post(configMaps, media[0].contentType, body)
		})
		took = append(took, time.Since(began))
		c.Run(leader)
		c.Await(leader, "metrics", "\nshoal_raft_has_leader 1\n")
		time.Sleep(500 * time.Millisecond) // it catches up
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "median-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(0, "ns/op")
}
