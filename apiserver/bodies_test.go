package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestBodies: one user has half of the room at most, all together have all of it, and who waits gets what is given back.
func TestBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bodies{by: map[string]int64{}}
		ctx := t.Context()
		take := func(user string, n int64) func() {
			t.Helper()
			limited, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			release, err := b.take(limited, user, n)
			if err != nil && !apierrors.IsTooManyRequests(err) {
				t.Fatal(err)
			}
			return release
		}
		greedy := take("greedy", maxBodies/2)
		if greedy == nil || take("greedy", 1) != nil {
			t.Fatal("a user has more than half")
		}
		others := take("other", maxBodies/4)
		last := take("third", maxBodies/4)
		if others == nil || last == nil || take("fourth", 1) != nil {
			t.Fatal("all together have more than there is, or less")
		}
		got := make(chan func())
		go func() { got <- take("fourth", maxBodies/4) }()
		synctest.Wait()
		others()
		release := <-got
		if release == nil {
			t.Fatal("what was given back is not had by who waits")
		}
		for _, f := range []func(){greedy, last, release} {
			f()
		}
		if b.held != 0 || len(b.by) != 0 {
			t.Errorf("%d bytes are held by %v", b.held, b.by)
		}
	})
}

func TestReadUpTo(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data))} {
		head, err := readUpTo(r, nil, 100)
		if err != nil || len(head) != 100 {
			t.Fatalf("%s: %d bytes, %v", name, len(head), err)
		}
		all, err := readUpTo(r, head, 3<<20)
		if err != nil || !bytes.Equal(all, data) {
			t.Errorf("%s: %d bytes, %v", name, len(all), err)
		}
		if cap(all) > 3*len(all) {
			t.Errorf("%s: %d bytes of memory for %d", name, cap(all), len(all))
		}
	}
	if _, err := readUpTo(iotest.ErrReader(errors.New("cut")), nil, 10); !apierrors.IsBadRequest(err) {
		t.Errorf("got %v", err)
	}
}

func TestDepth(t *testing.T) {
	deep := bytes.Repeat([]byte(`{"a":[`), maxDepth)
	for text, want := range map[string]int{
		"": 0, "{}": 1, `{"a":[{}],"b":{}}`: 3, `{"a":"[[[{{{"}`: 1, `{"a\\\"[":"\\\\"}`: 1, `]]]{}`: 0, string(deep): maxDepth + 1,
	} {
		if got := depth([]byte(text)); got != want {
			t.Errorf("%.40s: %d, want %d", text, got, want)
		}
	}
}
