package transport

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

func TestInbox(t *testing.T) {
	one := []*linkpb.Item{{Key: "k", Value: []byte("v")}}
	full := func(epoch, seq uint64, part uint32, more bool) *linkpb.Envelope {
		return &linkpb.Envelope{Epoch: epoch, Seq: seq, Full: true, Part: part, More: more, Items: one}
	}
	increment := func(epoch, seq, base uint64) *linkpb.Envelope {
		return &linkpb.Envelope{Epoch: epoch, Seq: seq, Base: base, Items: one}
	}
	type step struct {
		e    *linkpb.Envelope
		want verdict
	}
	tests := map[string][]step{
		"increments need a whole state first": {{increment(1, 1, 0), vGap}, {full(1, 2, 0, false), vApply}, {increment(1, 3, 0), vApply}},
		"repeats are not applied":             {{full(1, 1, 0, false), vApply}, {full(1, 1, 0, false), vDuplicate}, {increment(1, 2, 0), vApply}, {increment(1, 2, 0), vDuplicate}},
		"a gap":                               {{full(1, 1, 0, false), vApply}, {increment(1, 3, 0), vGap}, {increment(1, 2, 0), vApply}},
		"a base that was applied":             {{full(1, 1, 0, false), vApply}, {increment(1, 5, 1), vApply}, {increment(1, 6, 0), vApply}},
		"a base that was not":                 {{full(1, 1, 0, false), vApply}, {increment(1, 5, 3), vGap}},
		"a stale epoch":                       {{full(2, 1, 0, false), vApply}, {full(1, 9, 0, false), vStale}, {increment(1, 10, 0), vStale}},
		"a new epoch needs a whole state":     {{full(1, 1, 0, false), vApply}, {increment(2, 2, 1), vGap}, {full(2, 1, 0, false), vApply}},
		"parts": {
			{full(1, 1, 0, true), vPart},
			{full(1, 1, 0, true), vDuplicate},
			{full(1, 2, 1, true), vPart},
			{full(1, 3, 2, false), vApply},
			{increment(1, 4, 0), vApply},
		},
		"a part is missing":       {{full(1, 1, 0, true), vPart}, {full(1, 3, 2, false), vGap}, {full(1, 2, 1, false), vGap}},
		"parts that begin again":  {{full(1, 1, 0, true), vPart}, {full(1, 5, 0, true), vPart}, {full(1, 6, 1, false), vApply}},
		"an increment in between": {{full(1, 1, 0, false), vApply}, {full(1, 2, 0, true), vPart}, {increment(1, 4, 0), vGap}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			in := inbox{limit: 1 << 20}
			for i, s := range steps {
				got, b, err := in.receive(s.e)
				if err != nil || got != s.want || (b != nil) != (got == vApply) {
					t.Fatalf("step %d: verdict %d, batch %v, error %v; want verdict %d", i, got, b, err, s.want)
				}
				if b != nil {
					in.applied(b)
				}
			}
		})
	}
}

func TestInboxBoundsParts(t *testing.T) {
	in := inbox{limit: 1 << 20}
	item := []*linkpb.Item{{Key: "k", Value: make([]byte, 300<<10)}}
	for part := range uint32(10) {
		_, _, err := in.receive(&linkpb.Envelope{Epoch: 1, Seq: uint64(part + 1), Full: true, Part: part, More: true, Items: item})
		if err != nil {
			if part < 3 {
				t.Fatalf("refused at part %d", part)
			}
			return
		}
	}
	t.Fatal("a whole state without end was collected")
}

