package raft

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/uvarint"
)

// -golden writes the snapshot of the present format. A format that was released never changes again: a new one gets a new file.
var writeGolden = flag.Bool("golden", false, "write the golden snapshot of the present format")

// golden is what every golden snapshot has.
func golden() (header, []store.Item) {
	items := []store.Item{
		{Key: key("empty"), Revision: 3, Value: []byte{}},
		{Key: key("large"), Revision: 7, Value: bytes.Repeat([]byte("0123456789abcdef"), 1024)},
		{Key: store.Key{Resource: "deployments.apps", Namespace: "default", Name: "web"}, Revision: 41, Value: []byte("a deployment")},
		{Key: store.Key{Resource: "nodes", Name: "board-1"}, Revision: 40, Value: []byte{0, 1, 2, 0xff}},
	}
	return header{
		Index: 40, Term: 3, Revision: 41, Count: uint64(len(items)), ConfigurationIndex: 1, Shift: shift{1, 2}, Saved: 1_700_000_000,
		Cluster: ClusterID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Configuration: hraft.Configuration{Servers: []hraft.Server{
			{ID: "s0", Address: "192.0.2.1:6443"}, {Suffrage: hraft.Nonvoter, ID: "s1", Address: "192.0.2.2:6443"},
		}},
	}, items
}

