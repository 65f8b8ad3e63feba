package transport

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	tunnelTimeout = 15 * time.Second
	// maxTunnels bounds the tunnels of a device that are being opened, and those that it serves.
	maxTunnels = 64
)

// dial is a tunnel that the hub has asked for.
type dial struct {
	device string
	conn   chan net.Conn // holds one
}

func (h *Hub) dial(ctx context.Context, box *mailbox) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tunnelTimeout)
	defer cancel()
	id, d := tunnelID(), &dial{device: box.device, conn: make(chan net.Conn, 1)}
	h.mu.Lock()
	h.dials[id] = d
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.dials, id)
		h.mu.Unlock()
	}()
	gone, err := box.ask(id)
	if err != nil {
		return nil, fmt.Errorf("tunnel to %s: %w", box.device, err)
	}
	select {
	case conn := <-d.conn:
		return conn, nil
	case <-gone:
		err = ErrNotConnected
	case <-ctx.Done():
		err = ctx.Err()
	}
	h.mu.Lock()
	delete(h.dials, id)
	h.mu.Unlock()
	select { // it may have come at the same moment
	case conn := <-d.conn:
		return conn, nil
	default:
		return nil, fmt.Errorf("tunnel to %s: %w", box.device, err)
	}
}

// AcceptTunnel hands a byte stream that a device opened to the Dial that asked for it. With an error the carrier closes
// the stream.
func (h *Hub) AcceptTunnel(device, id string, conn net.Conn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.dials[id]
	if d == nil || d.device != device {
		return errors.New("transport: nobody asked for this tunnel")
	}
	delete(h.dials, id)
	if tunnel, ok := conn.(*Tunnel); ok {
		if box := h.boxes[device]; box != nil {
			tunnel.note(func(up bool, n int) { box.count(KindTunnel, up, n) })
		}
	}
	d.conn <- conn
	return nil
}

func tunnelID() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