// TestQueue compares the queue with the plain rule: the last value of each key, in the order of the last change.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := queue{maxKeys: 1000, maxBytes: 1 << 20}
		var model []Item
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 4).Draw(t, "op") > 0 {
				item := Item{Key: fmt.Sprint("k", rapid.IntRange(0, 9).Draw(t, "key")), Value: []byte(rapid.StringN(0, 20, -1).Draw(t, "value"))}
				if q.put(item) {
					t.Fatal("dropped below the bounds")
				}
				model = append(slices.DeleteFunc(model, func(m Item) bool { return m.Key == item.Key }), item)
				continue
			}
			limit := rapid.IntRange(0, 100).Draw(t, "limit")
			got := q.take(limit)
			total := 0
			for i, item := range got {
				if item.Key != model[i].Key || string(item.Value) != string(model[i].Value) {
					t.Fatalf("took %v, want %v", got, model)
				}
				total += weight(item)
			}
			if len(got) > 1 && total > limit || len(got) == 0 && len(model) > 0 {
				t.Fatalf("took %d bytes in %d items, limit %d", total, len(got), limit)
			}
			model = model[len(got):]
		}
		bytes := 0
		for _, m := range model {
			bytes += weight(m)
		}
		if q.empty() != (len(model) == 0) || q.bytes != bytes || len(q.slots) > 2*len(model)+20 {
			t.Fatalf("%d slots, %d bytes; want %d items, %d bytes", len(q.slots), q.bytes, len(model), bytes)
		}
	})
}

func TestQueueBounds(t *testing.T) {
	q := queue{maxKeys: 3, maxBytes: 1000}
	dropped := false
	for i := range 5 {
		dropped = q.put(Item{Key: fmt.Sprint(i)}) || dropped
	}
	if got := q.take(1 << 20); !dropped || len(got) != 3 || got[0].Key != "2" {
		t.Fatalf("dropped %v, kept %v; want the three newest", dropped, got)
	}
	q.put(Item{Key: "a", Value: make([]byte, 600)})
	q.put(Item{Key: "b", Value: make([]byte, 600)})
	if got := q.take(1 << 20); len(got) != 1 || got[0].Key != "b" {
		t.Fatalf("kept %d items of 600 bytes, limit 1000", len(got))
	}
}

// TestResume has a peer come back in each of the positions that it can be in.
func TestResume(t *testing.T) {
	now := time.Now()
	item := func(key, value string) Item { return Item{Key: key, Value: []byte(value)} }
	// A peer that has the whole state at 1 and was sent an increment at 2.
	begin := func() *outbox {
		o := newOutbox(7, true)
		o.full([]Item{item("a", "1"), item("b", "1")}, now)
		o.ack(7, 1)
		o.put(item("a", "2"))
		o.put(Item{Key: "b", Deleted: true})
		o.put(item("c", "1"))
		o.next(now)
		return &o
	}
	present := []Item{item("a", "2"), item("c", "1"), item("d", "1")}
	tests := map[string]struct {
		epoch, seq uint64
		resumes    bool
		base       uint64
		keys       string
	}{
		"it has all":               {7, 2, true, 0, "d"},
		"it lacks the last":        {7, 1, true, 1, "a c d -b"},
		"an older epoch":           {6, 2, false, 0, ""},
		"a position not of ours":   {7, 3, false, 0, ""},
		"it has nothing":           {0, 0, false, 0, ""},
		"a position before a full": {7, 0, false, 0, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := begin()
			if got := o.resume(test.epoch, test.seq); got != test.resumes {
				t.Fatalf("resumes %v, want %v", got, test.resumes)
			}
			if !test.resumes {
				return
			}
			o.diff(present)
			e := o.next(now)
			var keys []string
			for _, i := range e.Items {
				if i.Deleted {
					keys = append(keys, "-"+i.Key)
				} else {
					keys = append(keys, i.Key)
				}
			}
			if got := strings.Join(keys, " "); got != test.keys || e.Seq != 3 || e.Base != test.base {
				t.Fatalf("sent %q as %d on %d, want %q as 3 on %d", got, e.Seq, e.Base, test.keys, test.base)
			}
		})
	}
}

