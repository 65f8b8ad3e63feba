package mqtt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func sealPair(t testing.TB, session uint32) (out, in *seal) {
	t.Helper()
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key)
	out, err := newSeal(session, key)
	if err != nil {
		t.Fatal(err)
	}
	in, err = newSeal(session, key)
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// TestSealRefuses has frames come twice, late, changed and with a gap before them.
func TestSealRefuses(t *testing.T) {
	out, in := sealPair(t, 7)
	frames := make([][]byte, 4)
	for i := range frames {
		frames[i] = out.close(message{kind: msgMail, data: []byte{byte(i)}})
	}
	take := func(frame []byte, want error) {
		t.Helper()
		if _, err := in.open(frame); !errors.Is(err, want) {
			t.Fatalf("error %v, want %v", err, want)
		}
	}
	take(frames[1], errGap)
	take(frames[0], nil)
	take(frames[0], errReplay)
	changed := bytes.Clone(frames[1])
	changed[len(changed)-1] ^= 1
	take(changed, errForged)
	renumbered := bytes.Clone(frames[2])
	renumbered[5] = 2
	take(renumbered, errForged)
	take(frames[1], nil)
	take(frames[0], errReplay)
	other, _ := sealPair(t, 8)
	take(other.close(message{kind: msgMail}), errStale)
	back, _ := sealPair(t, 7) // the same session, another key: what this end said itself
	take(back.close(message{kind: msgMail}), errReplay)
	take(frames[2], nil)
	take(frames[3], nil)
}

// FuzzFrame has any bytes come as a frame: nothing is taken, nothing panics, and no length in it is believed.
func FuzzFrame(f *testing.F) {
	out, _ := sealPair(f, 7)
	f.Add(out.close(message{kind: msgMail, data: []byte("x")}))
	f.Add([]byte{frameSealed, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add((&hello{kind: frameOpen, public: make([]byte, keySize), cert: []byte("c"), signature: []byte("s")}).encode())
	f.Add(append([]byte{frameOpen, version}, bytes.Repeat([]byte{0xff}, 60)...))
	f.Add(resetFrame(9))
	f.Fuzz(func(t *testing.T, frame []byte) {
		_, in := sealPair(t, 7)
		if _, err := in.open(frame); err == nil {
			t.Fatal("a frame was taken that nobody made")
		}
		if h, err := parseHello(frame); err == nil {
			if again := h.encode(); !bytes.Equal(again, frame) {
				t.Fatalf("read %x, wrote %x", frame, again)
			}
		}
		parseReset(frame)
	})
}

// FuzzMessage has any bytes come out of a frame, as from a device that was taken over.
func FuzzMessage(f *testing.F) {
	f.Add(appendMessage(nil, message{kind: msgChunk, stream: 3, credit: 2, data: []byte("data")}))
	f.Add([]byte{msgCredit, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{msgOpen, 1, 0, 'a'})
	f.Fuzz(func(t *testing.T, plain []byte) {
		m, err := parseMessage(plain)
		if err != nil {
			return
		}
		again, err := parseMessage(appendMessage(nil, m))
		if err != nil || again.kind != m.kind || again.stream != m.stream || again.credit != m.credit || !bytes.Equal(again.data, m.data) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		s := startSession(1, nil, nil, func([]byte) error { return nil }, func() {})
		s.opened = func(string, *stream) error { return nil }
		for range 3 {
			_ = s.handle(m) // bounded, whatever it is
		}
		if len(s.streams) > maxStreams || len(s.mail.in) > mailWindow+1 {
			t.Fatal("more is kept than may be")
		}
	})
}

// FuzzGuard has any bytes come from a broker, in pieces of any size: the guard lets no header pass that promises more than a
// packet may have, and says the same however the stream is cut.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{0x30, 3, 0, 1, 'a', 0xd0, 0}, uint8(2))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, uint8(1))
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x80, 0}, uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole, cut guard
		want, got := whole.pass(stream), true
		for rest := stream; len(rest) > 0 && got; {
			n := min(len(rest), int(size)+1)
			got = cut.pass(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Fatalf("in pieces %v, in one %v", got, want)
		}
		if want && whole.rest > maxPacket {
			t.Fatalf("%d bytes may follow", whole.rest)
		}
	})
}
