package memory_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestBulk has two tunnels send as fast as they may: together they keep to the rate, to the second, and the mailbox does not wait.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bulk, size = 16 << 10, 80 << 10
		network, owner, device := memory.NewNetwork(), transporttest.NewOwner(), transporttest.NewDevice()
		logger := slog.New(slog.DiscardHandler)
		hub, gate := transporttest.Lead(owner, transport.HubConfig{})
		network.Listen("server", gate)
		device.Serve = func(_ context.Context, conn net.Conn) { _, _ = conn.Write(make([]byte, size)) }
		link := transport.NewLink(transport.LinkConfig{
			Name: "a", Device: device, Carriers: []transport.Carrier{network.Carrier("a", "server")}, Logger: logger, Bulk: bulk,
		})
		ctx, cancel := context.WithCancel(context.Background())
		go hub.Run(ctx)
		go link.Run(ctx)
		synctest.Wait()
		began, done := time.Now(), make(chan int64)
		for range 2 {
			conn, err := hub.Dial(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn)
				done <- n
			}()
		}
		device.Report(link, "urgent", "1")
		time.Sleep(time.Millisecond)
		if owner.Reported("a")["urgent"] != "1" {
			t.Error("a report waited for the tunnels")
		}
		if a, b := <-done, <-done; a != size || b != size {
			t.Errorf("%d and %d bytes came, want %d each", a, b, size)
		}
		if took, want := time.Since(began), time.Duration(2*size/bulk)*time.Second; took < want-time.Second || took > want+time.Second {
			t.Errorf("it took %v, want %v", took, want)
		}
		if up, _ := func() (uint64, uint64) { all, _ := hub.Traffic(1); return all.Total() }(); up < 2*size {
			t.Errorf("%d bytes were counted", up)
		}
		cancel()
		network.Wait()
	})
}