func TestOverdue(t *testing.T) {
	now := time.Now()
	o := newOutbox(1, false)
	o.put(Item{Key: "k", Value: []byte("v")})
	sent := o.next(now)
	if again := o.overdue(now.Add(9*time.Second), 10*time.Second); again != nil {
		t.Fatal("sent again too early")
	}
	if again := o.overdue(now.Add(10*time.Second), 10*time.Second); !proto.Equal(again, sent) {
		t.Fatalf("sent again %v, want %v", again, sent)
	}
	if again := o.overdue(now.Add(25*time.Second), 10*time.Second); again != nil {
		t.Fatal("the second try came as early as the first")
	}
	// A whole state is made anew; what went with it and cannot be made anew is not lost.
	o.ack(1, 1)
	o.full([]Item{{Key: "state"}, {Key: "event"}}, now)
	o.flight.extra = []Item{{Key: "event"}}
	o.overdue(now.Add(10*time.Second), 10*time.Second)
	if !o.whole || !o.pending.has("event") {
		t.Fatalf("whole %v, pending %v", o.whole, o.pending.slots)
	}
}

func TestSendable(t *testing.T) {
	items := []Item{{Key: "a"}, {Key: "big", Value: make([]byte, maxItem)}, {Key: ""}, {Key: "b"}}
	got := sendable(items, slog.New(slog.DiscardHandler))
	if len(got) != 2 || got[0].Key != "a" || got[1].Key != "b" {
		t.Fatalf("kept %d items", len(got))
	}
}

// TestParts checks that any state comes out of its parts as it went in, and that each part fits into a message.
func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]int{}
		var items []Item
		for i, size := range rapid.SliceOfN(rapid.IntRange(0, 900<<10), 0, 12).Draw(t, "sizes") {
			want[fmt.Sprint(i)] = size
			items = append(items, Item{Key: fmt.Sprint(i), Value: make([]byte, size)})
		}
		o, in := newOutbox(1, true), inbox{limit: maxDesired}
		parts := o.full(items, time.Now())
		for i, part := range parts {
			if proto.Size(part) > MaxMessage {
				t.Fatalf("part %d has %d bytes", i, proto.Size(part))
			}
			got, b, err := in.receive(part)
			if last := i == len(parts)-1; err != nil || (got == vApply) != last {
				t.Fatalf("part %d of %d: verdict %d, error %v", i, len(parts), got, err)
			}
			if b == nil {
				continue
			}
			have := map[string]int{}
			for _, item := range b.items {
				have[item.Key] = len(item.Value)
			}
			if o.ack(b.epoch, b.seq) == nil || !maps.Equal(have, want) {
				t.Fatalf("got %v, want %v", have, want)
			}
		}
	})
}

// FuzzReceive feeds frames of a stranger to an inbox: it must not panic, go back, or apply what does not follow.
func FuzzReceive(f *testing.F) {
	for _, e := range []*linkpb.Envelope{
		{Epoch: 1, Seq: 1, Full: true, Items: []*linkpb.Item{{Key: "k", Value: []byte("v")}}},
		{Epoch: 1, Seq: 2, Items: []*linkpb.Item{{Key: "k", Deleted: true}}},
		{Epoch: 1, Seq: 9, Full: true, Part: 3, More: true, WantFull: true, Tunnels: []string{"x"}, Redirect: []string{"y"}},
	} {
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		in := inbox{epoch: 1, seq: 1, limit: 1 << 16}
		for _, data := range [][]byte{first, second, first} {
			e := new(linkpb.Envelope)
			if proto.Unmarshal(data, e) != nil {
				continue
			}
			epoch, seq := in.epoch, in.seq
			what, b, err := in.receive(e)
			if (what == vApply) != (b != nil) || (err != nil && b != nil) {
				t.Fatalf("verdict %d with batch %v and error %v", what, b, err)
			}
			if b == nil {
				continue
			}
			if in.applied(b); in.epoch < epoch || (in.epoch == epoch && in.seq <= seq) {
				t.Fatalf("went from %d/%d to %d/%d", epoch, seq, in.epoch, in.seq)
			}
		}
	})
}
