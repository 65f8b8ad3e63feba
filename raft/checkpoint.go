package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/shoal-edge/shoal/raft/failpoint"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/uvarint"
)

// checkpoint is the state on disk: a bbolt file with one entry for each object and a header that says up to where in the
// log the state goes. Writing one down changes only what has changed, in one transaction. It is the library's snapshot
// store: there is always one snapshot, the present one.
//
// The file is open only while somebody needs it, and for a while after, so that it is not mapped into memory for nothing: opening
// it reads all of it, to find what is free.
type checkpoint struct {
	path    string
	store   *store.Store
	witness bool          // no objects are kept
	reserve *reserve      // may be nil
	alarm   *alarm        // may be nil
	cluster ClusterID     // guarded by mu
	refresh func()        // set before the library runs
	linger  time.Duration // how long the file stays open for the next user; set before the library runs

	writing sync.Mutex // one write or replacement at a time

	mu   sync.Mutex // guards the rest
	head header
	open *handle
}

// header says what a checkpoint holds.
type header struct {
	Index              uint64 // of the last log entry in it
	Term               uint64 // of that entry
	Revision           uint64 // of the store
	Count              uint64 // of objects
	Shift              shift  // how revisions and epochs follow from entries
	Saved              uint64 // when a snapshot was taken, in seconds of Unix time; 0 in a checkpoint
	Cluster            ClusterID
	Configuration      hraft.Configuration
	ConfigurationIndex uint64
}

const (
	headerVersion  = 1
	checkpointFill = 0.9
)

func bucketHeader() []byte { return []byte("header") }
func bucketItems() []byte  { return []byte("items") }
func keyHeader() []byte    { return []byte("header") }

// handle counts the users of an open file. With none left it is closed when its time is over.
type handle struct {
	db    *bbolt.DB
	users int
	idle  *time.Timer
}

// openCheckpoint fills the store from the checkpoint in a folder; without a file it is empty.
func openCheckpoint(dir string, s *store.Store) (*checkpoint, error) {
	c := &checkpoint{path: filepath.Join(dir, checkpointFile), store: s}
	for _, left := range []string{c.temp(), c.received()} { // by a crash
		if err := os.RemoveAll(left); err != nil {
			return nil, err
		}
	}
	found, err := exists(c.path)
	if err != nil || !found {
		return c, err
	}
	if err := inspect(c.path, c.loadFrom); err != nil {
		return c, err
	}
	return c, shrink(c.path)
}

func (c *checkpoint) temp() string     { return c.path + ".new" }
func (c *checkpoint) received() string { return c.path + ".received" }

func (c *checkpoint) setCluster(cluster ClusterID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cluster = cluster
}

func (c *checkpoint) header() header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

// acquire opens the file, or shares it with who has it open. The caller releases the handle.
func (c *checkpoint) acquire() (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		db, err := openBolt(c.path, boltOptions())
		if err != nil {
			return nil, c.alarm.heed(err)
		}
		c.open = &handle{db: db}
	}
	c.open.users++
	return c.open, nil
}

func (c *checkpoint) release(h *handle) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch h.users--; {
	case h.users > 0:
		return nil
	case c.open != h: // its file has been replaced
		return h.db.Close()
	case c.linger == 0:
		return c.closeIdle()
	case h.idle == nil:
		h.idle = time.AfterFunc(c.linger, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.open == h {
				_ = c.closeIdle() // what was written is on the disk since its commit
			}
		})
	default:
		h.idle.Reset(c.linger)
	}
	return nil
}

// closeIdle closes the open file if nobody uses it. Callers hold mu.
func (c *checkpoint) closeIdle() error {
	h := c.open
	if h == nil || h.users > 0 {
		return nil
	}
	if h.idle != nil {
		h.idle.Stop()
	}
	c.open = nil
	return h.db.Close()
}

// replaced lets go of the open file: who still reads it goes on. Callers hold mu.
func (c *checkpoint) replaced() error {
	err := c.closeIdle()
	c.open = nil
	return err
}

// close ends the wait for a next user.
func (c *checkpoint) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeIdle()
}

func (c *checkpoint) view(f func(*bbolt.Tx) error) error {
	h, err := c.acquire()
	if err != nil {
		return err
	}
	return c.alarm.heed(errors.Join(guard(c.path, func() error { return h.db.View(f) }), c.release(h)))
}