// streamOf makes a snapshot of a header and items.
func streamOf(t testing.TB, head header, items []store.Item) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := createCheckpoint(filepath.Join(dir, checkpointFile), head, items); err != nil {
		t.Fatal(err)
	}
	c, err := openCheckpoint(dir, store.New(store.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.stream()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(s)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenSnapshots(t *testing.T) {
	head, items := golden()
	current := filepath.Join("testdata", fmt.Sprintf("format-%d.snapshot", SnapshotFormat))
	if *writeGolden {
		if err := os.WriteFile(current, streamOf(t, head, items), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(current); err != nil || !bytes.Equal(data, streamOf(t, head, items)) {
		t.Errorf("this code writes another format than %s (%v): it needs a new version", current, err)
	}
	files, err := filepath.Glob("testdata/*.snapshot")
	if err != nil || len(files) < SnapshotFormat {
		t.Fatalf("%d golden snapshots, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := InspectSnapshot(bytes.NewReader(data))
		if err != nil || info.Cluster != head.Cluster || info.Revision != 41 || info.Term != 5 || info.Saved.Unix() != 1_700_000_000 {
			t.Errorf("%s: %+v, %v", file, info, err)
		}
		want := []SnapshotResource{{"configmaps", 2, 16384}, {"deployments.apps", 1, 12}, {"nodes", 1, 4}}
		if diff := cmp.Diff(want, info.Resources); diff != "" || info.Objects != 4 || info.Bytes != 16400 {
			t.Errorf("%s (-want +have):\n%s", file, diff)
		}
		dir := filepath.Join(t.TempDir(), "raft")
		if _, _, err := RestoreFolder(dir, bytes.NewReader(data), Server{ID: "s0", Address: "x:1"}); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		s := store.New(store.Config{})
		if _, err := openCheckpoint(dir, s); err != nil {
			t.Fatal(err)
		}
		expected := map[string]string{}
		for _, item := range items {
			expected[item.Key.String()] = string(item.Value)
		}
		if diff := cmp.Diff(expected, values(s)); diff != "" {
			t.Errorf("%s restored (-want +have):\n%s", file, diff)
		}
	}
}

// TestUnknownVersionsAreErrors meets what a later shoal may write: never a silent skip.
func TestUnknownVersionsAreErrors(t *testing.T) {
	head, items := golden()
	sound := streamOf(t, head, items)
	later := bytes.Clone(sound)
	later[len(streamMagic)-1]++
	if _, err := InspectSnapshot(bytes.NewReader(later)); err == nil || !strings.Contains(err.Error(), "not a snapshot") {
		t.Errorf("a later stream: %v", err)
	}
	encoded := encodeHeader(head)
	encoded[0]++
	body := encoded[:len(encoded)-crcSize]
	binary.BigEndian.PutUint32(encoded[len(body):], checksum(body))
	if _, err := decodeHeader(encoded); err == nil || !strings.Contains(err.Error(), "unknown version 2") {
		t.Errorf("a later header: %v", err)
	}
	if _, err := decodePart(appendPartHead(nil, 77, [16]byte{}, 0)); !errors.Is(err, errRecord) || !strings.Contains(err.Error(), "kind 77") {
		t.Errorf("a later part: %v", err)
	}
	batch := (&logBatch{tail: 1, segments: []uint64{1}}).encode(nil)
	batch[0]++
	if _, err := decodeBatch(batch, checkEntry); err == nil || !strings.Contains(err.Error(), "unknown version 2") {
		t.Errorf("a later batch: %v", err)
	}
	k := logKey(1)
	entry := encodeEntry(k[:], &hraft.Log{Index: 1})
	entry[0]++
	binary.BigEndian.PutUint32(entry[len(entry)-crcSize:], checksum(k[:], entry[:len(entry)-crcSize]))
	if err := decodeEntry(k[:], entry, &hraft.Log{}); err == nil || !strings.Contains(err.Error(), "unknown version") {
		t.Errorf("a later entry: %v", err)
	}
}

// TestGoldenBatch holds the log to its format, sectors and all: testdata/log-batch-1 is a batch with two entries, at sector 8 of segment 3.
func TestGoldenBatch(t *testing.T) {
	b := logBatch{
		prev: 6, tail: 5, first: 9, last: 12, next: 4, segments: []uint64{3, 4}, entries: 2,
		state: map[string][]byte{keyTerm: {0, 0, 0, 0, 0, 0, 0, 3}, keyVoteFor: []byte("s1")},
	}
	content := b.encode(nil)
	for i, data := range []string{"short", strings.Repeat("longer than a sector ", 50)} {
		index := uint64(11 + i)
		k := logKey(index)
		content = uvarint.Append(content, encodeEntry(k[:], &hraft.Log{Index: index, Term: 3, Data: []byte(data), Extensions: []byte("x")}))
	}
	const file, segment, at, number = "testdata/log-batch-1", 3, blockSectors, 7
	packed := packBatch(nil, segment, at, number, content)
	if *writeGolden {
		if err := os.WriteFile(file, packed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if golden, err := os.ReadFile(file); err != nil || !bytes.Equal(golden, packed) {
		t.Errorf("this code writes another format than %s (%v): it needs a new version", file, err)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	head, items := golden()
	f.Add(streamOf(f, head, items))
	f.Add([]byte(streamMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, info, err := checkSnapshot(bytes.NewReader(b))
		if err == nil && uint64(info.Objects) != head.Count {
			t.Fatalf("%+v of %+v", info, head)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	head, _ := golden()
	f.Add(encodeHeader(head)[:60])
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := decodeHeader(binary.BigEndian.AppendUint32(body, checksum(body)))
		if err != nil {
			return
		}
		if again, err := decodeHeader(encodeHeader(h)); err != nil || again.info().Revision != h.info().Revision || again.Cluster != h.Cluster {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzDecodePart(f *testing.F) {
	_, items := golden()
	f.Add(encodePart(&part{kind: partItems, number: 3, items: items}))
	f.Add(encodePart(&part{kind: partEnd, number: 300, total: 1 << 40}))
	f.Add(encodePart(&part{kind: partAbort}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePart(b)
		if err != nil {
			return
		}
		again, err := decodePart(encodePart(p))
		if diff := cmp.Diff(p, again, cmp.AllowUnexported(part{})); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	k := logKey(7)
	f.Add(encodeEntry(k[:], &hraft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("x")}))
	f.Fuzz(func(t *testing.T, body []byte) {
		var entry, again hraft.Log
		value := binary.BigEndian.AppendUint32(body, checksum(k[:], body))
		if decodeEntry(k[:], value, &entry) != nil {
			return
		}
		err := decodeEntry(k[:], encodeEntry(k[:], &entry), &again)
		if diff := cmp.Diff(entry, again); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzReadIdentity(f *testing.F) {
	text, err := json.Marshal(identityContent{Cluster: ClusterID{1}, Previous: []ClusterID{{2}}, SupersededBy: ClusterID{3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, identityFile), fmt.Appendf(nil, "%s\n%08x\n", text, checksum(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		if content, err := readIdentity(dir); err == nil && content.Cluster.IsZero() {
			t.Fatal("it names no cluster")
		}
	})
}

// BenchmarkRestore restores 100 MB: 25,000 objects of 4 KB. It reports how long that takes until every server has it in memory, and
// until it is in the checkpoints as well.
func BenchmarkRestore(b *testing.B) {
	const count, size = 25_000, 4 << 10
	value := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	items := make([]store.Item, count)
	for i := range items {
		items[i] = store.Item{Key: key(fmt.Sprintf("object-%06d", i)), Revision: uint64(i + 1), Value: value}
	}
	head, _ := golden()
	head.Count = count
	snapshot := streamOf(b, head, items)
	for _, servers := range []int{1, 3} {
		b.Run(fmt.Sprintf("servers=%d", servers), func(b *testing.B) {
			c := newCluster(b, servers, func(cfg *Config) { cfg.ElectionTimeout = defaultElectionTimeout })
			c.same(c.write("a", "v"))
			var memory, disk time.Duration
			b.ResetTimer()
			for range b.N {
				start := time.Now()
				revision := c.restore(snapshot)
				for _, m := range c.members {
					if err := m.store.Wait(c.soon(), revision); err != nil {
						b.Fatal(err)
					}
				}
				memory += time.Since(start)
				for _, m := range c.members {
					waitForCheckpointAt(b, m, revision)
				}
				disk += time.Since(start)
			}
			b.ReportMetric(memory.Seconds()/float64(b.N), "s/restore")
			b.ReportMetric(disk.Seconds()/float64(b.N), "s/on-disk")
			b.ReportMetric(0, "ns/op")
			report100MB(b, c, snapshot)
		})
	}
}

// report100MB measures the other things that take a whole snapshot.
func report100MB(b *testing.B, c *testCluster, snapshot []byte) {
	start := time.Now()
	c.save(c.leader())
	b.ReportMetric(time.Since(start).Seconds(), "s/save")
	start = time.Now()
	if _, err := InspectSnapshot(bytes.NewReader(snapshot)); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "s/inspect")
	start = time.Now()
	if _, _, err := RestoreFolder(filepath.Join(b.TempDir(), "raft"), bytes.NewReader(snapshot), Server{ID: "s0", Address: "x:1"}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "s/offline")
}

// FuzzGreeting sends anything in the place of another server's first words.
func FuzzGreeting(f *testing.F) {
	mine := identityContent{Cluster: ClusterID{1}, Previous: []ClusterID{{2}}}
	hello := func(cluster ClusterID, previous []ClusterID, name string) []byte {
		b := append([]byte(helloMagic), cluster[:]...)
		b = append(b, byte(len(previous)))
		for _, p := range previous {
			b = append(b, p[:]...)
		}
		return append(append(b, byte(len(name))), name...)
	}
	welcome := hello(mine.Cluster, mine.Previous, "s0")
	f.Add(welcome)
	f.Add(hello(ClusterID{2}, nil, "s0"))
	f.Add(hello(ClusterID{3}, []ClusterID{{1}}, "s0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &Node{
			cfg: Config{ID: "s0"}, logger: slog.New(slog.DiscardHandler), strangers: map[ClusterID]struct{}{},
			identity: &identity{dir: t.TempDir(), content: mine, ended: make(chan struct{})},
		}
		ours, theirs := net.Pipe()
		go func() { // ends with the pipe
			_, _ = theirs.Write(b)
			_, _ = io.Copy(io.Discard, theirs)
		}()
		go func() { // a caller that says less than it should hangs up
			time.Sleep(time.Millisecond)
			_ = theirs.Close()
		}()
		err := n.answerGreeting(ours)
		_ = ours.Close()
		head := len(helloMagic) + len(ClusterID{})
		if err == nil && (len(b) < head || !bytes.Equal(b[:head], welcome[:head])) {
			t.Errorf("let in: %x", b)
		}
	})
}

// FuzzOpenLog changes bytes of a log: it is found out, or nothing is missing.
func FuzzOpenLog(f *testing.F) {
	dir := f.TempDir()
	log, err := openLog(dir, true)
	if err != nil {
		f.Fatal(err)
	}
	const entries = 40
	for i := range uint64(entries) {
		if err := log.StoreLog(&hraft.Log{Index: i + 1, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 200)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := log.close(); err != nil {
		f.Fatal(err)
	}
	path := pathOf(f, dir, logFile)
	sound, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{0xff})
	f.Add(uint32(4096), []byte{0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(uint32(entries*blockSize+5), []byte{1})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		b := bytes.Clone(sound)
		for i, x := range change {
			b[(int(at)+i)%len(b)] ^= x
		}
		dir := t.TempDir()
		to := filepath.Join(dir, logFile, filepath.Base(path))
		if err := errors.Join(os.Mkdir(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		log, err := openLog(dir, true)
		if isDamaged(err) {
			return
		}
		if err != nil {
			t.Fatalf("not a DamagedError: %v", err)
		}
		defer log.close()
		if log.doubt == nil {
			checkEdges(t, log, 1, entries)
		}
	})
}
