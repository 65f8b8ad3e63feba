// Package raft owns the order of the cluster's transactions: the log and the votes, the checkpoint, the membership and the
// leadership. It puts committed transactions into a store.Store and is a store.Proposer.
//
// Memory is the state, the log is what is not in the checkpoint yet, the checkpoint is one bbolt file that is changed in
// place, by what has changed. A follower that is too far behind gets a stream of the leader's checkpoint.
package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
)

// Config configures a Node.
type Config struct {
	// ID names the server for good; Address is where the others reach it now.
	ID      string
	Address string
	// Dir is the data folder; it is made when it is not there.
	Dir   string
	Layer Layer
	// Bootstrap makes the first server of a new cluster. It does nothing on one that has a log already.
	Bootstrap bool
	// Store is filled by Open. It must be empty and collect changes (Persisted).
	Store *store.Store
	// ElectionTimeout is about how long after its leader's process died a cluster has another, and about three times that after a
	// leader's device was lost. Default 500 ms.
	ElectionTimeout time.Duration
	// A checkpoint is written after so many entries or bytes of log on the disk (no more than a quarter of it); TrailingLogs entries stay
	// for followers that are a bit behind. Defaults: 2048, 4 MiB, 1024.
	CheckpointEntries int64
	CheckpointBytes   int64
	TrailingLogs      uint64
	// Voters is how many servers shall have a vote, 1, 3 or 5: the leader gives and takes votes by itself. A voter that has not
	// followed for VoterGrace (default 2m) is replaced by another server that can. With 0 the votes stay as they are.
	Voters     int
	VoterGrace time.Duration
	// Gone says that a server's device was taken out of the cluster for good. It is not asked about witnesses. May be nil.
	Gone func(id string) bool
	// Witness makes this server one that votes and keeps no objects: the store stays empty.
	Witness bool
	Logger  *slog.Logger
}

const (
	defaultElectionTimeout = 500 * time.Millisecond
	defaultVoterGrace      = 2 * time.Minute
	defaultCheckpointBytes = 4 << 20

	// checkpointRetry is the pause after a checkpoint that could not be written.
	checkpointRetry = 2 * time.Second
	// maxBatch is how many entries share one flush of the disk, and one message to a follower.
	maxBatch = 128
	// ioTimeout bounds one message between servers; it is long because entries may be large and links slow.
	ioTimeout = 5 * time.Second
	// checkpointLinger is how long the checkpoint's file stays open: longer than from one checkpoint to the next under load.
	checkpointLinger = 10 * time.Second
	// stopTimeout bounds each step of a graceful stop.
	stopTimeout = 3 * time.Second
	// never keeps the library from checkpoints of its own accord: Run decides when one is due.
	never = 1000 * time.Hour
)

// Node is this server's part in the consensus.
type Node struct {
	cfg        Config
	logger     *slog.Logger
	store      *store.Store
	lock       *os.File
	log        *logStore
	checkpoint *checkpoint
	identity   *identity
	probation  *probation
	alarm      *alarm
	reserve    *reserve
	fsm        *fsm
	transport  *transport    // for what this package sends
	carrier    peerTransport // for what the library sends and gets
	hints      *hints
	raft       *hraft.Raft
	observed   chan hraft.Observation
	observer   *hraft.Observer

	mu        sync.Mutex
	changed   chan struct{} // closed at the next change of leader or members
	strangers map[ClusterID]struct{}

	reads     readBatch
	verifier  *verifier
	ready     readiness
	announcer *announcer
	tending   *tending
	retiming  sync.Mutex
	restoring sync.Mutex
	trailing  atomic.Uint64 // how many entries a checkpoint leaves in the log
	ended     chan struct{} // has something in it when another server's connection ended

	closing sync.Once
	closed  atomic.Bool
	started atomic.Bool
}

// Open reads the data folder into the store and takes part in the consensus until Close. Run must be called for the node
// to act on leadership.
func Open(cfg Config) (n *Node, err error) {
	setDefaults(&cfg)
	n = &Node{
		cfg: cfg, logger: cfg.Logger, store: cfg.Store, changed: make(chan struct{}), ended: make(chan struct{}, 1),
		strangers: map[ClusterID]struct{}{}, hints: &hints{addresses: map[string]string{}}, alarm: newAlarm(),
	}
	n.tending = newTending(n)
	n.announcer = newAnnouncer(n)
	n.verifier = newVerifier(n.follows)
	n.trailing.Store(cfg.TrailingLogs)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
			n = nil
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return n, fmt.Errorf("make the data folder: %w", err)
	}
	if n.lock, err = lockDir(cfg.Dir); err != nil {
		return n, err
	}
	isNew, err := untouched(cfg.Dir)
	if err != nil {
		return n, err
	}
	if n.identity, err = openIdentity(cfg.Dir); err != nil {
		return n, err
	}
	if n.reserve, err = openReserve(cfg.Dir, cfg.Logger); err != nil {
		return n, err
	}
	if err := n.openState(isNew); err != nil {
		return n, err
	}
	n.checkpoint.linger = checkpointLinger
	if err := n.settleKind(); err != nil {
		return n, err
	}
	if err := n.settleCluster(); err != nil {
		return n, err
	}
	return n, n.start()
}

