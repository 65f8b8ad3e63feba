package firmware_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
)

// board is a device of which only the parts matter that survive a power cut: the journal, the bootloader's record and the slots. The
// power may be cut before and after each write.
type board struct {
	t       *rapid.T
	journal firmware.Record
	boot    firmware.Boot
	tries   int
	slots   map[string]string // what each holds: "old", "good", "bad", "dead" or "torn"
	boots   int
	told    *firmwarev1.Assignment
	leave   bool
	// of the running system, gone with the power
	event  firmware.Event
	reason string
	halted bool // the restart is under way

	cuts, trials int
	early        int  // power cuts while something was tried; with as many as there are tries, they may have used them all up
	secret       bool // the bootloader does not tell that tries are spent
}

const tries = 3

type cut struct{}

// risk is a moment at which the power may go.
func (b *board) risk() {
	if b.cuts > 0 && rapid.IntRange(0, 5).Draw(b.t, "cut") == 0 {
		b.cuts--
		if b.boot.Trying != "" {
			b.early++
		}
		panic(cut{})
	}
}

func (b *board) other() string {
	if b.boot.Booted == "a" {
		return "b"
	}
	return "a"
}

// start is what the bootloader does. A power cut is not counted against the release by this one; panics and watchdogs are.
func (b *board) start() {
	b.boots++
	b.event, b.halted = firmware.NoEvent, false
	for {
		slot := b.boot.Default
		if b.boot.Trying != "" {
			if b.tries > 0 {
				b.tries--
				slot = b.boot.Trying
				b.trials++
			} else if !b.secret {
				b.boot.Spent = true
			} else {
				b.boot.Trying = "" // as a one-shot flag: nothing is left of it
			}
		}
		switch b.slots[slot] {
		case "torn":
			b.t.Fatalf("the bootloader was given slot %s, which is not whole", slot)
		case "dead": // a panic; the watchdog starts it again
			if slot == b.boot.Default {
				b.t.Fatal("nothing starts any more")
			}
			continue
		}
		b.boot.Booted = slot
		return
	}
}

// turn makes one step and carries it out. It reports whether there was anything to do.
func (b *board) turn() bool {
	in := firmware.Input{
		Record: b.journal, Boot: b.boot, BootID: fmt.Sprint(b.boots), PowerOn: true, Other: b.other(), Told: b.told, Leave: b.leave,
		Event: b.event, Reason: b.reason,
	}
	b.event, b.reason = firmware.NoEvent, ""
	record, action := firmware.Step(in)
	b.risk()
	b.journal = record
	b.risk()
	switch action {
	case firmware.Download:
		if record.Slot == b.boot.Booted || record.Slot == b.boot.Trying && !b.boot.Spent {
			b.t.Fatalf("it writes into slot %s, which runs or is tried: %+v", record.Slot, b.boot)
		}
		b.slots[record.Slot] = "torn"
		b.risk()
		b.slots[record.Slot] = record.Assignment.Version
		b.event = firmware.Finished
	case firmware.Ask:
		if b.leave {
			return true
		}
		b.leave = true
	case firmware.Arm:
		b.boot.Trying, b.boot.Spent, b.tries = record.Slot, false, tries
		b.risk()
		b.leave, b.event = false, firmware.Armed
	case firmware.Refill:
		b.tries = tries
		b.risk()
	case firmware.Judge:
		if b.slots[b.boot.Booted] == "good" {
			b.event = firmware.Healthy
		} else {
			b.event, b.reason = firmware.Unhealthy, "Unhealthy"
		}
	case firmware.Commit:
		b.boot = firmware.Boot{Booted: b.boot.Booted, Default: b.boot.Booted}
		b.risk()
		b.event = firmware.CommitDone
	case firmware.Revert:
		b.boot.Trying, b.boot.Spent = "", false
		b.risk()
		if b.boot.Booted != b.boot.Default {
			panic(cut{})
		}
	case firmware.Restart:
		panic(cut{})
	default:
		return false
	}
	return true
}

// live runs until nothing is left to do, through all power cuts.
func (b *board) live() {
	for life := 0; ; life++ {
		if life > 60 {
			b.t.Fatalf("it restarts for ever: %+v %+v", b.journal, b.boot)
		}
		if b.once() {
			return
		}
		b.start()
	}
}

func (b *board) once() (done bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
		}
	}()
	for turns := 0; b.turn(); turns++ {
		if turns > 100 {
			b.t.Fatalf("it turns round and round: %+v", b.journal)
		}
	}
	return true
}