// load fills the store from the present file.
func (c *checkpoint) load() error { return c.view(c.loadFrom) }

// loadFrom fills the store. Every object and their number are checked.
func (c *checkpoint) loadFrom(tx *bbolt.Tx) error {
	head, err := readHeader(tx)
	if err != nil {
		return err
	}
	var items []store.Item
	err = walk(c.path, tx.Bucket(bucketItems()), func(k, v []byte) error {
		item, err := decodeItem(k, bytes.Clone(v))
		items = append(items, item)
		return err
	})
	if err != nil {
		return err
	}
	if uint64(len(items)) != head.Count {
		return &DamagedError{c.path, fmt.Errorf("it has %d objects, not %d", len(items), head.Count)}
	}
	c.store.Load(head.Revision, items)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = head
	return nil
}

// errOlder says that a newer checkpoint has come from the leader in the meantime.
var errOlder = errors.New("the checkpoint on disk is newer")

// write brings the file up to a header with the changes since the one before.
func (c *checkpoint) write(head header, changes *store.Changes) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	older := c.header()
	if head.Index <= older.Index {
		return errOlder
	}
	path := c.path
	if older.Index == 0 || changes.Whole {
		path = c.temp()
	}
	failpoint.Hit("checkpoint.write.before")
	err := c.reserve.vital(func() error {
		if changes.Whole {
			head.Count = uint64(len(changes.Put))
			return createCheckpoint(path, head, changes.Put)
		}
		return c.update(path, func(tx *bbolt.Tx) error {
			count, err := applyChanges(tx, changes)
			if err != nil {
				return err
			}
			head.Count = uint64(int64(older.Count) + count)
			return writeHeader(tx, head)
		})
	})
	failpoint.Hit("checkpoint.write.after")
	if err == nil && path != c.path {
		err = replaceFile(path, c.path)
	}
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = head
	if changes.Whole {
		return c.replaced()
	}
	return nil
}

// update changes the file at the path: the present one, or a new one that is made first.
func (c *checkpoint) update(path string, f func(*bbolt.Tx) error) error {
	if path == c.path {
		h, err := c.acquire()
		if err != nil {
			return err
		}
		return c.alarm.heed(errors.Join(guard(path, func() error { return h.db.Update(f) }), c.release(h)))
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	db, err := openBolt(path, boltOptions())
	if err != nil {
		return err
	}
	return errors.Join(guard(path, func() error { return db.Update(f) }), db.Close())
}

// replace puts a complete file that came from the leader in the place of the present one. Who still reads that one goes on.
func (c *checkpoint) replace(temp string, head header) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if have := c.header(); head.Index < have.Index {
		return errOlder
	}
	if err := replaceFile(temp, c.path); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = head
	return c.replaced()
}

// applyChanges returns by how many objects there are more.
func applyChanges(tx *bbolt.Tx, changes *store.Changes) (int64, error) {
	bucket, err := tx.CreateBucketIfNotExists(bucketItems())
	if err != nil {
		return 0, err
	}
	var more int64
	for _, key := range changes.Deleted {
		k := itemKey(key)
		if bucket.Get(k) == nil {
			continue // it came and went between two checkpoints
		}
		if err := bucket.Delete(k); err != nil {
			return 0, err
		}
		more--
	}
	for _, item := range changes.Put {
		k := itemKey(item.Key)
		if bucket.Get(k) == nil {
			more++
		}
		if err := bucket.Put(k, encodeItem(k, item)); err != nil {
			return 0, err
		}
	}
	return more, nil
}

func readHeader(tx *bbolt.Tx) (header, error) {
	path := tx.DB().Path()
	bucket := tx.Bucket(bucketHeader())
	if bucket == nil {
		return header{}, &DamagedError{path, errors.New("the header is missing")}
	}
	head, err := decodeHeader(bucket.Get(keyHeader()))
	if err != nil {
		return header{}, &DamagedError{path, err}
	}
	return head, nil
}

func writeHeader(tx *bbolt.Tx, head header) error {
	bucket, err := tx.CreateBucketIfNotExists(bucketHeader())
	if err != nil {
		return err
	}
	return bucket.Put(keyHeader(), encodeHeader(head))
}

