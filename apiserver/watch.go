package apiserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

const (
	// shortestWatch and twice that is how long a watch lasts when its client does not say.
	shortestWatch = 30 * time.Minute
	// watchWrite is how long a client may take to read; one that is slower is cut off and lists again.
	watchWrite = 30 * time.Second
)

// watchStream is one watch: what it selects, and how it is told.
type watchStream struct {
	server    *Server
	req       *request
	w         http.ResponseWriter
	control   *http.ResponseController
	out       output
	sel       *selector
	bookmarks bool
	columns   bool      // a Table's columns have been told
	told      uint64    // what the client can go on from: the revision of the last event or bookmark
	last      time.Time // when it heard that
}

func (s *Server) serveWatch(w http.ResponseWriter, req *request) error {
	out, err := req.negotiate()
	if err != nil {
		return err
	}
	if out.media == mediaYAML {
		return errNotAcceptable()
	}
	sel, err := s.newSelector(req)
	if err != nil {
		return err
	}
	opts, err := listOptions(req)
	if err != nil {
		return err
	}
	from, err := s.cfg.Client.ReaderFor(req.kind, req.namespace)
	if err != nil {
		return err
	}
	asked, err := s.atRevision(req.Context(), from, opts.ResourceVersion)
	if err != nil {
		return err
	}
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	fromNow := opts.SendInitialEvents != nil && !initial && asked == 0
	stream := &watchStream{
		server: s, req: req, w: w, control: http.NewResponseController(w), out: out, sel: sel, bookmarks: opts.AllowWatchBookmarks,
	}
	var items []store.Item
	var watcher *store.Watcher
	switch {
	case asked != 0 && !initial:
		watcher, err = from.Watch(req.stored(), req.namespace, asked)
		stream.told = asked
	default:
		items, stream.told, watcher = from.ListAndWatch(req.stored(), req.namespace)
		if fromNow {
			items = nil
		}
	}
	if now, gone := s.cfg.Client.ReaderFor(req.kind, req.namespace); gone != nil || now != from {
		if watcher != nil {
			watcher.Close()
		}
		return errNoLeader() // the lead was lost in between: nothing would ever end this watch
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	s.begin(w, req, http.StatusOK, out.contentType(true))
	if err != nil {
		stream.fail(errExpired(asked, from.Revision()))
		return nil
	}
	defer watcher.Close()
	ctx, cancel := context.WithTimeout(req.Context(), watchTimeout(opts))
	defer cancel()
	if err := stream.run(ctx, items, initial, watcher); err != nil {
		s.cfg.Logger.Debug("a watch ended", "path", req.URL.Path, "error", err)
	}
	return nil
}

// watchTimeout spreads the ends of watches, so that clients do not come back all at once.
func watchTimeout(opts *metav1.ListOptions) time.Duration {
	if t := opts.TimeoutSeconds; t != nil && *t > 0 {
		return time.Duration(*t) * time.Second
	}
	return shortestWatch + rand.N(shortestWatch)
}

// run tells the initial objects and then every change until the watch ends.
func (t *watchStream) run(ctx context.Context, items []store.Item, initial bool, watcher *store.Watcher) error {
	if err := t.start(items, initial); err != nil {
		if errors.Is(err, store.ErrSealed) {
			t.fail(apierrors.NewInternalError(err))
		}
		return err
	}
	for {
		events, err := t.next(ctx, watcher)
		over := ctx.Err() != nil
		switch {
		case err == nil:
			err = t.tell(events) // also when the time is over: a bookmark says that they were told
			if errors.Is(err, store.ErrSealed) {
				t.fail(errExpired(t.told, watcher.Progress())) // the key of an old value was dropped: the new ones can be listed
				return err
			}
		case over, errors.Is(err, context.DeadlineExceeded):
			err = nil
		default:
			t.fail(errExpired(t.told, watcher.Progress()))
			return err
		}
		// A client whose watch is over comes back, and then need not hear old news.
		if err == nil && t.bookmarks && (over || time.Since(t.last) >= t.server.cfg.BookmarkEvery) {
			err = t.bookmark(watcher.Progress(), nil)
		}
		if err != nil || over {
			return err
		}
	}
}

// next waits for changes; a client that wants bookmarks is not kept waiting for longer than a bookmark's time.
func (t *watchStream) next(ctx context.Context, watcher *store.Watcher) ([]store.Event, error) {
	if t.bookmarks {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t.last.Add(t.server.cfg.BookmarkEvery))
		defer cancel()
	}
	return watcher.Next(ctx)
}