// TestOldOrNewNeverNeither installs releases that work, that are unhealthy and that do not start at all, and cuts the power at any
// write. Whatever happens, what is booted is whole, and in the end a good release runs, and of a bad one the old one.
func TestOldOrNewNeverNeither(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &board{
			t: t, boot: firmware.Boot{Booted: "a", Default: "a"}, slots: map[string]string{"a": "good", "b": "torn"},
			secret: rapid.Bool().Draw(t, "secret"),
		}
		b.start()
		running := "good"
		for n := range rapid.IntRange(1, 4).Draw(t, "releases") {
			version := rapid.SampledFrom([]string{"good", "bad", "dead"}).Draw(t, "release")
			b.told = &firmwarev1.Assignment{
				ID: fmt.Sprint("a", n), Version: version, Counter: int64(n + 1), Artifact: firmwarev1.Artifact{SHA256: fmt.Sprint("sum", n)},
			}
			b.cuts, b.leave, b.trials, b.early = rapid.IntRange(0, 6).Draw(t, "cuts"), false, 0, 0
			b.live()
			state, at := b.journal.State, b.boot.Booted
			gaveUp := b.early >= tries && state == firmwarev1.RolledBack && b.slots[at] == running
			switch {
			case gaveUp:
			case version == "good" && (state != firmwarev1.Confirmed || b.slots[at] != "good" || b.journal.Slots[at].SHA256 != fmt.Sprint("sum", n)):
				t.Fatalf("a good release: %s in slot %s, %+v", state, at, b.journal)
			case version != "good" && (state != firmwarev1.RolledBack || b.slots[at] != running):
				t.Fatalf("a %s release: %s in slot %s, %+v", version, state, at, b.journal)
			case b.boot.Trying != "" || b.boot.Default != at:
				t.Fatalf("the bootloader is not at rest: %+v", b.boot)
			}
			// The same again is not tried again, unless a person says so.
			before := b.trials
			b.told = &firmwarev1.Assignment{ID: b.told.ID + "x", Version: version, Counter: b.told.Counter, Artifact: b.told.Artifact}
			b.cuts = 0
			b.live()
			if want := firmwarev1.Rejected; (version != "good" || gaveUp) && (b.journal.State != want || b.trials != before) {
				t.Fatalf("it tries a release again that it fell back from: %+v", b.journal)
			}
		}
	})
}

// TestLostJournal: with its journal gone, a device on trial goes back to what is known to work, and anything else stays.
func TestLostJournal(t *testing.T) {
	r, action := firmware.Step(firmware.Input{Boot: firmware.Boot{Booted: "b", Default: "a", Trying: "b"}, Other: "a"})
	if action != firmware.Revert || r.State != firmwarev1.RolledBack {
		t.Errorf("%v %+v", action, r)
	}
	r, action = firmware.Step(firmware.Input{Boot: firmware.Boot{Booted: "b", Default: "b"}, Other: "a"})
	if action != firmware.Nothing || r.State != firmwarev1.Idle {
		t.Errorf("%v %+v", action, r)
	}
}

// TestRefusals: what a device does not take.
func TestRefusals(t *testing.T) {
	for want, c := range map[string]struct {
		record  firmware.Record
		told    firmwarev1.Assignment
		refusal string
	}{
		"BelowFloor":     {record: firmware.Record{Floor: 6}, told: firmwarev1.Assignment{Counter: 5}},
		"Older":          {record: firmware.Record{Slots: map[string]firmware.Installed{"a": {Counter: 6}}}, told: firmwarev1.Assignment{Counter: 5}},
		"FellBackBefore": {record: firmware.Record{Tried: map[string]int32{"s": 1}}, told: firmwarev1.Assignment{Artifact: firmwarev1.Artifact{SHA256: "s"}}},
		"DataTooOld":     {told: firmwarev1.Assignment{DataSchema: &firmwarev1.DataSchema{Reads: 2, Writes: 3}}},
		"DataTooNew":     {record: firmware.Record{Schema: 4}, told: firmwarev1.Assignment{DataSchema: &firmwarev1.DataSchema{Reads: 2, Writes: 3}}},
		"NotTrusted":     {refusal: "the signature is wrong"},
	} {
		c.told.ID = "x"
		r, action := firmware.Step(firmware.Input{
			Record: c.record, Boot: firmware.Boot{Booted: "a", Default: "a"}, Other: "b", Told: &c.told, Refusal: c.refusal,
		})
		if action != firmware.Nothing || r.State != firmwarev1.Rejected || r.Reason != want || r.Message == "" {
			t.Errorf("%s: %v %+v", want, action, r)
		}
	}
}

// TestNoWayBack: when neither release is good, the device stays up.
func TestNoWayBack(t *testing.T) {
	in := firmware.Input{
		Record: firmware.Record{
			State: firmwarev1.Trial, Slot: "b", BootID: "1", Doomed: true, Reason: "Unhealthy",
			Assignment: &firmwarev1.Assignment{ID: "x"},
		},
		Boot: firmware.Boot{Booted: "b", Default: "a"}, BootID: "2", Other: "a", Told: &firmwarev1.Assignment{ID: "x"},
	}
	r, action := firmware.Step(in)
	if r.State != firmwarev1.Recovery || action != firmware.Nothing {
		t.Errorf("%v %+v", action, r)
	}
	in.Record = r
	if r, action = firmware.Step(in); r.State != firmwarev1.Recovery || action != firmware.Nothing {
		t.Errorf("%v %+v", action, r)
	}
}

func TestOther(t *testing.T) {
	if firmware.Other("a") != "b" || firmware.Other("b") != "a" {
		t.Fatal("the slots are a and b")
	}
}
