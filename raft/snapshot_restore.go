package raft

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	hraft "github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/store"
)

const (
	uploadFile = "restore.upload"

	// partBytes is about the size of a part. A follower that is behind gets maxBatch of them in one message, also on a slow link.
	partBytes = 64 << 10
	// partWindow is how many parts are under way at once.
	partWindow = 32
	// partTimeout bounds the wait for one part.
	partTimeout = 30 * time.Second

	// spaceFactor is how many times its size a restore takes on the disk, in the upload, the log and the new checkpoint, and
	// spaceReserve what must be left.
	spaceFactor  = 4
	spaceReserve = 32 << 20

	// A snapshot of another cluster does not tell how far that one went afterwards: the restored state begins well beyond.
	strangerRevisions = 1 << 30
	strangerEpochs    = 1 << 20
)

// Errors of RestoreSnapshot that a person can do something about.
var (
	ErrRestoreBusy  = errors.New("another snapshot is being restored")
	ErrNoSpace      = errors.New("the disk is too full for the restore")
	ErrSnapshotData = errors.New("nothing was restored")
	ErrRestoreLost  = errors.New("the restore was broken off and changed nothing, try again")
)

// RestoreSnapshot makes a snapshot of the given size the state of the whole cluster, at one revision that is above all that
// were ever used. What is not in the snapshot is gone afterwards. Only the leader can. The snapshot is checked as a whole before
// anything changes; with store.ErrUncertain it may have become the state or not.
func (n *Node) RestoreSnapshot(ctx context.Context, from io.Reader, size int64) (info SnapshotInfo, revision uint64, err error) {
	if !n.IsLeader() {
		return info, 0, n.notLeader()
	}
	if !n.restoring.TryLock() {
		return info, 0, ErrRestoreBusy
	}
	defer n.restoring.Unlock()
	if err := checkSpace(n.cfg.Dir, size); err != nil {
		return info, 0, err
	}
	// It is taken to disk first: the upload may be slow, and nothing may change before its checksum, at its end, is right.
	file, err := os.OpenFile(filepath.Join(n.cfg.Dir, uploadFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return info, 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if got, err := io.Copy(file, io.LimitReader(from, size)); err != nil || got != size {
		return info, 0, errors.Join(fmt.Errorf("%w: the snapshot is cut off after %d of %d bytes", ErrSnapshotData, got, size), err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return info, 0, err
	}
	head, info, err := checkSnapshot(file)
	if err != nil {
		return info, 0, fmt.Errorf("%w: %w", ErrSnapshotData, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return info, 0, err
	}
	n.logger.Warn("restoring a snapshot", "cluster", head.Cluster, "revision", head.Revision, "objects", head.Count)
	if revision, err = n.proposeSnapshot(ctx, file, head); err != nil {
		return info, 0, err
	}
	n.logger.Warn("restored a snapshot", "revision", revision)
	return info, revision, nil
}

func checkSpace(dir string, size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look for space on the disk: %w", err)
	}
	have, want := int64(fs.Bavail)*int64(fs.Bsize), spaceFactor*size+spaceReserve
	if have < want {
		return fmt.Errorf("%w: %d MiB are free, %d are needed", ErrNoSpace, have>>20, want>>20)
	}
	return nil
}

// floors are the least revision and epoch for what a snapshot restores.
func (h *header) floors(own *identityContent) (revision, epoch uint64) {
	revision, epoch = h.Revision+1, h.Shift.epoch(h.Term)+1
	if h.Cluster != own.Cluster {
		revision, epoch = revision+strangerRevisions, epoch+strangerEpochs
	}
	return revision, epoch
}

// proposeSnapshot sends a snapshot through the log.
func (n *Node) proposeSnapshot(ctx context.Context, from io.Reader, head header) (revision uint64, err error) {
	p := &partSender{node: n, ctx: ctx}
	_, _ = rand.Read(p.id[:]) // never fails
	err = readSnapshot(from, func(header) error { return nil }, p.add)
	if err == nil {
		err = p.flush()
	}
	for err == nil && len(p.pending) > 0 {
		_, err = p.settle()
	}
	if err != nil {
		p.abort()
		return 0, fmt.Errorf("%w: %v", ErrRestoreLost, err) //nolint:errorlint // it may be uncertain what became of a part, not of the whole
	}
	own := n.identity.get()
	end := &part{kind: partEnd, id: p.id, number: p.number, total: p.total}
	end.revision, end.epoch = head.floors(&own)
	p.send(encodePart(end))
	return p.settle()
}

// partSender proposes the parts of a snapshot, some at a time.
type partSender struct {
	node   *Node
	ctx    context.Context //nolint:containedctx // of one call
	id     [16]byte
	number uint64
	total  uint64

	items   []store.Item
	bytes   int
	pending []hraft.ApplyFuture
}

func (p *partSender) add(item *store.Item) error {
	p.items = append(p.items, *item)
	p.bytes += len(item.Value)
	p.total++
	if p.bytes < partBytes && len(p.items) < receiveBatch {
		return nil
	}
	return p.flush()
}

// flush sends what has been added; a snapshot has one such part at least.
func (p *partSender) flush() error {
	if len(p.items) == 0 && p.number > 0 {
		return nil
	}
	p.send(encodePart(&part{kind: partItems, id: p.id, number: p.number, items: p.items}))
	p.items, p.bytes = p.items[:0], 0
	if len(p.pending) < partWindow {
		return p.ctx.Err()
	}
	_, err := p.settle()
	return err
}

func (p *partSender) send(record []byte) {
	p.pending = append(p.pending, p.node.raft.Apply(record, partTimeout))
	p.number++
}

// settle waits for the oldest part that is under way.
func (p *partSender) settle() (uint64, error) {
	ctx, cancel := context.WithTimeout(p.ctx, partTimeout)
	defer cancel()
	oldest := p.pending[0]
	p.pending = p.pending[1:]
	if err := wait(ctx, oldest); err != nil {
		return 0, p.node.proposeError(err)
	}
	return result(oldest)
}

// abort lets the servers drop what they have put aside. Without it, the next leader's first entry or the next restore does.
func (p *partSender) abort() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), proposeTimeout)
	defer cancel()
	for _, f := range p.pending {
		_ = wait(ctx, f)
	}
	_ = wait(ctx, p.node.raft.Apply(encodePart(&part{kind: partAbort, id: p.id, number: p.number}), proposeTimeout))
}
