package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/uvarint"
)

const (
	// maxUntold and maxUntoldBytes bound the events that wait for the control plane.
	maxUntold      = 1000
	maxUntoldBytes = 512 << 10
	// patienceUntold is how long an event waits before it is written to the disk: with a link it is gone by then, and costs no write.
	patienceUntold = 5 * time.Second
)

// untold are the events that the control plane has not acknowledged, in their order. What waits for longer is on the disk, so that a
// device which was away for weeks, and was restarted, tells all of it with the times at which it happened. When there are too many, the
// oldest go, warnings last.
type untold struct {
	mu      sync.Mutex
	next    uint64
	waiting map[string]*untoldEvent // by the key of the report
	bytes   int
	saved   map[uint64]bool // what is on the disk, and may be there for nothing
}

type untoldEvent struct {
	item    transport.Item
	order   uint64
	since   time.Time // by the monotonic clock
	warning bool
}

func (e *untoldEvent) weight() int { return len(e.item.Key) + len(e.item.Value) }

func newUntold() *untold {
	return &untold{waiting: map[string]*untoldEvent{}, saved: map[uint64]bool{}}
}

// add adds an event, in the place of the one with the same key.
func (u *untold) add(item transport.Item, warning bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(item.Key)
	u.next++
	u.put(item, u.next, warning)
	for len(u.waiting) > maxUntold || u.bytes > maxUntoldBytes && len(u.waiting) > 1 {
		u.remove(u.least().item.Key)
	}
}

func (u *untold) put(item transport.Item, order uint64, warning bool) {
	e := &untoldEvent{item: item, order: order, since: time.Now(), warning: warning}
	u.waiting[item.Key] = e
	u.bytes += e.weight()
}

func (u *untold) remove(key string) {
	if e := u.waiting[key]; e != nil {
		delete(u.waiting, key)
		u.bytes -= e.weight()
	}
}

// least is what is given up first.
func (u *untold) least() (least *untoldEvent) {
	for _, e := range u.waiting {
		if least == nil || least.warning && !e.warning || least.warning == e.warning && e.order < least.order {
			least = e
		}
	}
	return least
}

// delivered forgets what the control plane has acknowledged, and reports whether the disk has some of it. What has happened again
// meanwhile still waits.
func (u *untold) delivered(items []transport.Item) (onDisk bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, item := range items {
		if e := u.waiting[item.Key]; e != nil && bytes.Equal(e.item.Value, item.Value) {
			u.remove(item.Key)
			onDisk = onDisk || u.saved[e.order]
		}
	}
	return onDisk
}

// changes are what has to be written to the disk now. all: also what waits for a moment only.
func (u *untold) changes(all bool) map[string][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	changes := map[string][]byte{}
	present := map[uint64]bool{}
	for _, e := range u.waiting {
		present[e.order] = true
		if !u.saved[e.order] && (all || time.Since(e.since) >= patienceUntold) {
			changes[orderKey(e.order)] = encodeUntold(e)
		}
	}
	for order := range u.saved {
		if !present[order] {
			changes[orderKey(order)] = nil
		}
	}
	return changes
}

// wrote notes that changes are on the disk.
func (u *untold) wrote(changes map[string][]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, value := range changes {
		if order := binary.BigEndian.Uint64([]byte(key)); value == nil {
			delete(u.saved, order)
		} else {
			u.saved[order] = true
		}
	}
}

// load takes what the disk has, before anything is added.
func (u *untold) load(d *database) {
	u.mu.Lock()
	defer u.mu.Unlock()
	d.each(bucketEvents, "", func(key string, value []byte) {
		if len(key) != 8 {
			return
		}
		u.next = binary.BigEndian.Uint64([]byte(key)) // they come sorted
		u.saved[u.next] = true
		if item, warning, ok := decodeUntold(value); ok { // what is damaged goes with the next write
			u.put(item, u.next, warning)
		}
	})
}

// all is what waits, in its order.
func (u *untold) all() (items []transport.Item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range slices.SortedFunc(maps.Values(u.waiting), func(a, b *untoldEvent) int { return cmp.Compare(a.order, b.order) }) {
		items = append(items, e.item)
	}
	return items
}

// orderKey makes keys that sort as they are numbered.
func orderKey(order uint64) string { return string(binary.BigEndian.AppendUint64(nil, order)) }

// encodeUntold: whether it is a warning, the length of the key, the key, the value.
func encodeUntold(e *untoldEvent) []byte {
	var warning byte
	if e.warning {
		warning = 1
	}
	return append(uvarint.Append([]byte{warning}, e.item.Key), e.item.Value...)
}

func decodeUntold(b []byte) (item transport.Item, warning, ok bool) {
	r := uvarint.Reader{Rest: b}
	warning, item.Key = r.Byte() == 1, r.String()
	item.Value = bytes.Clone(r.Rest)
	return item, warning, !r.Bad
}

// tell reports an event, for as long as the control plane has not acknowledged it.
func (a *Agent) tell(item transport.Item, warning bool) {
	a.untold.add(item, warning)
	a.mu.Lock()
	report := a.report
	a.mu.Unlock()
	if report != nil {
		report(item)
	}
	wake(a.telling)
}

// keepUntold tells again what was told before this start, and keeps on the disk what waits.
func (a *Agent) keepUntold(ctx context.Context) {
	a.mu.Lock()
	report := a.report
	a.mu.Unlock()
	if report != nil {
		report(a.untold.all()...)
	}
	afterwards(ctx, a.telling, patienceUntold+time.Second, func() { a.writeUntold(false) })
}

func (a *Agent) writeUntold(all bool) {
	changes := a.untold.changes(all)
	if len(changes) == 0 {
		return
	}
	if err := a.db.put(bucketEvents, changes); err != nil {
		a.c.Logger.Error("events are not saved", "err", err)
		return
	}
	a.untold.wrote(changes)
}
