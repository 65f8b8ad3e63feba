package agent

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

func openUntold(t *testing.T, dir string) (*untold, *database) {
	t.Helper()
	d, err := openDatabase(dir, time.Now(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	u := newUntold()
	u.load(d)
	return u, d
}

func (u *untold) save(t *testing.T, d *database, all bool) int {
	t.Helper()
	changes := u.changes(all)
	if err := d.put(bucketEvents, changes); err != nil {
		t.Fatal(err)
	}
	u.wrote(changes)
	return len(changes)
}

func (u *untold) values() (all []string) {
	for _, item := range u.all() {
		all = append(all, string(item.Value))
	}
	return all
}

func happened(name, value string) transport.Item {
	return transport.Item{Key: "events/default/" + name, Value: []byte(value)}
}

// TestUntold: what happened while nobody heard it is told in its order after a restart, and forgotten once it was heard.
func TestUntold(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u, d := openUntold(t, dir)
		u.add(happened("pulled", "1"), false)
		u.add(happened("failed", "2"), true)
		if n := u.save(t, d, false); n != 0 {
			t.Errorf("%d writes for what may be delivered in a moment", n)
		}
		if u.delivered([]transport.Item{happened("pulled", "1")}) {
			t.Error("what was never written is on the disk")
		}
		time.Sleep(patienceUntold)
		u.add(happened("failed", "3"), true) // again, in the place of the first time
		u.add(happened("started", "4"), false)
		time.Sleep(patienceUntold)
		if n := u.save(t, d, false); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		if n := u.save(t, d, true); n != 0 {
			t.Errorf("%d writes of what is written", n)
		}
		u.add(happened("killing", "5"), false)
		u.save(t, d, true) // it goes down
		if err := d.close(); err != nil {
			t.Fatal(err)
		}

		u, d = openUntold(t, dir)
		u.add(happened("created", "6"), false)
		if got, want := u.values(), []string{"3", "4", "5", "6"}; !slices.Equal(got, want) {
			t.Errorf("after a restart: %q, want %q", got, want)
		}
		if u.delivered([]transport.Item{happened("failed", "2")}) {
			t.Error("an older telling was taken for the newest")
		}
		if !u.delivered([]transport.Item{happened("failed", "3"), happened("started", "4"), happened("other", "x")}) {
			t.Error("what was delivered is not said to be on the disk")
		}
		u.save(t, d, true)
		if err := d.close(); err != nil {
			t.Fatal(err)
		}

		u, d = openUntold(t, dir)
		if got, want := u.values(), []string{"5", "6"}; !slices.Equal(got, want) {
			t.Errorf("after the delivery: %q, want %q", got, want)
		}
		n := 0
		d.each(bucketEvents, "", func(string, []byte) { n++ })
		if n != 2 {
			t.Errorf("%d events are on the disk, want 2", n)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Too many events: the oldest go, warnings last.
func TestUntoldIsBounded(t *testing.T) {
	u := newUntold()
	u.add(happened("warning", "w"), true)
	for i := range maxUntold + 10 {
		u.add(happened(fmt.Sprint(i), fmt.Sprint(i)), false)
	}
	if got := u.values(); len(got) != maxUntold || got[0] != "w" || got[1] != "11" {
		t.Errorf("%d wait, the first are %q", len(got), got[:2])
	}
	for i := range 2 * maxUntold {
		u.add(happened(fmt.Sprint("warning-", i), "v"), true)
	}
	if got := u.values(); len(got) != maxUntold || slices.ContainsFunc(got, func(v string) bool { return v != "v" }) {
		t.Errorf("%d wait, the first is %q", len(got), got[0])
	}
	u.add(happened("long", strings.Repeat("x", maxUntoldBytes)), true)
	if got := u.all(); len(got) != 1 || u.bytes != (&untoldEvent{item: got[0]}).weight() {
		t.Errorf("%d wait, %d bytes", len(got), u.bytes)
	}
}

func FuzzDecodeUntold(f *testing.F) {
	f.Add(encodeUntold(&untoldEvent{item: happened("a", "b"), warning: true}))
	f.Add([]byte{0, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		item, warning, ok := decodeUntold(data)
		if !ok {
			return
		}
		again, warned, ok := decodeUntold(encodeUntold(&untoldEvent{item: item, warning: warning}))
		if !ok || warned != warning || again.Key != item.Key || string(again.Value) != string(item.Value) {
			t.Fatalf("%q: %+v, then %+v", data, item, again)
		}
	})
}