func (t *watchStream) start(items []store.Item, initial bool) error {
	t.last = time.Now()
	for _, item := range items {
		obj, ok, err := t.sel.matchesItem(item)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := t.send(watch.Added, obj); err != nil {
			return err
		}
	}
	if initial {
		return t.bookmark(t.told, map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return t.flush()
}

func (t *watchStream) tell(events []store.Event) error {
	for _, e := range events {
		kind, obj, err := t.seen(e)
		if err != nil {
			return err
		}
		if obj == nil {
			continue
		}
		if err := t.send(kind, obj); err != nil {
			return err
		}
		t.told, t.last = e.Item.Revision, time.Now()
	}
	return t.flush()
}

// seen is an event as the selector sees it: an object that begins to match is added, one that ceases to is deleted. A nil
// object was not seen and is not.
func (t *watchStream) seen(e store.Event) (watch.EventType, api.Object, error) {
	if t.sel.everything() {
		obj, _, err := t.sel.matchesItem(e.Item)
		return [...]watch.EventType{store.Added: watch.Added, store.Modified: watch.Modified, store.Deleted: watch.Deleted}[e.Type], obj, err
	}
	older, was, err := t.sel.matchesItem(store.Item{Key: e.Item.Key, Revision: e.Item.Revision, Value: e.Prev})
	if err != nil {
		return "", nil, err
	}
	if e.Type == store.Deleted {
		if was {
			return watch.Deleted, older, nil
		}
		return "", nil, nil
	}
	newer, is, err := t.sel.matchesItem(e.Item)
	switch {
	case err != nil:
		return "", nil, err
	case is && was:
		return watch.Modified, newer, nil
	case is:
		return watch.Added, newer, nil
	case was:
		return watch.Deleted, older, nil
	}
	return "", nil, nil
}

func (t *watchStream) send(kind watch.EventType, obj api.Object) error {
	shaped, err := t.server.shape(t.req, t.out, t.req.kind, obj, !t.columns)
	if err != nil {
		return err
	}
	t.columns = true
	return t.frame(kind, shaped)
}

// bookmark tells that everything up to a revision has been told.
func (t *watchStream) bookmark(revision uint64, annotations map[string]string) error {
	t.last = time.Now()
	if revision <= t.told && annotations == nil {
		return nil
	}
	t.told = revision
	mark := t.req.kind.Storage().New()
	mark.SetResourceVersion(store.FormatRevision(revision))
	mark.SetAnnotations(annotations)
	var shaped runtime.Object
	switch t.out.as {
	case asTable:
		table := &metav1.Table{TypeMeta: tableMeta()}
		table.ResourceVersion = mark.GetResourceVersion()
		raw, err := encodeJSON(partial(mark), false)
		if err != nil {
			return err
		}
		// The annotation of the end of the initial events has its place in a row's object only.
		if annotations != nil {
			table.Rows = []metav1.TableRow{{Object: runtime.RawExtension{Raw: raw}}}
		}
		shaped = table
	case asPartial, asPartialList:
		shaped = partial(mark)
	default:
		shown, err := show(t.req.kind, mark)
		if err != nil {
			return err
		}
		shaped = shown
	}
	if err := t.frame(watch.Bookmark, shaped); err != nil {
		return err
	}
	return t.flush()
}

// fail ends the stream with an error event: the header has long been sent.
func (t *watchStream) fail(err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if t.frame(watch.Error, &status) == nil {
		_ = t.flush() // the client has gone: there is nobody to tell
	}
}

// frame writes one event: a line of JSON, a Protobuf message behind its length, or an item of CBOR.
func (t *watchStream) frame(kind watch.EventType, obj runtime.Object) error {
	data, err := t.server.encode(output{media: t.out.media}, obj)
	if err != nil {
		return err
	}
	event := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: data}}
	switch t.out.media {
	case mediaProtobuf:
		if data, err = event.Marshal(); err == nil {
			data = append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
		}
	case mediaCBOR:
		data, err = direct.Marshal(event)
	default:
		data = fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", kind, data[:len(data)-1])
	}
	if err != nil {
		return fmt.Errorf("apiserver: encode an event: %w", err)
	}
	_ = t.control.SetWriteDeadline(time.Now().Add(watchWrite)) // a recorder in a test has no deadlines
	_, err = t.w.Write(data)
	return err
}

func (t *watchStream) flush() error {
	if err := t.control.Flush(); err != nil {
		return err
	}
	_ = t.control.SetWriteDeadline(time.Time{})
	return nil
}
