package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/uvarint"
)

// inMemory lets a test open files thousands of times without a disk, where the system has a folder for that.
func inMemory(t *testing.T) {
	t.Helper()
	const folder = "/dev/shm"
	if _, err := os.Stat(folder); err == nil {
		t.Setenv("TMPDIR", folder)
	}
}

// usedLog makes a log of several segments, some of them in their second use, one of them free and one that is too large to be usual.
// Its last batch has an entry, unless it is sealed.
func usedLog(t testing.TB, seal bool) (dir string, want *modelLog) {
	t.Helper()
	dir = t.TempDir()
	log := openSmall(t, dir)
	log.flush = func(*segment) error { return nil } // this test cuts no power
	want = &modelLog{state: map[string]string{keyCluster: "cluster", keyTerm: "3"}}
	store := func(from, to uint64, size int) {
		for i := from; i <= to; i++ {
			e := entryFor(i, 1, size)
			want.append(e)
			if err := log.StoreLog(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(first, last uint64) {
		want.remove(first, last)
		if err := log.DeleteRange(first, last); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(log.Set([]byte(keyCluster), []byte("cluster")), log.Set([]byte(keyTerm), []byte("3"))); err != nil {
		t.Fatal(err)
	}
	store(1, 60, 300)
	remove(1, 40)
	store(61, 90, 5000)
	store(91, 91, 40_000)
	store(92, 100, 300)
	remove(98, 100)
	store(98, 104, 700)
	remove(41, 80)
	store(105, 106, 700)
	if wrong := want.differs(log); wrong != "" {
		t.Fatal(wrong)
	}
	if seal {
		log.seal()
	}
	if len(log.chain) < 4 || len(log.free) < 2 {
		t.Fatalf("%d segments in use, %d free", len(log.chain), len(log.free))
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	return dir, want
}

// openSmall makes a log with small segments in a folder, or opens it.
func openSmall(t interface{ Fatal(...any) }, dir string) *logStore {
	const sectors = 8 * blockSectors
	path := filepath.Join(dir, logFile)
	found, err := exists(path)
	if err == nil && !found {
		err = createLog(path, sectors, map[string][]byte{}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	log, err := openLog(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	log.usual = sectors
	return log
}

// look opens a log and says what became of it: damaged, in doubt, or whole. Anything else fails the test.
func look(t testing.TB, dir string, want *modelLog, what string) string {
	t.Helper()
	log, err := openLog(dir, true)
	if isDamaged(err) {
		return "damaged"
	}
	if err != nil {
		t.Fatalf("%s: not a DamagedError: %v", what, err)
	}
	defer log.close()
	wrong := want.differs(log)
	if log.doubt != nil {
		before := want.clone() // the newest write may be gone, no other
		before.remove(want.last(), want.last())
		if wrong != "" && before.differs(log) != "" {
			t.Errorf("%s: more than the newest write is gone: %s", what, wrong)
		}
		return "doubt"
	}
	if wrong != "" {
		t.Errorf("%s: it goes unnoticed that %s", what, wrong)
	}
	return "whole"
}

// TestEverySector damages the sectors of all files of a log, one at a time: a bit in its head, one in its content, zeros.
func TestEverySector(t *testing.T) {
	inMemory(t)
	for _, seal := range []bool{false, true} {
		dir, want := usedLog(t, seal)
		files, err := filepath.Glob(filepath.Join(dir, logFile, "*"))
		if err != nil {
			t.Fatal(err)
		}
		became := map[string]int{}
		for _, path := range files {
			sound, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(sound); at += sectorSize {
				for kind, do := range map[string]func([]byte){
					"a flipped bit of its number": func(b []byte) { b[11] ^= 1 },
					"a flipped bit":               func(b []byte) { b[400] ^= 8 },
					"zeros":                       func(b []byte) { clear(b) },
				} {
					if at%blockSize != 0 && (at/sectorSize%3 > 0 || kind != "a flipped bit") {
						continue // no other sector of a block is special
					}
					b := bytes.Clone(sound)
					do(b[at : at+sectorSize])
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Fatal(err)
					}
					became[look(t, dir, want, fmt.Sprintf("%s, sector %d, %s", filepath.Base(path), at/sectorSize, kind))]++
				}
			}
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("sealed: %t, became: %v", seal, became)
		if len(became) != 3 {
			t.Errorf("some of it never happened: %v", became)
		}
		if got := look(t, dir, want, "as it was"); got != "whole" {
			t.Errorf("it stays %s", got)
		}
	}
}

// TestEveryFile damages each file of a log in every way that TestRepair knows: nothing of it goes unnoticed.
func TestEveryFile(t *testing.T) {
	inMemory(t)
	dir, want := usedLog(t, true)
	files, err := filepath.Glob(filepath.Join(dir, logFile, "*"))
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]bool{}
	log, err := openLog(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range log.chain {
		needed[s.path()] = true
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		sound, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range damages() {
			if kind.name == "bits flipped" || kind.name == "newest write flipped" {
				continue // see TestEverySector
			}
			damage(t, path, kind.do)
			what := fmt.Sprintf("%s, %s", filepath.Base(path), kind.name)
			if got := look(t, dir, want, what); needed[path] && got != "damaged" {
				t.Errorf("%s: it is %s", what, got)
			}
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := look(t, dir, want, "as it was"); got != "whole" {
		t.Errorf("it stays %s", got)
	}
}

// TestDoubtStays has a log whose end is not sure, and a server that stops before it has acted on that. Once it has, all is sound.
func TestDoubtStays(t *testing.T) {
	dir, _ := usedLog(t, false)
	path := pathOf(t, dir, logFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, flipNewestBatch(content), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *logStore {
		t.Helper()
		log, err := openLog(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	log := open()
	if log.doubt == nil {
		t.Fatal("no doubt")
	}
	if err := errors.Join(log.Set([]byte(keyTerm), []byte("4")), log.close()); err != nil {
		t.Fatal(err)
	}
	log = open()
	if log.doubt == nil {
		t.Fatal("the doubt is gone after a write")
	}
	log.settleDoubt()
	if err := errors.Join(log.Set([]byte(keyTerm), []byte("5")), log.close()); err != nil {
		t.Fatal(err)
	}
	if log = open(); log.doubt != nil {
		t.Errorf("it stays: %v", log.doubt)
	}
	defer log.close()
	scan, err := scanLog(log.path)
	if err != nil {
		t.Fatal(err)
	}
	defer scan.close()
	for id, sectors := range scan.sectors {
		for i, s := range sectors {
			if s.bad {
				t.Errorf("sector %d of segment %d is still bad", i, id)
			}
		}
	}
}

// TestFullDiskLeavesRoom has a disk that takes no new files: entries are refused, but not votes, what a new leader begins with, and
// the removal of entries, after which there is room again.
func TestFullDiskLeavesRoom(t *testing.T) {
	log, err := openLog(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	log.flush = func(*segment) error { return nil }
	next := uint64(1)
	add := func(kind hraft.LogType, size int) error {
		err := log.StoreLog(&hraft.Log{Index: next, Term: 1, Type: kind, Data: make([]byte, size)})
		if err == nil {
			next++
		}
		return err
	}
	for len(log.chain) < 2 {
		if err := add(hraft.LogCommand, 5000); err != nil {
			t.Fatal(err)
		}
	}
	log.create = func(string, uint64, uint32, []byte) (*segment, error) {
		return nil, &fs.PathError{Op: "write", Path: "new", Err: syscall.ENOSPC}
	}
	for err == nil {
		err = add(hraft.LogCommand, 5000)
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	for i := range 5 {
		vote := errors.Join(log.Set([]byte(keyVoteTerm), fmt.Append(nil, i)), log.Set([]byte(keyVoteFor), []byte("s0")))
		if err := errors.Join(vote, add(hraft.LogNoop, 0)); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
	}
	if err := add(hraft.LogCommand, 5000); !errors.Is(err, store.ErrFull) {
		t.Errorf("the room for votes is given to an entry: %v", err)
	}
	first, _ := log.FirstIndex()
	if err := log.DeleteRange(first, next-2); err != nil {
		t.Fatal(err)
	}
	checkEdges(t, log, next-1, next-1)
	for range 20 {
		if err := add(hraft.LogCommand, 5000); err != nil {
			t.Fatalf("after the removal: %v", err)
		}
	}
}

// TestLogIsReused writes much more than a log keeps: there are no more files than are needed.
func TestLogIsReused(t *testing.T) {
	log, err := openLog(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	log.flush = func(*segment) error { return nil }
	const most = 5 // what is kept, what is written between two removals, and where the log goes on
	next := uint64(1)
	for range 12 {
		for range 40 {
			var entries []*hraft.Log
			for range 64 {
				entries = append(entries, &hraft.Log{Index: next, Term: 1, Data: make([]byte, 700)})
				next++
			}
			if err := log.StoreLogs(entries); err != nil {
				t.Fatal(err)
			}
		}
		first, _ := log.FirstIndex()
		if err := log.DeleteRange(first, next-100); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(log.path, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > most {
			t.Errorf("after %d entries there are %d files", next-1, len(files))
		}
	}
}

func FuzzDecodeBatch(f *testing.F) {
	k := logKey(7)
	b := logBatch{prev: 3, tail: 2, first: 5, last: 7, next: 4, segments: []uint64{2, 4}, state: map[string][]byte{"a": {1}}, entries: 1}
	f.Add(uvarint.Append(b.encode(nil), encodeEntry(k[:], &hraft.Log{Index: 7, Term: 3, Data: []byte("data")})))
	f.Add((&logBatch{sealed: true, tail: 1, segments: []uint64{1}}).encode(nil))
	f.Fuzz(func(t *testing.T, content []byte) {
		b, err := decodeBatch(content, checkEntry)
		if err != nil {
			return
		}
		if uint64(len(b.places)) != b.entries {
			t.Fatalf("%d places for %d entries", len(b.places), b.entries)
		}
		again := b.encode(nil)
		for _, p := range b.places {
			again = uvarint.Append(again, content[p.at:p.at+p.size])
		}
		c, err := decodeBatch(again, checkEntry)
		b.places, b.segments = nil, append([]uint64{}, b.segments...)
		if err == nil {
			c.places, c.segments = nil, append([]uint64{}, c.segments...)
		}
		if diff := cmp.Diff(b, c, cmp.AllowUnexported(logBatch{}, segment{}, place{})); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// FuzzReadSector never takes a sector for that of another place.
func FuzzReadSector(f *testing.F) {
	f.Add(packBatch(nil, 3, 16, 9, []byte("content"))[:sectorSize])
	f.Add(blankSectors(3, 16, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < sectorSize {
			return
		}
		b = b[:sectorSize]
		s := readSector(b, 3, 16)
		if s.bad {
			return
		}
		again := bytes.Clone(b)
		if frameSector(again, 3, 16, s); !bytes.Equal(again, b) {
			t.Errorf("%+v is written in another way", s)
		}
		if !readSector(b, 3, 17).bad || !readSector(b, 4, 16).bad {
			t.Error("it is sound in another place")
		}
	})
}
