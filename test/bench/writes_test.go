package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/test/load"
)

// objectSize is how many bytes of data an object of the benchmarks has.
const objectSize = 256

// BenchmarkWrites creates ConfigMaps over HTTP: all clients at the leader, or spread over the servers, which pass writes on.
func BenchmarkWrites(b *testing.B) {
	for _, size := range []int{1, 3} {
		b.Run(fmt.Sprintf("system=http/servers=%d", size), func(b *testing.B) {
			s := start(b, size)
			leader := s.leader(b)
			for _, m := range media {
				for _, clients := range []int{1, 16, 64} {
					b.Run(fmt.Sprintf("at=leader/media=%s/clients=%d", m.name, clients), func(b *testing.B) {
						s.create(b, []*dev.Device{leader}, clients, m.contentType, m.encode)
					})
				}
			}
			if size > 1 {
				b.Run("at=any/media=json/clients=64", func(b *testing.B) {
					s.create(b, s.Devices(), 64, media[0].contentType, media[0].encode)
				})
			}
		})
	}
}

// create measures creations at the given servers in turn, and what one costs the servers.
func (s *servers) create(b *testing.B, at []*dev.Device, clients int, contentType string, encode func(string, int) ([]byte, error)) {
	conns := make([]*conn, clients)
	for i := range conns {
		c, err := dial(b.Context(), at[i%len(at)].Address, s.tls)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns[i] = c
	}
	s.round++
	before := s.used(b)
	load.Run(b, clients, func(_ context.Context, client, request int) error {
		body, err := encode(fmt.Sprintf("bench-%d-%d", s.round, request), objectSize)
		if err != nil {
			return err
		}
		return conns[client].post(configMaps, contentType, body)
	})
	after := s.used(b)
	b.ReportMetric(float64(after.Written-before.Written)/float64(b.N), "disk-B/txn")
	b.ReportMetric(float64(after.CPU-before.CPU)*float64(tick.Microseconds())/float64(b.N), "cpu-us/txn")
}

// tick is the unit of CPU times in /proc.
const tick = 10 * time.Millisecond

// used is the CPU time of all servers, and the bytes that the one that wrote most gave to its disk.
func (s *servers) used(b *testing.B) (sum dev.Usage) {
	usage, err := s.Usage()
	if err != nil {
		b.Fatal(err)
	}
	for _, u := range usage {
		sum.CPU += u.CPU
		sum.Written = max(sum.Written, u.Written)
	}
	return sum
}
