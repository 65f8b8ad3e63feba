package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/load"
	"github.com/shoal-edge/shoal/test/site"
)

// BenchmarkDisk counts the bytes that the server that writes most gives to its disk for a creation of 1 KB, and in a minute without
// any. What the file system adds is not in it.
func BenchmarkDisk(b *testing.B) {
	c := start(b, 3)
	leader := c.Leader()
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			const size = 1024
			conns := c.dial(b, []*site.Member{leader}, clients)
			c.round++
			before := c.used(b)
			load.Run(b, clients, func(_ context.Context, client, request int) error {
				body, err := media[0].encode(fmt.Sprintf("disk-%d-%d", c.round, request), size)
				if err != nil {
					return err
				}
				return conns[client].post(configMaps, media[0].contentType, body)
			})
			written := float64(c.used(b).written-before.written) / float64(b.N)
			b.ReportMetric(written, "disk-B/txn")
			b.ReportMetric(written/size, "amplification")
		})
	}
	b.Run("idle", func(b *testing.B) {
		time.Sleep(15 * time.Second) // what the load left to do
		for range b.N {
			before := c.used(b)
			time.Sleep(time.Minute) // what is measured is that nothing happens
			b.ReportMetric(float64(c.used(b).written-before.written), "disk-B/min")
		}
		b.ReportMetric(0, "ns/op")
	})
}
