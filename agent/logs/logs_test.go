package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	e, err := Parse([]byte("2026-10-06T00:17:09.669794202Z stdout F hello  world \n"))
	if err != nil || e.Stream != "stdout" || e.Partial || string(e.Text) != "hello  world \n" || e.Time.Nanosecond() != 669794202 {
		t.Errorf("got %+v, %v", e, err)
	}
	e, err = Parse([]byte("2026-10-06T00:17:09Z stderr P:TAG part\n"))
	if err != nil || e.Stream != "stderr" || !e.Partial || string(e.Text) != "part" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{"", "x", "2026-10-06T00:17:09Z stdout F", "yesterday stdout F a\n", "2026-10-06T00:17:09Z stdin F a\n"} {
		if e, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v", bad, e)
		}
	}
}

func write(t *testing.T, file string, from, to int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for i := from; i < to; i++ {
		if _, err := fmt.Fprintf(f, "2026-01-01T00:00:%02dZ stdout F line %d\n", i%60, i); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file, 0, 5)
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"all":        {Options{Tail: -1}, "line 0\nline 1\nline 2\nline 3\nline 4\n"},
		"tail":       {Options{Tail: 2}, "line 3\nline 4\n"},
		"tail 0":     {Options{Tail: 0}, ""},
		"tail more":  {Options{Tail: 99}, "line 0\nline 1\nline 2\nline 3\nline 4\n"},
		"since":      {Options{Tail: -1, Since: at(3)}, "line 3\nline 4\n"},
		"timestamps": {Options{Tail: 1, Timestamps: true}, "2026-01-01T00:00:04Z line 4\n"},
		"limit":      {Options{Tail: -1, LimitBytes: 9}, "line 0\nli"},
		"stderr":     {Options{Tail: -1, Stream: "stderr"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Read(context.Background(), file, &out, tc.o); err != nil || out.String() != tc.want {
				t.Errorf("got %q, %v; want %q", out.String(), err, tc.want)
			}
		})
	}
}

func TestTailOfLargeFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file, 0, 5000)
	var out bytes.Buffer
	if err := Read(context.Background(), file, &out, Options{Tail: 1500}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); lines[0] != "line 3500" || len(lines) != 1501 {
		t.Errorf("the tail begins with %q and has %d lines", lines[0], len(lines)-1)
	}
}

// lines is a writer that tells of every line.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		select {
		case l.more <- struct{}{}:
		default:
		}
	}()
	return l.buf.Write(p)
}

func (l *lines) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		l.mu.Lock()
		got := l.buf.String()
		l.mu.Unlock()
		if strings.HasSuffix(got, want) {
			return
		}
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("got %q, want it to end with %q", got, want)
		}
	}
}

func TestFollow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file, 0, 2)
	out := &lines{more: make(chan struct{}, 1)}
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Read(context.Background(), file, out, Options{Tail: 1, Follow: true, Ended: ended}) }()
	out.await(t, "line 1\n")
	write(t, file, 2, 4)
	out.await(t, "line 3\n")

	rotated, err := Rotate(context.Background(), file, 10, func(context.Context) error {
		write(t, file, 4, 5)
		return nil
	})
	if err != nil || !rotated {
		t.Fatalf("rotate: %t, %v", rotated, err)
	}
	out.await(t, "line 4\n")
	write(t, file, 5, 6)
	out.await(t, "line 5\n")
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := out.buf.String(); strings.Count(got, "line") != 5 {
		t.Errorf("lines were lost or repeated: %q", got)
	}
}
