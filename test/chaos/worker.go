package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	// clients is how many workers there are, and think the mean of their pauses.
	clients = 8
	think   = 12 * time.Millisecond
	// opTimeout is when a client gives up on an answer: the outcome is unknown then.
	opTimeout = 1500 * time.Millisecond
	// avoidFor is how long a client keeps away from a server that did not answer.
	avoidFor = 1500 * time.Millisecond
	// keys are in use at a time; after turn there are new ones, so that no history of a key grows too long to check.
	keys = 6
	turn = 4 * time.Second
)

// history is what clients did and what they were told.
type history struct {
	since func() time.Duration
	name  string // prefix of the keys

	mu        sync.Mutex
	ops       []Op
	snapshots []snapshot
}

// snapshot is a list: the objects of the namespace as they were at a revision.
type snapshot struct {
	who      string
	revision uint64
	items    map[string]version
}

// version is an object's revision and value.
type version struct {
	revision uint64
	value    string
}

func (h *history) add(o Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// keysAt are the keys in use at a time of the episode.
func (h *history) keysAt(elapsed time.Duration) []string {
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d-k%d", h.name, elapsed/turn, i)
	}
	return names
}

// worker is one client: it does one operation after another, each at any server.
type worker struct {
	id      int
	rng     *rand.Rand
	apis    []*api
	h       *history
	began   time.Duration
	counter int
	seen    map[string]version // what it knows of the objects
	avoid   []time.Duration    // by server: until when
}

func newWorker(id int, seed uint64, c *Cluster, h *history) *worker {
	w := &worker{
		id: id, rng: rand.New(rand.NewPCG(seed, uint64(id)+1)), h: h, began: h.since(), seen: map[string]version{},
		avoid: make([]time.Duration, len(c.servers)),
	}
	for _, s := range c.servers {
		w.apis = append(w.apis, s.admin.again())
	}
	return w
}

// run works until ctx ends; an operation that is under way is finished.
func (w *worker) run(ctx context.Context) {
	defer func() {
		for _, a := range w.apis {
			a.http.CloseIdleConnections()
		}
	}()
	for {
		w.once()
		select {
		case <-ctx.Done():
			return
		case <-time.After(think/2 + upTo(w.rng, think)):
		}
	}
}

func (w *worker) once() {
	names := w.h.keysAt(w.h.since() - w.began)
	o := Op{Client: w.id, Server: w.pick(), Key: names[w.rng.IntN(len(names))]}
	known, exists := w.seen[o.Key]
	roll := w.rng.IntN(100)
	switch {
	case roll < 3:
		w.list(o.Server, names)
		return
	case roll < 38:
		o.Kind = Get
	case roll < 50 || !exists && roll < 75:
		o.Kind, o.Value = Create, w.value()
	case roll < 70:
		o.Kind, o.Value = Put, w.value()
		if exists && roll < 53 {
			o.Value = known.value // perhaps nothing new
		}
	case roll < 90 && exists:
		o.Kind, o.Value, o.Expect = Update, w.value(), known.revision
	case roll < 94 && exists:
		o.Kind, o.Expect = DeleteAt, known.revision
	case roll < 97:
		o.Kind = Delete
	default:
		o.Kind = Get
	}
	w.do(o, 0)
}

// value is unlike any other.
func (w *worker) value() string {
	w.counter++
	return fmt.Sprintf("%s-c%d-%d", w.h.name, w.id, w.counter)
}

// pick chooses a server, and keeps away from those that have just not answered if there are others.
func (w *worker) pick() int {
	now := w.h.since()
	var open []int
	for i, until := range w.avoid {
		if until <= now {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return w.rng.IntN(len(w.apis))
	}
	return open[w.rng.IntN(len(open))]
}

// do makes the operation and records it.
func (w *worker) do(o Op, filler int) Op {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	method, path, body := o.request(filler)
	var got thing
	o.Call = w.h.since()
	code, reason, err := w.apis[o.Server].do(ctx, method, path, body, &got)
	o.Return = w.h.since()
	o.judge(code, reason, err, &got)
	if err != nil {
		w.avoid[o.Server] = o.Return + avoidFor
	}
	w.learn(o)
	if err != nil && neverSent(err) {
		return o // nothing was asked
	}
	w.h.add(o)
	return o
}

func (o *Op) request(filler int) (method, path string, body any) {
	one := configMaps + "/" + o.Key
	switch o.Kind {
	case Get:
		return http.MethodGet, one, nil
	case Create:
		return http.MethodPost, configMaps, configMap(o.Key, o.Value, filler)
	case Put:
		return http.MethodPut, one, configMap(o.Key, o.Value, filler)
	case Update:
		t := configMap(o.Key, o.Value, filler)
		t.Metadata.ResourceVersion = fmt.Sprint(o.Expect)
		return http.MethodPut, one, t
	case DeleteAt:
		return http.MethodDelete, one, map[string]any{
			"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": map[string]string{"resourceVersion": fmt.Sprint(o.Expect)},
		}
	default:
		return http.MethodDelete, one, nil
	}
}

// judge says what an answer means. Only what names the state of the object is a refusal; all else leaves the outcome open.
func (o *Op) judge(code int, reason string, err error, got *thing) {
	switch {
	case err != nil:
		o.Result = Unknown
	case code < 300:
		o.Result, o.Revision = Done, got.revision()
		if o.Kind == Get {
			o.Got = got.Data["value"]
		}
	case code == http.StatusNotFound && reason == "NotFound":
		o.Result = Missing
	case code == http.StatusConflict && reason == "AlreadyExists":
		o.Result = Exists
	case code == http.StatusConflict && reason == "Conflict":
		o.Result = Conflict
	default:
		o.Result = Unknown
	}
}

// learn keeps what the next conditional write can build on.
func (w *worker) learn(o Op) {
	switch {
	case o.Result == Missing, o.Result == Done && (o.Kind == Delete || o.Kind == DeleteAt):
		delete(w.seen, o.Key)
	case o.Result == Done && o.Kind == Get:
		w.seen[o.Key] = version{o.Revision, o.Got}
	case o.Result == Done:
		w.seen[o.Key] = version{o.Revision, o.Value}
	}
}

// list reads all objects: a snapshot, and a linearizable read of each key.
func (w *worker) list(server int, names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	call := w.h.since()
	snap, err := listAll(ctx, w.apis[server], fmt.Sprintf("list of client %d at server-%d", w.id, server+1))
	if err != nil {
		return
	}
	end := w.h.since()
	for _, name := range names {
		o := Op{Client: w.id, Server: server, Kind: Get, Key: name, Result: Missing, Call: call, Return: end}
		if v, ok := snap.items[name]; ok {
			o.Result, o.Revision, o.Got = Done, v.revision, v.value
		}
		w.h.add(o)
	}
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.snapshots = append(w.h.snapshots, snap)
}

func listAll(ctx context.Context, a *api, who string) (snapshot, error) {
	var l list
	code, reason, err := a.do(ctx, http.MethodGet, configMaps, nil, &l)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("list: %d %s", code, reason)
	}
	if err != nil {
		return snapshot{}, err
	}
	snap := snapshot{who: who, items: map[string]version{}}
	if _, err := fmt.Sscan(l.Metadata.ResourceVersion, &snap.revision); err != nil {
		return snapshot{}, err
	}
	for i := range l.Items {
		snap.items[l.Items[i].Metadata.Name] = version{l.Items[i].revision(), l.Items[i].Data["value"]}
	}
	return snap, nil
}

// upTo is a random time below a limit.
func upTo(rng *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(limit)))
}
