package transport

import (
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Kind is what bytes of links were for.
type Kind int

// The kinds.
const (
	KindControl Kind = iota // heartbeats and acknowledgements
	KindState               // what devices should have
	KindStatus              // what devices report
	KindEvents              // what happened on devices
	KindTunnel              // logs, exec, port-forward
	kinds
)

func (k Kind) String() string {
	return [...]string{"control", "state", "status", "events", "tunnel"}[k]
}

// Traffic is how many bytes went over links, as messages: what a carrier and the network add is not in it. Up is from devices.
type Traffic struct {
	Up, Down [kinds]uint64
}

// Total is the sum over the kinds.
func (t Traffic) Total() (up, down uint64) {
	for k := range kinds {
		up, down = up+t.Up[k], down+t.Down[k]
	}
	return up, down
}

// Kinds lists the kinds.
func Kinds() []Kind { return []Kind{KindControl, KindState, KindStatus, KindEvents, KindTunnel} }

// DeviceTraffic is that of one device.
type DeviceTraffic struct {
	Device   string
	Up, Down uint64
}

// meter counts.
type meter struct{ up, down [kinds]atomic.Uint64 }

func (m *meter) add(k Kind, up bool, n int) {
	if up {
		m.up[k].Add(uint64(n))
	} else {
		m.down[k].Add(uint64(n))
	}
}

func (m *meter) read() (t Traffic) {
	for k := range kinds {
		t.Up[k], t.Down[k] = m.up[k].Load(), m.down[k].Load()
	}
	return t
}

// Traffic returns the bytes of this hub's links so far, and those of the devices that had most, at most limit of them.
func (h *Hub) Traffic(limit int) (all Traffic, devices []DeviceTraffic) {
	for _, box := range h.all() {
		up, down := box.up.Load(), box.down.Load()
		devices = append(devices, DeviceTraffic{Device: box.device, Up: up, Down: down})
	}
	slices.SortFunc(devices, func(a, b DeviceTraffic) int {
		if a.Up+a.Down != b.Up+b.Down {
			if a.Up+a.Down > b.Up+b.Down {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Device, b.Device)
	})
	return h.meter.read(), slices.Clip(devices[:min(len(devices), limit)])
}

// Connected is how many devices have a link.
func (h *Hub) Connected() int {
	n := 0
	for _, box := range h.all() {
		if box.connected() {
			n++
		}
	}
	return n
}

// count takes note of bytes of a device's link.
func (b *mailbox) count(k Kind, up bool, n int) {
	b.hub.meter.add(k, up, n)
	if up {
		b.up.Add(uint64(n))
	} else {
		b.down.Add(uint64(n))
	}
}

func (b *mailbox) countMessage(e *linkpb.Envelope, up bool) {
	k := KindControl
	if e.Seq != 0 {
		k = KindState
		if up {
			k = KindStatus
			if len(e.Items) > 0 && strings.HasPrefix(e.Items[0].GetKey(), "events/") {
				k = KindEvents
			}
		}
	}
	b.count(k, up, proto.Size(e))
}
