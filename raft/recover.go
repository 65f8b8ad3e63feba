package raft

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	hraft "github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/store"
)

// ErrNoState says that a data folder holds nothing of a cluster.
var ErrNoState = errors.New("there is no state of a cluster")

// Survivor is what the data folder of a stopped server holds.
type Survivor struct {
	Cluster ClusterID `json:"cluster"`
	// Index and Term are those of the last entry in the log; Vote is the newest term that the server knows.
	Index    uint64 `json:"index"`
	Term     uint64 `json:"term"`
	Vote     uint64 `json:"newestTerm"`
	Revision uint64 `json:"revision"`
	Objects  int    `json:"objects"`
	// Salvaged is how many entries were read from a damaged log that was set aside.
	Salvaged int `json:"salvaged,omitempty"`
	// Members are the servers of the cluster as this one knows them.
	Members []Server `json:"members"`
	// Written is when the log was last written, by the clock of the device.
	Written time.Time `json:"written"`
}

// remains is an opened data folder of a stopped server.
type remains struct {
	dir      string
	lock     *os.File
	identity identityContent
	log      *logStore
	store    *store.Store
	fsm      *fsm
	members  hraft.Configuration
	Survivor
}

// openRemains reads a data folder and plays the whole log: what the quorum had not agreed to yet is kept too, as nobody knows.
func openRemains(dir string) (r *remains, err error) {
	r = &remains{dir: dir, store: store.New(store.Config{Persisted: true})}
	defer func() {
		if isDamaged(err) {
			err = fmt.Errorf("%w; start shoal once, which sets damaged files aside, stop it, and try again with what is left", err)
		}
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if found, err := hasState(dir); err != nil || !found {
		return r, errors.Join(err, fmt.Errorf("%w in %s", ErrNoState, dir))
	}
	if r.lock, err = lockDir(dir); err != nil {
		return r, err
	}
	identity, err := openIdentity(dir)
	if err != nil {
		return r, err
	}
	r.identity = identity.get()
	checkpoint, err := openCheckpoint(dir, r.store)
	if err != nil {
		return r, err
	}
	if r.log, err = openLog(dir, false); err != nil {
		return r, err
	}
	if witness, err := isWitness(r.log); err != nil || witness {
		return r, errors.Join(err, fmt.Errorf("%w in %s: it is that of a witness, which keeps no objects", ErrNoState, dir))
	}
	head := checkpoint.header()
	if err := r.log.join(head); err != nil {
		return r, err
	}
	r.fsm = &fsm{
		store: r.store, checkpoint: checkpoint, failed: make(chan struct{}), due: make(chan struct{}, 1),
		restored: make(chan struct{}, 1), applied: func(*hraft.Log) {},
	}
	r.fsm.resume(head)
	r.members, r.Index, r.Term = head.Configuration, head.Index, head.Term
	if err := errors.Join(r.replay(), r.salvage()); err != nil {
		return r, err
	}
	return r, r.describe(head)
}

func hasState(dir string) (bool, error) {
	for _, name := range []string{logFile, oldLogFile, checkpointFile} {
		if found, err := exists(filepath.Join(dir, name)); err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// replay applies what the checkpoint does not have.
func (r *remains) replay() error {
	last, err := r.log.LastIndex()
	if err != nil {
		return err
	}
	for index := r.Index + 1; index <= last; index++ {
		var entry hraft.Log
		if err := r.log.GetLog(index, &entry); err != nil {
			return fmt.Errorf("read entry %d: %w", index, err)
		}
		if err := r.apply(&entry); err != nil {
			return err
		}
	}
	return nil
}

// apply applies the next entry.
func (r *remains) apply(entry *hraft.Log) (err error) {
	switch entry.Type {
	case hraft.LogCommand:
		r.fsm.Apply(entry)
		if r.fsm.failure != nil {
			return r.fsm.failure
		}
	case hraft.LogConfiguration:
		if r.members, err = decodeConfiguration(entry.Data); err != nil {
			return err
		}
	default: // no-ops and barriers change nothing
	}
	r.Index, r.Term = entry.Index, entry.Term
	return nil
}

func (r *remains) describe(head header) error {
	r.Cluster, r.Revision, r.Vote = r.identity.Cluster, r.store.Revision(), r.Term
	if r.Cluster.IsZero() {
		r.Cluster = head.Cluster
	}
	if term, err := r.log.GetUint64([]byte("CurrentTerm")); err == nil {
		r.Vote = max(r.Vote, term)
	} else if !errors.Is(err, errAbsent) {
		return err
	}
	items, _ := r.store.All()
	r.Objects = len(items)
	for _, s := range r.members.Servers {
		r.Members = append(r.Members, memberOf(s))
	}
	written, err := r.log.written()
	if err != nil {
		return err
	}
	r.Written = written.UTC()
	if r.Index == 0 {
		return fmt.Errorf("%w in %s: this server has never heard of its cluster's other servers", ErrNoState, r.dir)
	}
	return nil
}

func (r *remains) close() (err error) {
	if r.log != nil {
		err = r.log.close()
	}
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	return err
}

// InspectFolder says what the data folder of a stopped server holds.
func InspectFolder(dir string) (Survivor, error) {
	r, err := openRemains(dir)
	if err != nil {
		return Survivor{}, err
	}
	return r.Survivor, r.close()
}

// Founded is what Recover and RestoreFolder made.
type Founded struct {
	Cluster  ClusterID `json:"cluster"`
	Revision uint64    `json:"revision"`
	Objects  int       `json:"objects"`
	// Before is the folder with what was there, if anything was.
	Before string `json:"before,omitempty"`
}

// Recover makes a stopped server the only one of a new cluster that has all that this server has. The servers of the old
// cluster are refused until their folders are gone. Revisions and epochs begin well above all that were used, and every object
// counts as changed. The folder as it was is kept under another name.
func Recover(dir string, self Server) (Founded, error) {
	r, err := openRemains(dir)
	if err != nil {
		return Founded{}, err
	}
	items, _ := r.store.All()
	head := header{
		Index: r.Index, Term: r.Vote, Count: uint64(len(items)), Cluster: NewClusterID(), ConfigurationIndex: 1,
		Configuration: alone(self), Shift: r.fsm.shift,
	}
	head.Shift.Revision += strangerRevisions
	head.Shift.Epoch += strangerEpochs
	head.Revision = head.Shift.revision(head.Index)
	for i := range items {
		items[i].Revision = head.Revision
	}
	identity := identityContent{Cluster: head.Cluster, Previous: append([]ClusterID{r.Cluster}, r.identity.Previous...)}
	if len(identity.Previous) > maxPrevious {
		identity.Previous = identity.Previous[:maxPrevious]
	}
	err = build(newFolder(dir), head, identity, items)
	// The lock goes with the old folder.
	if err = errors.Join(err, r.close()); err != nil {
		return Founded{}, err
	}
	founded := Founded{Cluster: head.Cluster, Revision: head.Revision, Objects: len(items)}
	founded.Before, err = putInPlace(dir)
	return founded, err
}

// RestoreFolder makes a snapshot the state of a new cluster whose only server is the one of a data folder that has none yet.
func RestoreFolder(dir string, from io.Reader, self Server) (info SnapshotInfo, founded Founded, err error) {
	if found, err := hasState(dir); err != nil || found {
		return info, founded, errors.Join(err, fmt.Errorf("%s has the state of a cluster already; restore into that cluster while it runs, "+
			"or move the folder away first", dir))
	}
	identity := identityContent{Cluster: NewClusterID()}
	var source header
	head := header{Index: 1, Term: 1, Cluster: identity.Cluster, ConfigurationIndex: 1, Configuration: alone(self)}
	path := newFolder(dir)
	if err := makeEmpty(path); err != nil {
		return info, founded, err
	}
	// The header comes first in the stream, and first in the file.
	err = createFrom(filepath.Join(path, checkpointFile), from, func(h header) header {
		source, info = h, h.info()
		own := identityContent{Cluster: identity.Cluster}
		revision, epoch := h.floors(&own)
		head.Shift = shift{}.raised(head.Index, head.Term, revision, epoch)
		head.Revision, head.Count = head.Shift.revision(head.Index), h.Count
		return head
	})
	if err != nil {
		return info, founded, errors.Join(fmt.Errorf("%w: %w", ErrSnapshotData, err), os.RemoveAll(path))
	}
	if !source.Cluster.IsZero() {
		identity.Previous = []ClusterID{source.Cluster}
	}
	if err := finish(path, head, identity); err != nil {
		return info, founded, err
	}
	founded = Founded{Cluster: head.Cluster, Revision: head.Revision, Objects: int(head.Count)}
	founded.Before, err = putInPlace(dir)
	return info, founded, err
}

// createFrom makes a checkpoint of a snapshot, with another header and all objects at its revision.
func createFrom(path string, from io.Reader, renew func(header) header) error {
	b, err := newBatch(path)
	if err != nil {
		return err
	}
	var head header
	err = readSnapshot(from, func(h header) error {
		head = renew(h)
		return b.header(head)
	}, func(item *store.Item) error {
		item.Revision = head.Revision
		return b.item(item)
	})
	return b.close(err)
}

func alone(self Server) hraft.Configuration {
	return hraft.Configuration{Servers: []hraft.Server{{ID: hraft.ServerID(self.ID), Address: hraft.ServerAddress(self.Address)}}}
}

func newFolder(dir string) string { return dir + ".new" }

func makeEmpty(path string) error {
	return errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o700))
}

// build makes a data folder.
func build(path string, head header, identity identityContent, items []store.Item) error {
	if err := makeEmpty(path); err != nil {
		return err
	}
	if err := createCheckpoint(filepath.Join(path, checkpointFile), head, items); err != nil {
		return err
	}
	return finish(path, head, identity)
}

// finish adds to a folder with a checkpoint what else there must be, and makes sure that a server can start with it.
func finish(path string, head header, identity identityContent) error {
	if err := errors.Join(syncFile(filepath.Join(path, checkpointFile)), writeIdentity(path, identity)); err != nil {
		return err
	}
	log, err := openLog(path, true)
	if err != nil {
		return err
	}
	err = errors.Join(noteCluster(log, head.Cluster), log.SetUint64([]byte("CurrentTerm"), head.Term), log.close())
	if err != nil {
		return err
	}
	again, err := openRemains(path)
	if err != nil {
		return fmt.Errorf("the new folder cannot be read: %w", err)
	}
	defer func() { _ = again.close() }()
	if again.Revision != head.Revision || uint64(again.Objects) != head.Count {
		return fmt.Errorf("the new folder has %d objects at revision %d, not %d at %d", again.Objects, again.Revision, head.Count, head.Revision)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// putInPlace exchanges a data folder for the new one beside it, in one step, and returns where the old one is.
func putInPlace(dir string) (before string, err error) {
	path := newFolder(dir)
	if err := syncDir(path); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(os.Rename(path, dir), syncDir(filepath.Dir(dir)))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return "", fmt.Errorf("put %s in place of %s: %w", path, dir, err)
	}
	before = dir + time.Now().UTC().Format(".before-20060102T150405Z")
	return before, errors.Join(os.Rename(path, before), syncDir(filepath.Dir(dir)))
}
