package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/shoal-edge/shoal/test/load"
	"github.com/shoal-edge/shoal/test/site"
)

// objectSize is how many bytes of data an object of the benchmarks has.
const objectSize = 256

// BenchmarkWrites creates ConfigMaps over HTTP: all clients at the leader, or spread over the servers, which pass writes on.
func BenchmarkWrites(b *testing.B) {
	for _, size := range []int{1, 3} {
		b.Run(fmt.Sprintf("system=http/servers=%d", size), func(b *testing.B) {
			c := start(b, size)
			leader := c.Leader()
			for _, m := range media {
				for _, clients := range []int{1, 16, 64} {
					b.Run(fmt.Sprintf("at=leader/media=%s/clients=%d", m.name, clients), func(b *testing.B) {
						c.create(b, []*site.Member{leader}, clients, m.contentType, m.encode)
					})
				}
			}
			if size > 1 {
				b.Run("at=any/media=json/clients=64", func(b *testing.B) {
					c.create(b, c.Members, 64, media[0].contentType, media[0].encode)
				})
			}
		})
	}
}

// create measures creations at the given servers in turn, and what one costs the servers.
func (c *cluster) create(b *testing.B, at []*site.Member, clients int, contentType string, encode func(string, int) ([]byte, error)) {
	conns := c.dial(b, at, clients)
	c.round++
	before := c.used(b)
	load.Run(b, clients, func(_ context.Context, client, request int) error {
		body, err := encode(fmt.Sprintf("bench-%d-%d", c.round, request), objectSize)
		if err != nil {
			return err
		}
		return conns[client].post(configMaps, contentType, body)
	})
	after := c.used(b)
	b.ReportMetric(float64(after.written-before.written)/float64(b.N), "disk-B/txn")
	b.ReportMetric(float64((after.cpu-before.cpu).Microseconds())/float64(b.N), "cpu-us/txn")
}
