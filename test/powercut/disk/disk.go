// Package disk owns a disk whose power can fail: sectors with a volatile cache in front of them, a flush that makes the cache
// durable, and faults on demand. What a cut leaves of the cache is drawn from a seed.
package disk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

const (
	// Sector is what a disk writes as a whole even when its power fails.
	Sector = 512
	// Block is what a file system writes as a whole: a cut may tear one into sectors.
	Block = 4096
)

// Disk is one disk. Its methods may be called at the same time.
type Disk struct {
	mu      sync.Mutex
	durable []byte
	cache   map[int64][]write // what was written since the last flush, oldest first, by sector
	clock   uint64            // counts writes
	power   int               // counts the times that the power came on; odd while it is on
	ops     int               // writes and flushes since the power came on
	cutAt   int               // the operation that the power fails in, 0 for none
	rng     *rand.Rand
	onCut   func()
	watched watched
	fault   Fault
	lost    Loss
}

type write struct {
	at   uint64
	data []byte // one sector
}

// watched is a part of the disk of which a further write is the beginning of the end.
type watched struct {
	from, to int64 // bytes
	writes   int   // 0: none
	later    int   // operations between that write and the cut
}

// Fault is what a disk that has power refuses.
type Fault int

// The faults.
const (
	Healthy     Fault = iota
	WritesFail        // reads are answered, writes and flushes are not
	NothingGoes       // nothing is answered
)

// Loss tells what a cut left of the cache.
type Loss struct {
	Manner              string
	Op                  int // in which operation the power failed
	Kept, Dropped, Torn int // blocks
}

func (l Loss) String() string {
	return fmt.Sprintf("in disk operation %d, %s: %d blocks kept, %d dropped, %d torn", l.Op, l.Manner, l.Kept, l.Dropped, l.Torn)
}

// New makes a disk with a content. The power is off.
func New(content []byte) *Disk {
	return &Disk{durable: slices.Clone(content), cache: map[int64][]write{}}
}

// Size is in bytes.
func (d *Disk) Size() int64 { return int64(len(d.durable)) }

// PowerOn returns a connection that works until the power fails the next time.
func (d *Disk) PowerOn() *Port {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.power%2 == 0 {
		d.power++
	}
	d.ops, d.cutAt, d.watched = 0, 0, watched{}
	return &Port{disk: d, power: d.power}
}

// PlanCut makes the power fail in the given operation from now on, counted from 1. What is left of the cache is drawn from rng,
// and then is called once the power is gone.
func (d *Disk) PlanCut(op int, rng *rand.Rand, then func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt, d.rng, d.onCut = d.ops+op, rng, then
}

// PlanCutAt is PlanCut for a part of the disk, in bytes: the power fails in the nth write there from now on, or so many operations later.
func (d *Disk) PlanCutAt(from, to int64, nth, later int, rng *rand.Rand, then func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watched, d.rng, d.onCut = watched{from: from, to: to, writes: nth, later: later}, rng, then
}

// Cut makes the power fail now, as planned, if it has not already.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.power%2 == 1 && (d.cutAt > 0 || d.watched.writes > 0) {
		d.cut()
	}
}

// Lost tells of the latest cut.
func (d *Disk) Lost() Loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// Off ends the power with everything durable, as after an orderly shutdown.
func (d *Disk) Off() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flush()
	d.power += d.power % 2
}

// Content is what would be there after a power cut that drops the whole cache.
func (d *Disk) Content() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.durable)
}

