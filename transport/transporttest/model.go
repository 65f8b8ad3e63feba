// Package transporttest owns the one suite that every carrier must pass, and the model device and owner that it uses.
package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"

	"github.com/shoal-edge/shoal/transport"
)

// Device is a model of a device: a map that it is sent, a map that it reports, and a record of what was applied. Its
// tunnels send back what they receive, unless Serve is set.
type Device struct {
	Serve func(ctx context.Context, conn net.Conn)

	mu         sync.Mutex
	epoch, seq uint64
	desired    map[string]string
	status     map[string]string
	applied    []Applied
	wrong      error
	hold       chan struct{} // Apply waits for it to be closed; nil: not
}

// Applied is one call of Apply.
type Applied struct {
	Epoch, Seq uint64
	Full       bool
	Items      int
}

// NewDevice returns a device with nothing on its disk.
func NewDevice() *Device { return &Device{desired: map[string]string{}, status: map[string]string{}} }

// Position implements transport.Device.
func (d *Device) Position() (epoch, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch, d.seq
}

// Apply implements transport.Device; a message that comes twice, out of order or with a gap is a failure of the test.
func (d *Device) Apply(ctx context.Context, epoch, seq uint64, full bool, items []transport.Item) error {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch < d.epoch || (epoch == d.epoch && seq <= d.seq) || (epoch != d.epoch && !full) {
		d.wrong = errors.Join(d.wrong, fmt.Errorf("at %d/%d got %d/%d, full %v", d.epoch, d.seq, epoch, seq, full))
	}
	d.epoch, d.seq = epoch, seq
	d.applied = append(d.applied, Applied{Epoch: epoch, Seq: seq, Full: full, Items: len(items)})
	apply(d.desired, full, items)
	return nil
}

// Status implements transport.Device.
func (d *Device) Status() []transport.Item {
	d.mu.Lock()
	defer d.mu.Unlock()
	return list(d.status)
}

// ServeTunnel implements transport.Device.
func (d *Device) ServeTunnel(ctx context.Context, conn net.Conn) {
	if d.Serve != nil {
		d.Serve(ctx, conn)
		return
	}
	io.Copy(conn, conn)
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, conn)
}

// Hold makes Apply wait until the returned function is called.
func (d *Device) Hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hold := make(chan struct{})
	d.hold = hold
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.hold = nil
		d.mu.Unlock()
		close(hold)
	})
}

// Report sets a part of the status, as the agent does: first on its disk, then on the link.
func (d *Device) Report(link *transport.Link, key, value string) {
	d.mu.Lock()
	d.status[key] = value
	d.mu.Unlock()
	link.Report(transport.Item{Key: key, Value: []byte(value)})
}

// Desired, Applied and Wrong are what the device has seen.
func (d *Device) Desired() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.desired)
}

// Applied returns the calls of Apply so far.
func (d *Device) Applied() []Applied {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Applied(nil), d.applied...)
}

// Wrong is what was applied against the rules.
func (d *Device) Wrong() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wrong
}

// Owner is a model of the dispatcher: a desired and a reported map for each device.
type Owner struct {
	mu       sync.Mutex
	desired  map[string]map[string]string
	reported map[string]map[string]string
	counts   map[string]int // reports by device and key
	up       map[string]int
	heard    map[string]int
	hub      *transport.Hub
}

// NewOwner returns an owner that wants nothing.
func NewOwner() *Owner {
	return &Owner{
		desired: map[string]map[string]string{}, reported: map[string]map[string]string{},
		counts: map[string]int{}, up: map[string]int{}, heard: map[string]int{},
	}
}

// Use has changes sent through a hub.
func (o *Owner) Use(hub *transport.Hub) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hub = hub
}

// Set changes one value of a device's desired state; an empty value deletes it.
func (o *Owner) Set(device, key, value string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.desired[device] == nil {
		o.desired[device] = map[string]string{}
	}
	item := transport.Item{Key: key, Value: []byte(value), Deleted: value == ""}
	apply(o.desired[device], false, []transport.Item{item})
	if o.hub != nil {
		o.hub.Send(device, []transport.Item{item})
	}
}

// Connected implements transport.Owner.
func (o *Owner) Connected(device string) []transport.Item {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up[device]++
	return list(o.desired[device])
}

// Heard implements transport.Owner.
func (o *Owner) Heard(device string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard[device]++
}

// Report implements transport.Owner.
func (o *Owner) Report(_ context.Context, device string, full bool, items []transport.Item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reported[device] == nil {
		o.reported[device] = map[string]string{}
	}
	apply(o.reported[device], full, items)
	for _, item := range items {
		o.counts[device+" "+item.Key]++
	}
	return nil
}

// Disconnected implements transport.Owner.
func (o *Owner) Disconnected(device string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up[device]--
}

// Wanted and Reported are the maps of one device.
func (o *Owner) Wanted(device string) map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.desired[device])
}

// Reported returns what the device has reported.
func (o *Owner) Reported(device string) map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.reported[device])
}

// Count is how often a key of a device was reported.
func (o *Owner) Count(device, key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[device+" "+key]
}

// Heartbeats is how many messages of a device were heard.
func (o *Owner) Heartbeats(device string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heard[device]
}

// Up is 1 while the device's link is up.
func (o *Owner) Up(device string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.up[device]
}

func apply(to map[string]string, full bool, items []transport.Item) {
	if full {
		clear(to)
	}
	for _, item := range items {
		if item.Deleted {
			delete(to, item.Key)
		} else {
			to[item.Key] = string(item.Value)
		}
	}
}

func list(from map[string]string) []transport.Item {
	items := make([]transport.Item, 0, len(from))
	for key, value := range from {
		items = append(items, transport.Item{Key: key, Value: []byte(value)})
	}
	return items
}
