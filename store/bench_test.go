package store

import (
	"fmt"
	"testing"
)

// BenchmarkApply measures the store alone: no log, no disk.
func BenchmarkApply(b *testing.B) {
	for _, watchers := range []int{0, 100} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			s := New(Config{})
			for range watchers {
				_, _, w := s.ListAndWatch("configmaps", "default")
				defer w.Close()
			}
			value := make([]byte, 1024)
			b.ReportAllocs()
			for i := range b.N {
				key := Key{"configmaps", "default", fmt.Sprintf("name-%d", i%10000)}
				if err := s.Apply(uint64(i+1), Txn{Ops: []Op{{Key: key, Value: value, Expect: Any}}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
