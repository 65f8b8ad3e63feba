package bench

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/site"
)

// BenchmarkWatches opens 5,000 watches at one server, each on a connection of its own, and reports what they cost its memory, and how
// long after its acknowledgement a change has reached all of them.
func BenchmarkWatches(b *testing.B) {
	const watches = 5000
	c := start(b, 1)
	server := c.Members[0]
	before := memory(b, server)
	conns := c.dial(b, c.Members, watches)
	var ready, heard sync.WaitGroup
	ready.Add(watches)
	var running sync.WaitGroup
	for _, w := range conns {
		running.Go(func() {
			events, err := w.watch(configMaps + "?watch=1&timeoutSeconds=3600&labelSelector=app%3Dwatched&resourceVersion=0")
			ready.Done()
			if err != nil {
				b.Error(err)
				return
			}
			for {
				line, err := events.ReadBytes('\n')
				if err != nil {
					return // the end
				}
				if bytes.Contains(line, []byte(`"ADDED"`)) {
					heard.Done()
				}
			}
		})
	}
	ready.Wait()
	writer := c.dial(b, c.Members, 1)[0]
	var total time.Duration
	b.ResetTimer()
	for i := range b.N {
		heard.Add(watches)
		body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"watched-%d-%d","labels":{"app":"watched"}}}`, b.N, i)
		if err := writer.post(configMaps, media[0].contentType, body); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		heard.Wait()
		total += time.Since(began)
	}
	b.StopTimer()
	after := memory(b, server)
	b.ReportMetric(float64(after-before)/watches/1024, "anon-KB/watch")
	b.ReportMetric(float64(after)/1e6, "anon-MB")
	b.ReportMetric(total.Seconds()*1000/float64(b.N), "all-told-ms")
	b.ReportMetric(0, "ns/op")
	for _, w := range conns {
		_ = w.Close()
	}
	running.Wait()
}

// memory is the anonymous memory of a server's process, in bytes.
func memory(b *testing.B, m *site.Member) int {
	b.Helper()
	n, err := m.Anonymous()
	if err != nil {
		b.Fatal(err)
	}
	return n
}
