package raft

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/shoal-edge/shoal/store"
)

// SnapshotFormat is the version of the snapshots that this shoal writes, and reads.
const SnapshotFormat = headerVersion

// SnapshotInfo is what a snapshot says of itself.
type SnapshotInfo struct {
	Format   int       `json:"format"`
	Cluster  ClusterID `json:"cluster"`
	Revision uint64    `json:"revision"`
	Term     uint64    `json:"term"`
	// Saved is when it was taken, by the clock of the server.
	Saved     time.Time          `json:"saved,omitzero"`
	Objects   int                `json:"objects"`
	Bytes     int64              `json:"bytes"`
	Resources []SnapshotResource `json:"resources,omitempty"`
}

// SnapshotResource counts the objects of one resource and their values' bytes.
type SnapshotResource struct {
	Resource string `json:"resource"`
	Objects  int    `json:"objects"`
	Bytes    int64  `json:"bytes"`
}

func (h *header) info() SnapshotInfo {
	info := SnapshotInfo{
		Format: headerVersion, Cluster: h.Cluster, Revision: h.Revision, Term: h.Shift.epoch(h.Term), Objects: int(h.Count),
	}
	if h.Saved != 0 {
		info.Saved = time.Unix(int64(h.Saved), 0).UTC()
	}
	return info
}

// Pauses and tries for a checkpoint that cannot be written at the moment.
const (
	checkpointTries = 20
	checkpointPause = 100 * time.Millisecond
)

// OpenSnapshot returns a snapshot of all that this server has applied when it is called, and its size. The whole is never in
// memory. The caller closes it.
func (n *Node) OpenSnapshot(ctx context.Context) (io.ReadCloser, int64, error) {
	if err := n.checkpointNow(ctx); err != nil {
		return nil, 0, err
	}
	s, err := n.checkpoint.stream()
	if err != nil {
		return nil, 0, err
	}
	before := len(encodeHeader(s.head))
	s.head.Saved = uint64(max(0, time.Now().Unix()))
	s.size += int64(len(encodeHeader(s.head)) - before)
	return s, s.size, nil
}

// checkpointNow brings the checkpoint up to what is applied.
func (n *Node) checkpointNow(ctx context.Context) error {
	revision := n.store.Revision()
	for try := 0; ; try++ {
		if head := n.checkpoint.header(); head.Index > 0 && head.Revision >= revision {
			return nil
		}
		err := wait(ctx, n.raft.Snapshot())
		if err == nil {
			continue
		}
		if try == checkpointTries || ctx.Err() != nil {
			return fmt.Errorf("write a checkpoint: %w", err)
		}
		sleep(ctx, checkpointPause)
	}
}

// InspectSnapshot reads a snapshot to its end and says what is in it. Whatever is wrong with it is an error.
func InspectSnapshot(from io.Reader) (SnapshotInfo, error) {
	_, info, err := checkSnapshot(from)
	return info, err
}

func checkSnapshot(from io.Reader) (head header, info SnapshotInfo, err error) {
	err = readSnapshot(from, func(h header) error {
		head, info = h, h.info()
		return nil
	}, func(item *store.Item) error {
		last := len(info.Resources) - 1
		if last < 0 || info.Resources[last].Resource != item.Key.Resource {
			info.Resources = append(info.Resources, SnapshotResource{Resource: item.Key.Resource})
			last++
		}
		info.Resources[last].Objects++
		info.Resources[last].Bytes += int64(len(item.Value))
		info.Bytes += int64(len(item.Value))
		return nil
	})
	return head, info, err
}

// readSnapshot is readStream for a file that may have come from anywhere: it checks each object too.
func readSnapshot(from io.Reader, head func(header) error, each func(item *store.Item) error) error {
	var last string
	return readStream(from, head, func(k, v []byte) error {
		item, err := decodeItem(k, v)
		if err != nil {
			return fmt.Errorf("the snapshot is damaged: %w", err)
		}
		if string(k) <= last {
			return fmt.Errorf("the snapshot is damaged: %q comes after %q", k, last)
		}
		last = string(k)
		return each(&item)
	})
}
