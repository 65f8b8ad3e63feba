package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync"
	"time"
)

// ErrNotConnected says that a device has no link at the moment.
var ErrNotConnected = errors.New("the device is not connected")

// HubConfig configures a Hub. Epoch, Owner and Logger are required.
type HubConfig struct {
	// Epoch is the term of leadership; a device refuses a lower one than it has seen.
	Epoch  uint64
	Owner  Owner
	Logger *slog.Logger
	// Silence is how long a link may be silent before it is cut, unless the device has promised less. Default: 2m.
	Silence time.Duration
	// Retry is when an unacknowledged message is sent again. Default: 30s.
	Retry time.Duration
	// Syncs is how many devices may be given their whole state at once. Default: 16.
	Syncs int
}

// Hub is the control plane's end of all links, for one term of leadership.
type Hub struct {
	cfg   HubConfig
	syncs chan struct{}
	meter meter

	mu      sync.Mutex
	closed  bool
	boxes   map[string]*mailbox
	dials   map[string]*dial // by tunnel identifier
	running sync.WaitGroup
}

// NewHub returns a hub that accepts links at once; Run must be called too.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Silence == 0 {
		cfg.Silence = 2 * time.Minute
	}
	if cfg.Retry == 0 {
		cfg.Retry = 30 * time.Second
	}
	if cfg.Syncs == 0 {
		cfg.Syncs = 16
	}
	return &Hub{
		cfg:   cfg,
		syncs: make(chan struct{}, cfg.Syncs),
		boxes: make(map[string]*mailbox),
		dials: make(map[string]*dial),
	}
}

// lookEvery is how often links are looked at.
const lookEvery = 5 * time.Second

// spread is within how many milliseconds devices are to come back should they lose their links.
func (h *Hub) spread() uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return uint32(min(len(h.boxes)*spreadPerDevice, maxSpread))
}

// Run cuts links that fell silent. When ctx ends it closes all links and returns once they are over.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTicker(min(h.cfg.Silence/4, lookEvery))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, box := range h.all() {
				box.look(now)
			}
		case <-ctx.Done():
			h.mu.Lock()
			h.closed = true
			h.mu.Unlock()
			for _, box := range h.all() {
				box.kick()
			}
			h.running.Wait()
			return nil
		}
	}
}

// Serve runs one link of a device until it is over. A newer link of the same device ends it.
func (h *Hub) Serve(ctx context.Context, device string, conn Conn) error {
	box := h.box(device)
	if box == nil {
		return errClosed
	}
	defer h.running.Done()
	return box.serve(ctx, conn)
}

// Send queues changes of a device's desired state, coalesced by key. A device without a link gets its whole state, or what
// it lacks of it, when it connects: nothing is kept for it.
func (h *Hub) Send(device string, items []Item) {
	h.mu.Lock()
	box := h.boxes[device]
	h.mu.Unlock()
	if box != nil {
		box.send(items)
	}
}

// Kick cuts a device's link; the device comes back by itself if it may.
func (h *Hub) Kick(device string) {
	h.mu.Lock()
	box := h.boxes[device]
	h.mu.Unlock()
	if box != nil {
		box.kick()
	}
}

// Devices lists the devices that have a link.
func (h *Hub) Devices() []string {
	var out []string
	for _, box := range h.all() {
		if box.connected() {
			out = append(out, box.device)
		}
	}
	sort.Strings(out)
	return out
}

// Dial opens a byte stream to a device: the device is asked over its link and dials back.
func (h *Hub) Dial(ctx context.Context, device string) (net.Conn, error) {
	h.mu.Lock()
	box := h.boxes[device]
	h.mu.Unlock()
	if box == nil {
		return nil, fmt.Errorf("tunnel to %s: %w", device, ErrNotConnected)
	}
	return h.dial(ctx, box)
}

// box returns the device's mailbox, held by the running count, or nil when the hub is closed.
func (h *Hub) box(device string) *mailbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.running.Add(1)
	box := h.boxes[device]
	if box == nil {
		box = newMailbox(h, device)
		h.boxes[device] = box
	}
	return box
}

func (h *Hub) all() []*mailbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	boxes := make([]*mailbox, 0, len(h.boxes))
	for _, box := range h.boxes {
		boxes = append(boxes, box)
	}
	return boxes
}
