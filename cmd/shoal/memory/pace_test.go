package memory

import (
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 20: 800, 12 << 20: 400, 16 << 20: 300, 40 << 20: 100, 400 << 20: 100} {
		if got := percent(live); got != want {
			t.Errorf("%d MB alive: %d %%, want %d %%", live>>20, got, want)
		}
	}
	if got := pace(2 * time.Second); got != usual {
		t.Errorf("%d %% at rest", got)
	}
}