// Break makes the disk refuse operations, until it is Healthy again.
func (d *Disk) Break(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// flush makes the cache durable.
func (d *Disk) flush() {
	for sector, writes := range d.cache {
		copy(d.durable[sector*Sector:], writes[len(writes)-1].data)
	}
	clear(d.cache)
}

// count counts an operation and says whether the power failed in it.
func (d *Disk) count() (failed bool) {
	d.ops++
	if d.ops != d.cutAt {
		return false
	}
	d.cut()
	return true
}

func (d *Disk) cut() {
	d.power++
	d.lost = Loss{Op: d.ops}
	d.settle()
	clear(d.cache)
	if d.onCut != nil {
		d.onCut()
	}
}

// settle decides what of the cache has reached the disk.
func (d *Disk) settle() {
	rng := d.rng
	chance := []float64{0.1, 0.5, 0.9}[rng.IntN(3)]
	switch manner := rng.IntN(6); manner {
	case 0:
		d.lost.Manner = "nothing of the cache written"
		chance = 0
	case 1:
		d.lost.Manner = "all of the cache written"
		chance = 1
	case 2:
		d.lost.Manner = "written in order up to a point"
		d.settleUntil(d.clock - rng.Uint64N(d.inCache()+1))
		return
	default:
		d.lost.Manner = fmt.Sprintf("written in no order, each with chance %.1f", chance)
	}
	blocks := map[int64][]int64{}
	for _, sector := range slices.Sorted(maps.Keys(d.cache)) {
		block := sector * Sector / Block
		blocks[block] = append(blocks[block], sector)
	}
	for _, block := range slices.Sorted(maps.Keys(blocks)) {
		torn := chance > 0 && chance < 1 && rng.IntN(4) == 0
		whole := rng.Float64() < chance
		for _, sector := range blocks[block] {
			writes := d.cache[sector]
			switch {
			case torn: // any of what was ever written here, or nothing
				if i := rng.IntN(len(writes) + 1); i > 0 {
					copy(d.durable[sector*Sector:], writes[i-1].data)
				}
			case whole:
				copy(d.durable[sector*Sector:], writes[len(writes)-1].data)
			}
		}
		switch {
		case torn:
			d.lost.Torn++
		case whole:
			d.lost.Kept++
		default:
			d.lost.Dropped++
		}
	}
}

// inCache is how many writes ago the oldest one in the cache was.
func (d *Disk) inCache() uint64 {
	oldest := d.clock
	for _, writes := range d.cache {
		oldest = min(oldest, writes[0].at-1)
	}
	return d.clock - oldest
}

func (d *Disk) settleUntil(last uint64) {
	kept, dropped := map[int64]bool{}, map[int64]bool{}
	for sector, writes := range d.cache {
		block := sector * Sector / Block
		for _, w := range writes {
			if w.at > last {
				dropped[block] = true
				break
			}
			kept[block] = true
			copy(d.durable[sector*Sector:], w.data)
		}
	}
	for block := range kept {
		if dropped[block] {
			d.lost.Torn++
			delete(dropped, block)
		} else {
			d.lost.Kept++
		}
	}
	d.lost.Dropped = len(dropped)
}

// Port is a connection to a disk for as long as the power stays on.
type Port struct {
	disk  *Disk
	power int
}

// Size is the disk's.
func (p *Port) Size() int64 { return p.disk.Size() }

// check says whether the port works. The caller holds the lock.
func (p *Port) check(writing bool, off, length int64) error {
	d := p.disk
	switch {
	case d.power != p.power, d.fault == NothingGoes, d.fault == WritesFail && writing:
		return syscall.EIO
	case off < 0 || length < 0 || off+length > d.Size() || off%Sector != 0 || length%Sector != 0:
		return syscall.EINVAL
	}
	return nil
}

// ReadAt reads whole sectors.
func (p *Port) ReadAt(b []byte, off int64) error {
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := p.check(false, off, int64(len(b))); err != nil {
		return err
	}
	copy(b, d.durable[off:])
	if len(d.cache) == 0 {
		return nil
	}
	for i := int64(0); i < int64(len(b)); i += Sector {
		if writes := d.cache[(off+i)/Sector]; writes != nil {
			copy(b[i:i+Sector], writes[len(writes)-1].data)
		}
	}
	return nil
}

// WriteAt writes whole sectors into the cache.
func (p *Port) WriteAt(b []byte, off int64) error {
	return p.write(slices.Clone(b), off)
}

// ZeroAt writes zeros into the cache.
func (p *Port) ZeroAt(off, length int64) error {
	if length > p.Size() {
		return syscall.EINVAL
	}
	return p.write(make([]byte, length), off)
}

func (p *Port) write(b []byte, off int64) error {
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := p.check(true, off, int64(len(b))); err != nil {
		return err
	}
	d.clock++
	for i := int64(0); i < int64(len(b)); i += Sector {
		sector := (off + i) / Sector
		d.cache[sector] = append(d.cache[sector], write{d.clock, b[i : i+Sector : i+Sector]})
	}
	if w := &d.watched; w.writes > 0 && off < w.to && off+int64(len(b)) > w.from {
		if w.writes--; w.writes == 0 {
			d.cutAt = d.ops + 1 + w.later
		}
	}
	if d.count() {
		return syscall.EIO
	}
	return nil
}

// Flush makes durable what was written.
func (p *Port) Flush() error {
	d := p.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := p.check(true, 0, 0); err != nil {
		return err
	}
	if d.count() { // on the way: some of it may be on the disk
		return syscall.EIO
	}
	d.flush()
	return nil
}
