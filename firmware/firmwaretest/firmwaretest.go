// Package firmwaretest owns what tests of firmware share: a device that is taken through a download, and a server that counts.
package firmwaretest

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
)

// Runs is the part of a backend that boots: slot a runs, and nothing else ever will.
type Runs struct{}

// Name implements firmware.Backend, as do the others.
func (Runs) Name() string { return "test" }

// Boot says that slot a runs.
func (Runs) Boot(context.Context) (firmware.Boot, error) {
	return firmware.Boot{Booted: "a", Default: "a"}, nil
}

// Arm does nothing, as do the others.
func (Runs) Arm(context.Context, string, int) error { return nil }

// Refill does nothing.
func (Runs) Refill(context.Context, int) error { return nil }

// Commit does nothing.
func (Runs) Commit(context.Context) error { return nil }

// Revert does nothing.
func (Runs) Revert(context.Context) error { return nil }

// Restart does nothing.
func (Runs) Restart(context.Context) error { return nil }

// Download has a device fetch a release until it is staged or given up, or for so long, and returns the last status.
func Download(tb testing.TB, cfg firmware.Config, a *firmwarev1.Assignment, most time.Duration) (last firmwarev1.DeviceFirmwareStatus) {
	tb.Helper()
	done := make(chan struct{})
	finish := sync.OnceFunc(func() { close(done) })
	cfg.Report = func(s firmwarev1.DeviceFirmwareStatus) {
		if s.Percent > 100 {
			tb.Errorf("%d %% are done", s.Percent)
		}
		if last = s; s.State != firmwarev1.Idle && s.State != firmwarev1.Downloading {
			finish()
		}
	}
	d, err := firmware.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), most)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	d.Tell(&firmwarev1.DeviceFirmwareSpec{Assignment: a}, nil)
	select {
	case <-done:
	case <-ctx.Done():
	}
	cancel()
	if err := <-ended; err != nil {
		tb.Fatal(err)
	}
	return last
}

// Counted is a handler that counts the bytes of the bodies that it sends.
func Counted(h http.Handler, sent *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&counter{w, sent}, r) })
}

type counter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
