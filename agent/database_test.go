package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

func openTest(t *testing.T, dir string) *database {
	t.Helper()
	d, err := openDatabase(dir, time.Unix(0, 0), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDamagedDatabase damages the file in every way: what is opened then is as it was, or empty with the file set aside.
func TestDamagedDatabase(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.db")
	d := openTest(t, dir)
	var items []transport.Item
	for i := range 120 {
		items = append(items, transport.Item{Key: fmt.Sprintf("pods/default/p%d", i), Value: bytes.Repeat([]byte{byte(i)}, 50+20*i)})
	}
	for seq := range uint64(3) { // both of bbolt's meta pages, and pages that were used before
		if _, err := d.apply(1, seq+1, true, items[:60+30*seq]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 0))
	damaged := [][]byte{{}, sound[:100], sound[:4096], sound[:8192], sound[:len(sound)/2], sound[:len(sound)-4096], make([]byte, len(sound)), []byte("rubbish")}
	for range 300 {
		b := bytes.Clone(sound)
		if i := rng.IntN(len(b)); rng.IntN(4) == 0 {
			clear(b[i&^511 : min(len(b), i&^511+512)]) // a sector that was never written
		} else {
			b[i] ^= 1 << rng.IntN(8)
		}
		damaged = append(damaged, b)
	}
	found := 0
	for i, b := range damaged {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d := openTest(t, dir)
		_, aside := os.Stat(file + ".damaged-19700101T000000Z")
		n := 0
		d.each(bucketDesired, "", func(string, []byte) { n++ })
		epoch, seq := d.position()
		switch {
		case aside == nil && (n != 0 || epoch != 0):
			t.Errorf("damage %d was found, but there are %d keys", i, n)
		case aside != nil && seq != 0 && !same(d, items[:60+30*(seq-1)]):
			t.Errorf("damage %d was not found: %d keys at %d", i, n, seq)
		}
		if aside == nil {
			found++
			if err := os.Remove(file + ".damaged-19700101T000000Z"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.apply(2, 1, true, items[:3]); err != nil || !same(d, items[:3]) {
			t.Errorf("damage %d: the database cannot be used: %v", i, err)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	}
	if found < 50 {
		t.Errorf("of %d damaged files only %d were found out", len(damaged), found)
	}
}

func same(d *database, items []transport.Item) bool {
	n := 0
	d.each(bucketDesired, "", func(string, []byte) { n++ })
	for _, item := range items {
		if !bytes.Equal(d.desired(item.Key), item.Value) {
			return false
		}
	}
	return n == len(items)
}

// FuzzOpenDatabase changes a few bytes of a database: it is opened as it was or empty, and can be used.
func FuzzOpenDatabase(f *testing.F) {
	dir := f.TempDir()
	d, err := openDatabase(dir, time.Unix(0, 0), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	items := []transport.Item{{Key: "pods/default/a", Value: []byte("one")}, {Key: "pods/default/b", Value: bytes.Repeat([]byte("two"), 2000)}}
	if _, err := d.apply(1, 1, true, items); err != nil {
		f.Fatal(err)
	}
	if err := d.close(); err != nil {
		f.Fatal(err)
	}
	sound, err := os.ReadFile(filepath.Join(dir, "agent.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(100), []byte{1, 2, 3}, uint16(0))
	f.Add(uint16(0), []byte{}, uint16(4096))
	f.Fuzz(func(t *testing.T, at uint16, change []byte, cut uint16) {
		content := bytes.Clone(sound)
		for i, b := range change {
			content[(int(at)+i)%len(content)] ^= b
		}
		content = content[:len(content)-int(cut)%len(content)]
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "agent.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		d := openTest(t, dir)
		defer d.close()
		if n := 0; !same(d, items) {
			d.each(bucketDesired, "", func(string, []byte) { n++ })
			if n > 0 {
				t.Errorf("%d keys that are not those that were stored", n)
			}
		}
		if _, err := d.apply(2, 1, true, items[:1]); err != nil || !same(d, items[:1]) {
			t.Errorf("it cannot be used: %v", err)
		}
	})
}
