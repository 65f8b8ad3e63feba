package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// queued is how many events wait for the disk at most.
const queued = 1024

// queuedBytes is how many bytes of bodies wait for the disk at most.
const queuedBytes = 8 << 20

// Config configures a Log.
type Config struct {
	// File is written to. When it would grow beyond MaxBytes it is renamed to File.1, and so on; MaxFiles old ones stay.
	File     string
	MaxBytes int64
	MaxFiles int
	// Now is the clock. Nil: time.Now.
	Now      func() time.Time
	Logger   *slog.Logger
	Registry *prometheus.Registry
}

// Log writes events. Recording never blocks: when the disk is too slow, events are dropped, and the next line says how many.
type Log struct {
	cfg     Config
	queue   chan *Event
	bodies  atomic.Int64 // bytes in the queue
	dropped atomic.Uint64
	lost    prometheus.Counter
	file    *file  // nil after a failure: the next event opens it anew
	last    string // hash of the last line
	torn    int    // bytes of a line that was left unfinished
	pending uint64 // lines that are not flushed
}

// Open opens the file and goes on after its last line.
func Open(cfg Config) (*Log, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		cfg: cfg, queue: make(chan *Event, queued),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_dropped_total", Help: "Audit events that were not written, as the disk was too slow or full.",
		}),
	}
	if cfg.Registry != nil {
		cfg.Registry.MustRegister(l.lost)
	}
	var err error
	if l.file, l.last, l.torn, err = open(cfg.File); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return l, nil
}

// Record has an event written soon. A nil Log records nothing.
func (l *Log) Record(e *Event) {
	if l == nil {
		return
	}
	e.complete(l.cfg.Now())
	if size := e.bodies(); l.bodies.Add(size) > queuedBytes {
		l.bodies.Add(-size)
		l.Drop()
		return
	}
	select {
	case l.queue <- e:
	default:
		l.bodies.Add(-e.bodies())
		l.Drop()
	}
}

func (e *Event) bodies() int64 { return int64(len(e.RequestObject) + len(e.ResponseObject)) }

// Drop counts an event that is not recorded: the next line says so.
func (l *Log) Drop() {
	l.dropped.Add(1)
	l.lost.Inc()
}

// Run writes until ctx ends, and then what is still in the queue.
func (l *Log) Run(ctx context.Context) error {
	failing := false
	note := func(err error) {
		if err != nil && !failing {
			l.cfg.Logger.Error("the audit log cannot be written; events are dropped until it can", "file", l.cfg.File, "error", err)
		}
		failing = err != nil
	}
	for {
		select {
		case e := <-l.queue:
			note(l.write(e, len(l.queue) == 0))
		case <-ctx.Done():
			for len(l.queue) > 0 {
				note(l.write(<-l.queue, true))
			}
			if l.file != nil {
				note(l.file.close())
			}
			return ctx.Err()
		}
	}
}

// write appends one event to the chain. What a failure may have lost counts as dropped.
func (l *Log) write(e *Event, flush bool) (err error) {
	l.bodies.Add(-e.bodies())
	dropped := l.dropped.Swap(0)
	l.pending++
	defer func() {
		if err != nil {
			l.dropped.Add(dropped + l.pending)
			l.lost.Add(float64(l.pending))
			l.pending, l.file = 0, nil
		}
	}()
	if l.file == nil {
		if l.file, l.last, l.torn, err = open(l.cfg.File); err != nil {
			return err
		}
	}
	if dropped > 0 {
		e.Annotations[annotationDropped] = strconv.FormatUint(dropped, 10)
	}
	if l.torn > 0 {
		e.Annotations[annotationTorn] = strconv.Itoa(l.torn)
	}
	if l.last != "" {
		e.Annotations[annotationPrevious] = l.last
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := l.file.append(append(line, '\n'), l.cfg.MaxBytes, l.cfg.MaxFiles); err != nil {
		return err
	}
	l.last, l.torn = hash(line), 0
	if !flush {
		return nil
	}
	if err := l.file.flush(); err != nil {
		return err
	}
	l.pending = 0
	return nil
}

// hash names a line, without its end.
func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