func setDefaults(cfg *Config) {
	if cfg.ElectionTimeout <= 0 {
		cfg.ElectionTimeout = defaultElectionTimeout
	}
	if cfg.CheckpointEntries <= 0 {
		cfg.CheckpointEntries = defaultCheckpointEntries
	}
	if cfg.CheckpointBytes <= 0 {
		cfg.CheckpointBytes = defaultCheckpointBytes
	}
	if cfg.Witness {
		cfg.TrailingLogs = witnessTrailing
	}
	if cfg.TrailingLogs == 0 {
		cfg.TrailingLogs = defaultTrailingLogs
	}
	if cfg.VoterGrace <= 0 {
		cfg.VoterGrace = defaultVoterGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

func (n *Node) start() error {
	library := newLibraryLogger(n.logger)
	n.fsm = &fsm{
		store: n.store, checkpoint: n.checkpoint, failed: make(chan struct{}), due: make(chan struct{}, 1),
		maxEntries: n.cfg.CheckpointEntries, maxBytes: min(n.cfg.CheckpointBytes, 4*n.reserve.size), configurationsReceived: n.wake, applied: n.announcer.applied,
		restored: make(chan struct{}, 1), cost: n.log.cost,
	}
	n.fsm.resume(n.checkpoint.header())
	n.transport = &transport{hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		Stream: streamLayer{n.cfg.Layer, n.cfg.Address, n}, MaxPool: 4, Timeout: ioTimeout, Logger: library,
	})}
	n.carrier = n.transport
	if n.OnProbation() {
		n.carrier = newProbationTransport(n.carrier, n.probation)
	}
	recent := newRecentLog(n.log)
	var log hraft.LogStore = recent
	var votes hraft.StableStore = n.log
	if n.cfg.Witness {
		n.fsm.witness, n.checkpoint.witness = true, true
		n.carrier, log, votes = newWitnessTransport(n.carrier), witnessLog{recent}, witnessVotes{n.log, n.cfg.ID}
	}
	conf := hraft.DefaultConfig()
	conf.LocalID = hraft.ServerID(n.cfg.ID)
	conf.Logger = library
	conf.NoLegacyTelemetry = true
	conf.NoSnapshotRestoreOnStart = true // done, and with better errors
	conf.BatchApplyCh = true
	conf.MaxAppendEntries = maxBatch
	conf.ShutdownOnRemove = false
	n.setTimes(conf)
	if n.cfg.Bootstrap && !n.OnProbation() {
		if err := n.bootstrap(conf); err != nil {
			return err
		}
	}
	n.checkpoint.refresh = func() {
		if n.started.Load() && n.IsLeader() {
			_ = n.raft.Snapshot().Error() // there may be nothing new
		}
	}
	n.log.serving.Store(true)
	var err error
	if n.raft, err = hraft.NewRaft(conf, n.fsm, log, votes, n.checkpoint, n.carrier); err != nil {
		return fmt.Errorf("start the consensus: %w", err)
	}
	n.started.Store(true)
	n.observed = make(chan hraft.Observation, 16)
	n.observer = hraft.NewObserver(n.observed, false, func(o *hraft.Observation) bool {
		switch o.Data.(type) {
		case hraft.LeaderObservation, hraft.FailedHeartbeatObservation:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(n.observer)
	return nil
}

func (n *Node) bootstrap(conf *hraft.Config) error {
	self := hraft.Server{ID: conf.LocalID, Address: hraft.ServerAddress(n.cfg.Address)}
	err := hraft.BootstrapCluster(conf, n.log, n.log, n.checkpoint, n.transport, hraft.Configuration{Servers: []hraft.Server{self}})
	if err != nil && !errors.Is(err, hraft.ErrCantBootstrap) {
		return fmt.Errorf("begin a new cluster: %w", err)
	}
	return nil
}

// Close stops at once, without handing leadership over; Run does that. It may be called more than once.
func (n *Node) Close() (err error) {
	n.closing.Do(func() {
		n.closed.Store(true)
		if n.log != nil {
			n.log.leave()
		}
		if n.raft != nil {
			n.raft.DeregisterObserver(n.observer)
			stopped := n.raft.Shutdown()
			err = errors.Join(err, n.carrier.Close(), stopped.Error())
			n.transport.CloseStreams()
		} else if n.carrier != nil {
			err = n.carrier.Close()
		}
		if n.log != nil {
			n.log.seal()
			err = errors.Join(err, n.log.close())
		}
		if n.checkpoint != nil {
			err = errors.Join(err, n.checkpoint.close())
		}
		if n.lock != nil {
			err = errors.Join(err, n.lock.Close())
		}
		n.wake()
	})
	return err
}

// wake tells everybody who waits on LeaderChanges.
func (n *Node) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}
