package apiserver_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// stream reads the events of a watch, in short: type, name, and the label "app".
type stream struct {
	t    *testing.T
	read *bufio.Reader
}

func (b *bed) watch(path string) *stream {
	b.t.Helper()
	answer := b.open(call{path: path})
	if answer.StatusCode != 200 {
		data, _ := io.ReadAll(answer.Body)
		b.t.Fatalf("%d %s", answer.StatusCode, data)
	}
	return &stream{b.t, bufio.NewReader(answer.Body)}
}

type event struct {
	Type   string
	Object struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta
		Code     int
		Message  string
	}
}

func (s *stream) next() event {
	s.t.Helper()
	line, err := s.read.ReadBytes('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		s.t.Fatalf("%v: %s", err, line)
	}
	return e
}

func (s *stream) expect(want ...string) {
	s.t.Helper()
	var got []string
	for range want {
		e := s.next()
		got = append(got, fmt.Sprint(e.Type, " ", e.Object.Metadata.Name))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Error(diff)
	}
}

func (b *bed) relabel(name, app string) {
	b.t.Helper()
	_, err := b.client.Modify(b.t.Context(), store.Key{Resource: "configmaps", Namespace: "default", Name: name}, "", func(o api.Object) error {
		o.SetLabels(map[string]string{"app": app})
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) remove(name string) {
	b.t.Helper()
	if _, err := b.client.Delete(b.t.Context(), store.Key{Resource: "configmaps", Namespace: "default", Name: name}, nil); err != nil {
		b.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	b := newBed(t)
	before := b.create(configMap("a", map[string]string{"app": "x"})).GetResourceVersion()
	all := b.watch(configMaps + "?watch=true")
	resumed := b.watch(configMaps + "?watch=1&resourceVersion=" + before)
	selected := b.watch(configMaps + "?watch=1&labelSelector=app%3Dx&resourceVersion=" + before)
	named := b.watch(configMaps + "?watch=1&fieldSelector=metadata.name%3Db")
	elsewhere := b.watch("/api/v1/namespaces/other/configmaps?watch=1&timeoutSeconds=1")

	b.relabel("a", "y")
	b.create(configMap("b", map[string]string{"app": "x"}))
	b.relabel("a", "x")
	b.relabel("b", "x2")
	b.remove("b")
	b.remove("a")

	all.expect("ADDED a", "MODIFIED a", "ADDED b", "MODIFIED a", "MODIFIED b", "DELETED b", "DELETED a")
	resumed.expect("MODIFIED a", "ADDED b", "MODIFIED a", "MODIFIED b", "DELETED b", "DELETED a")
	selected.expect("DELETED a", "ADDED b", "ADDED a", "DELETED b", "DELETED a")
	named.expect("ADDED b", "MODIFIED b", "DELETED b")
	if _, err := elsewhere.read.ReadByte(); err != io.EOF {
		t.Errorf("a watch of another namespace: %v", err)
	}
}

func TestWatchInitialEvents(t *testing.T) {
	b := newBed(t)
	b.create(configMap("a", nil))
	last := b.create(configMap("b", nil)).GetResourceVersion()
	s := b.watch(configMaps + "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan")
	s.expect("ADDED a", "ADDED b")
	mark := s.next()
	if mark.Type != "BOOKMARK" || mark.Object.Metadata.Annotations[metav1.InitialEventsAnnotationKey] != "true" ||
		mark.Object.Metadata.ResourceVersion != last || mark.Object.Kind != "ConfigMap" {
		t.Errorf("%+v", mark)
	}
	b.remove("a")
	s.expect("DELETED a")
}

// A watch that selects nothing of what happens must still tell how far it is, or its client could never come back to it.
func TestWatchBookmarks(t *testing.T) {
	const nothing = configMaps + "?watch=1&allowWatchBookmarks=true&labelSelector=app%3Dnone&resourceVersion="
	b := newBed(t, func(_ *bed, cfg *apiserver.Config) { cfg.BookmarkEvery = 20 * time.Millisecond })
	before := b.create(configMap("a", nil)).GetResourceVersion()
	s := b.watch(nothing + before)
	for range 2 {
		last := b.create(configMap("b", nil)).GetResourceVersion()
		if mark := s.next(); mark.Type != "BOOKMARK" || mark.Object.Metadata.ResourceVersion != last {
			t.Errorf("after a time: %+v, want revision %s", mark, last)
		}
		b.remove("b")
		s.next()
	}

	b = newBed(t)
	before = b.create(configMap("a", nil)).GetResourceVersion()
	s = b.watch(nothing + before + "&timeoutSeconds=1")
	last := b.create(configMap("b", nil)).GetResourceVersion()
	if mark := s.next(); mark.Type != "BOOKMARK" || mark.Object.Metadata.ResourceVersion != last {
		t.Errorf("at the end: %+v, want revision %s", mark, last)
	}
	if _, err := s.read.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// A bookmark at the end of a watch must not stand for changes that were not told.
func TestWatchEndsInTraffic(t *testing.T) {
	b := newBed(t)
	last := b.create(configMap("a", nil)).GetResourceVersion()
	s := b.watch(configMaps + "?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=" + last)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); {
			b.relabelOrCreate("a")
		}
	}()
	defer func() { <-done }()
	for {
		line, err := s.read.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		var e event
		if err != nil || json.Unmarshal(line, &e) != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if revision := e.Object.Metadata.ResourceVersion; e.Type == "BOOKMARK" && revision != last {
			t.Fatalf("bookmark %s after the change %s: every revision is a change", revision, last)
		}
		last = e.Object.Metadata.ResourceVersion
	}
}

func TestWatchTooOld(t *testing.T) {
	b := newBed(t)
	for range store.DefaultHistory + 10 {
		b.relabelOrCreate("a")
	}
	e := b.watch(configMaps + "?watch=1&resourceVersion=2").next()
	if e.Type != "ERROR" || e.Object.Code != 410 || e.Object.Kind != "Status" {
		t.Errorf("%+v", e)
	}
}

// TestWatchOfAnOlderTerm: volatile objects end with their leader, so that a watch cannot go on at the next.
func TestWatchOfAnOlderTerm(t *testing.T) {
	b := newBed(t)
	e := b.watch("/api/v1/namespaces/default/events?watch=1&resourceVersion=7").next()
	if e.Type != "ERROR" || e.Object.Code != 410 {
		t.Errorf("%+v", e)
	}
}

// TestSlowWatch: a client that does not read holds up neither writes nor other watches. When it reads on, it hears that it has
// missed something.
func TestSlowWatch(t *testing.T) {
	b := newBed(t)
	b.create(configMap("a", nil))
	slow, fast := b.watch(configMaps+"?watch=1"), b.watch(configMaps+"?watch=1")
	fast.expect("ADDED a")
	filler := strings.Repeat("x", 100<<10)
	const changes = 200 // 20 MB: more than the history and the buffers of a connection hold
	for i := range changes {
		_, err := b.client.Modify(t.Context(), store.Key{Resource: "configmaps", Namespace: "default", Name: "a"}, "", func(o api.Object) error {
			o.(*corev1.ConfigMap).Data = map[string]string{"filler": filler, "i": fmt.Sprint(i)}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		fast.expect("MODIFIED a")
	}
	for n := 0; ; n++ {
		e := slow.next()
		if e.Type == "ERROR" {
			if e.Object.Code != 410 {
				t.Errorf("%+v", e.Object)
			}
			return
		}
		if n > changes {
			t.Fatal("it was not cut off")
		}
	}
}

// relabelOrCreate makes one change, whatever is there.
func (b *bed) relabelOrCreate(name string) {
	b.t.Helper()
	item, ok := b.durable.Get(store.Key{Resource: "configmaps", Namespace: "default", Name: name})
	if !ok {
		b.create(configMap(name, nil))
		return
	}
	b.relabel(name, store.FormatRevision(item.Revision))
}

func TestWatchTable(t *testing.T) {
	b := newBed(t)
	b.create(configMap("a", nil))
	answer := b.open(call{path: configMaps + "?watch=1", header: accept(tableAccept)})
	lines := bufio.NewReader(answer.Body)
	b.create(configMap("b", nil))
	for i, want := range []string{"a", "b"} {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Object metav1.Table }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Object.Rows[0].Cells[0] != want || (len(e.Object.ColumnDefinitions) > 0) != (i == 0) {
			t.Errorf("event %d: %s", i, line)
		}
	}
}

func TestWatchProtobuf(t *testing.T) {
	b := newBed(t)
	b.create(configMap("a", nil))
	answer := b.open(call{path: configMaps + "?watch=1", header: accept(proto + ";stream=watch")})
	if got := answer.Header.Get("Content-Type"); got != proto+";stream=watch" {
		t.Errorf("content type %s", got)
	}
	var size uint32
	if err := binary.Read(answer.Body, binary.BigEndian, &size); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(answer.Body, frame); err != nil {
		t.Fatal(err)
	}
	var e metav1.WatchEvent
	if err := e.Unmarshal(frame); err != nil || e.Type != "ADDED" {
		t.Fatalf("%v %s", err, e.Type)
	}
	got := &corev1.ConfigMap{}
	if _, _, err := protobuf.NewSerializer(api.Scheme(), api.Scheme()).Decode(e.Object.Raw, nil, got); err != nil || got.Name != "a" || got.ResourceVersion == "" {
		t.Errorf("%v %+v", err, got)
	}
}