func encodeHeader(h header) []byte {
	b := []byte{headerVersion}
	for _, n := range []uint64{h.Index, h.Term, h.Revision, h.Count, h.ConfigurationIndex, h.Shift.Revision, h.Shift.Epoch, h.Saved} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, h.Cluster[:]...)
	b = append(b, hraft.EncodeConfiguration(h.Configuration)...)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func decodeHeader(b []byte) (h header, err error) {
	if len(b) < crcSize || checksum(b[:len(b)-crcSize]) != binary.BigEndian.Uint32(b[len(b)-crcSize:]) {
		return header{}, errors.New("the checksum of the header is wrong")
	}
	r := uvarint.Reader{Rest: b[:len(b)-crcSize]}
	if version := r.Byte(); version != headerVersion {
		return header{}, fmt.Errorf("the header has the unknown version %d", version)
	}
	for _, n := range []*uint64{
		&h.Index, &h.Term, &h.Revision, &h.Count, &h.ConfigurationIndex, &h.Shift.Revision, &h.Shift.Epoch, &h.Saved,
	} {
		*n = r.Uvarint()
	}
	copy(h.Cluster[:], r.Take(uint64(len(h.Cluster))))
	if r.Bad {
		return header{}, errors.New("the header is cut off")
	}
	h.Configuration, err = decodeConfiguration(r.Rest)
	return h, err
}

// decodeConfiguration makes the library's panic an error.
func decodeConfiguration(b []byte) (c hraft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the list of servers in the header: %v", p)
		}
	}()
	return hraft.DecodeConfiguration(b), nil
}

// itemKey sorts by resource, namespace and name; none of them can hold a zero byte.
func itemKey(k store.Key) []byte {
	return []byte(k.Resource + "\x00" + k.Namespace + "\x00" + k.Name)
}

// encodeItem makes an item's value: a CRC over the key and the rest, the revision, and the object.
func encodeItem(key []byte, item store.Item) []byte {
	b := make([]byte, crcSize, crcSize+binary.MaxVarintLen64+len(item.Value))
	b = binary.AppendUvarint(b, item.Revision)
	b = append(b, item.Value...)
	binary.BigEndian.PutUint32(b, checksum(key, b[crcSize:]))
	return b
}

// decodeItem reads an item that keeps the value's memory.
func decodeItem(key, value []byte) (store.Item, error) {
	parts := bytes.SplitN(key, []byte{0}, 3)
	if len(parts) != 3 || len(value) < crcSize || checksum(key, value[crcSize:]) != binary.BigEndian.Uint32(value) {
		return store.Item{}, fmt.Errorf("the checksum of %q is wrong", key)
	}
	r := uvarint.Reader{Rest: value[crcSize:]}
	item := store.Item{
		Key:      store.Key{Resource: string(parts[0]), Namespace: string(parts[1]), Name: string(parts[2])},
		Revision: r.Uvarint(),
		Value:    r.Rest,
	}
	if r.Bad {
		return store.Item{}, fmt.Errorf("the revision of %q is cut off", key)
	}
	return item, nil
}

// The library's view of the checkpoint follows.

// List returns the one snapshot, if there is one. A leader that asks is about to send it, so it is brought up to date first: a
// follower may have a newer one than the leader's last, whose place it can never take.
func (c *checkpoint) List() ([]*hraft.SnapshotMeta, error) {
	if c.refresh != nil {
		c.refresh()
	}
	head := c.header()
	if head.Index == 0 {
		return nil, nil
	}
	return []*hraft.SnapshotMeta{head.meta()}, nil
}

func (h header) meta() *hraft.SnapshotMeta {
	return &hraft.SnapshotMeta{
		Version: hraft.SnapshotVersionMax, ID: fmt.Sprintf("%d-%d", h.Term, h.Index), Index: h.Index, Term: h.Term,
		Configuration: h.Configuration, ConfigurationIndex: h.ConfigurationIndex,
	}
}

// Open returns the present snapshot as a stream, whatever the name: an older one is never better.
func (c *checkpoint) Open(string) (*hraft.SnapshotMeta, io.ReadCloser, error) {
	s, err := c.stream()
	if err != nil {
		return nil, nil, err
	}
	meta := s.head.meta()
	meta.Size = s.size
	return meta, s, nil
}

// Create starts a snapshot: of this server's own state, or one that is received.
func (c *checkpoint) Create(_ hraft.SnapshotVersion, index, term uint64, configuration hraft.Configuration, configurationIndex uint64,
	_ hraft.Transport,
) (hraft.SnapshotSink, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &sink{checkpoint: c, head: header{
		Index: index, Term: term, Cluster: c.cluster, Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}
