package seal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKeyring(t testing.TB, r Ring) *Keyring {
	t.Helper()
	k := new(Keyring)
	if err := k.Set(r); err != nil {
		t.Fatal(err)
	}
	return k
}

// rotated has a new primary key beside the old one.
func rotated(t testing.TB, r Ring) Ring {
	t.Helper()
	staged, id, err := r.Stage(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return must(staged.Activate(id))
}

func TestSealAndOpen(t *testing.T) {
	k := newKeyring(t, must(NewRing(epoch)))
	plain, place := []byte("hunter2"), []byte("secrets/default/a")
	sealed := must(k.Seal(plain, place))
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, must(k.Seal(plain, place))) {
		t.Error("the value shows, or looks the same twice")
	}
	if got := must(k.Open(sealed, place)); !bytes.Equal(got, plain) {
		t.Errorf("opened %q", got)
	}
	if _, err := k.Open(sealed, []byte("secrets/default/b")); err == nil {
		t.Error("a value opens in the place of another")
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if _, err := k.Open(broken, place); err == nil {
			t.Errorf("a value with another byte %d opens", i)
		}
		if _, err := k.Open(sealed[:i], place); err == nil {
			t.Errorf("the first %d bytes of a value open", i)
		}
	}
	for _, other := range []*Keyring{newKeyring(t, must(NewRing(epoch))), {}} {
		if _, err := other.Open(sealed, place); !errors.Is(err, ErrUnknownKey) && !errors.Is(err, ErrNoKeys) {
			t.Errorf("opened without the key: %v", err)
		}
	}
	if _, err := new(Keyring).Seal(plain, place); !errors.Is(err, ErrNoKeys) {
		t.Errorf("sealed without a key: %v", err)
	}
}

func TestRotation(t *testing.T) {
	ring := must(NewRing(epoch))
	k := newKeyring(t, ring)
	first, _ := ring.Primary()
	old := must(k.Seal([]byte("v"), nil))

	staged, id, err := ring.Stage(epoch)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Set(staged); err != nil {
		t.Fatal(err)
	}
	if sealed := must(k.Seal([]byte("v"), nil)); must(KeyOf(sealed)) != first.ID {
		t.Error("a key encrypts before it is active")
	}
	if have, ok := staged.Staged(); !ok || have != id {
		t.Error("the staged key is not found again")
	}
	active := must(staged.Activate(id))
	if err := k.Set(active); err != nil {
		t.Fatal(err)
	}
	sealed := must(k.Seal([]byte("v"), nil))
	if must(KeyOf(sealed)) != id || must(k.Check(sealed)) || !must(k.Check(old)) {
		t.Error("the new key does not encrypt, or the old value is not stale")
	}
	if got := must(k.Open(old, nil)); string(got) != "v" {
		t.Errorf("the old value opens as %q", got)
	}
	rest, gone := active.DropOld()
	if len(gone) != 1 || gone[0] != first.ID || rest.Has(first.ID) || !rest.Dropped(first.ID) {
		t.Errorf("dropped %v", gone)
	}
	if back := rest.Merge(ring); back.Has(first.ID) {
		t.Error("a dropped key came back from another server")
	}
	if err := k.Set(rest); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(old, nil); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), string(first.ID)) {
		t.Errorf("an old value after its key was dropped: %v", err)
	}
}

func TestRingFile(t *testing.T) {
	ring := rotated(t, must(NewRing(epoch)))
	ring, _ = rotated(t, ring).DropOld()
	data := must(ring.Marshal())
	if back := must(Parse(data)); !back.Equal(ring) {
		t.Errorf("read back %v, want %v", back, ring)
	}
	key, _ := ring.Primary()
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%v", ring)} {
		if len(text) > 120 || strings.Contains(text, fmt.Sprint(key.Secret[0], key.Secret[1], key.Secret[2])) {
			t.Errorf("a key prints as %s", text)
		}
	}
	for name, text := range map[string]string{
		"empty":          "",
		"not JSON":       "x",
		"no keys":        `{"version": 1}`,
		"later version":  strings.Replace(string(data), `"version": 1`, `"version": 2`, 1),
		"damaged secret": strings.Replace(string(data), `"secret": "`, `"secret": "AAAA`, 1),
		"other id":       strings.Replace(string(data), string(key.ID), "0000000000000000", 1),
	} {
		if r, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: parsed as %v", name, r)
		}
	}
}

// TestRingsConverge changes rings on several servers that pass them on in any order.
func TestRingsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := must(NewRing(epoch))
		rings := []Ring{first, first, must(NewRing(epoch))}
		which := rapid.IntRange(0, len(rings)-1)
		t.Repeat(map[string]func(*rapid.T){
			"stage": func(t *rapid.T) {
				i := which.Draw(t, "server")
				if len(rings[i].keys) > 8 {
					t.Skip("enough")
				}
				rings[i], _, _ = rings[i].Stage(epoch)
			},
			"activate": func(t *rapid.T) {
				i := which.Draw(t, "server")
				if id, ok := rings[i].Staged(); ok {
					rings[i] = must(rings[i].Activate(id))
				}
			},
			"drop": func(t *rapid.T) {
				i := which.Draw(t, "server")
				rings[i], _ = rings[i].DropOld()
			},
			"exchange": func(t *rapid.T) {
				i, j := which.Draw(t, "from"), which.Draw(t, "to")
				rings[j] = rings[j].Merge(rings[i])
				rings[i] = rings[i].Merge(rings[j])
			},
			"": func(t *rapid.T) {
				for i, r := range rings {
					if !r.Merge(r).Equal(r) || !must(Parse(must(r.Marshal()))).Equal(r) {
						t.Fatalf("server %d: merging or reading its own ring changes it", i)
					}
					if _, ok := r.Primary(); !ok {
						t.Fatalf("server %d has no key to encrypt with", i)
					}
				}
			},
		})
		forth, back := Ring{}, Ring{}
		for i := range rings {
			forth = forth.Merge(rings[i])
			back = rings[len(rings)-1-i].Merge(back)
		}
		if !forth.Equal(back) {
			t.Fatalf("the order matters: %v and %v", forth.keys, back.keys)
		}
		for _, k := range forth.keys {
			if forth.Dropped(k.ID) {
				t.Fatalf("%s is both there and dropped", k)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := newKeyring(f, must(NewRing(epoch)))
	f.Add(must(k.Seal([]byte("v"), nil)))
	f.Add([]byte{sealedVersion})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if plain, err := k.Open(sealed, []byte("another place")); err == nil {
			t.Errorf("forged %q", plain)
		}
		_, _ = k.Check(sealed)
	})
}

func FuzzParse(f *testing.F) {
	f.Add(must(must(NewRing(epoch)).Marshal()))
	f.Add([]byte(`{"version":1,"keys":[{}],"dropped":["x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := Parse(must(r.Marshal())); err != nil || !again.Equal(r) {
			t.Errorf("%v became %v, %v", r, again, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k := newKeyring(b, must(NewRing(epoch)))
	place := []byte("secrets/default/a")
	for _, size := range []int{256, 1 << 10, 64 << 10} {
		plain := make([]byte, size)
		sealed := must(k.Seal(plain, place))
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, _ = k.Seal(plain, place)
			}
		})
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, _ = k.Open(sealed, place)
			}
		})
	}
}
