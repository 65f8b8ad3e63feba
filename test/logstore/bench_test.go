package logstore

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A server's checkpoint is written after so many entries, and leaves so many in the log.
const (
	checkpointEntries = 2048
	trailingEntries   = 1024
)

// BenchmarkAppend stores batches of entries and removes old ones as a server does. One operation is one entry.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{256, 1024} {
		for _, batch := range []int{1, 16, 64} {
			for _, s := range stores() {
				b.Run(fmt.Sprintf("size=%d/batch=%d/log=%s", size, batch, s.name), func(b *testing.B) { benchmarkAppend(b, s, size, batch) })
			}
		}
	}
}

func benchmarkAppend(b *testing.B, s store, size, batch int) {
	v := newVolume(b)
	log := s.mustOpen(b, v.dir)
	defer log.Close()
	next := uint64(1)
	for next <= trailingEntries { // a log that has been in use
		if err := log.StoreLogs(entries(next, 64, size)); err != nil {
			b.Fatal(err)
		}
		next += 64
	}
	first, compacted := uint64(1), next
	var took []time.Duration
	before := v.usage(b)
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		batch := entries(next, min(batch, b.N-done), size)
		began := time.Now()
		if err := log.StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		next += uint64(len(batch))
		if next-compacted >= checkpointEntries {
			until := next - trailingEntries
			if err := log.DeleteRange(first, until-1); err != nil {
				b.Fatal(err)
			}
			first, compacted = until, next
		}
	}
	b.StopTimer()
	after := v.usage(b)
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(float64(after.bytes-before.bytes)/float64(b.N), "disk-B/entry")
	b.ReportMetric(float64(after.bytes-before.bytes)/float64(b.N*size), "amplification")
	b.ReportMetric(float64(after.flushes-before.flushes)/float64(len(took)), "flushes/batch")
	b.ReportMetric(float64(v.size(b))/(1<<20), "files-MB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkOpen opens a log with as many entries of 1 KB as there can be between two checkpoints. Ours reads and checks them all.
func BenchmarkOpen(b *testing.B) {
	for _, s := range stores() {
		b.Run("log="+s.name, func(b *testing.B) {
			v := newVolume(b)
			log := s.mustOpen(b, v.dir)
			for next := uint64(1); next <= checkpointEntries+trailingEntries; next += 64 {
				if err := log.StoreLogs(entries(next, 64, 1024)); err != nil {
					b.Fatal(err)
				}
			}
			if err := log.Close(); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for range b.N {
				if err := s.mustOpen(b, v.dir).Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVote stores a term, as each server does at an election.
func BenchmarkVote(b *testing.B) {
	for _, s := range stores() {
		b.Run("log="+s.name, func(b *testing.B) {
			v := newVolume(b)
			log := s.mustOpen(b, v.dir)
			defer log.Close()
			before := v.usage(b)
			b.ResetTimer()
			for i := range b.N {
				if err := log.SetUint64([]byte("CurrentTerm"), uint64(i)); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			after := v.usage(b)
			b.ReportMetric(float64(after.bytes-before.bytes)/float64(b.N), "disk-B/op")
			b.ReportMetric(float64(after.flushes-before.flushes)/float64(b.N), "flushes/op")
		})
	}
}
