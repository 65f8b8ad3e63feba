package apiserver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// shown is a list in short: names with the label "app".
func shown(list *corev1.ConfigMapList) []string {
	var out []string
	for _, item := range list.Items {
		out = append(out, strings.TrimSuffix(item.Name+"="+item.Labels["app"], "="))
	}
	return out
}

// rest reads the pages that follow.
func (b *bed) rest(path string, list *corev1.ConfigMapList) (out []string) {
	b.t.Helper()
	revision := list.ResourceVersion
	for list.Continue != "" {
		next := &corev1.ConfigMapList{}
		b.get(next, call{path: path + "&continue=" + url.QueryEscape(list.Continue)})
		if next.ResourceVersion != revision {
			b.t.Errorf("a page has resourceVersion %s, the first %s", next.ResourceVersion, revision)
		}
		out = append(out, shown(next)...)
		list = next
	}
	return out
}

// TestPagesShowOneState: whatever changes between the pages, together they are the state of the first.
func TestPagesShowOneState(t *testing.T) {
	for _, path := range []string{configMaps, "/api/v1/configmaps"} {
		b := newBed(t)
		for i := range 6 {
			b.create(configMap(fmt.Sprint("c", i), map[string]string{"app": "old"}))
		}
		var first corev1.ConfigMapList
		b.get(&first, call{path: path + "?limit=2"})
		if first.RemainingItemCount == nil || *first.RemainingItemCount != 4 {
			t.Errorf("remaining %v", first.RemainingItemCount)
		}
		b.create(configMap("c2a", nil))
		b.relabel("c3", "new")
		b.relabel("c3", "newer")
		b.remove("c4")
		b.remove("c5")
		b.create(configMap("c5", map[string]string{"app": "again"}))
		b.remove("c0")
		got := append(shown(&first), b.rest(path+"?limit=2", &first)...)
		if diff := cmp.Diff([]string{"c0=old", "c1=old", "c2=old", "c3=old", "c4=old", "c5=old"}, got); diff != "" {
			t.Error(diff)
		}
		// A watch from there tells what the pages did not show, and nothing twice.
		b.watch(path+"?watch=1&resourceVersion="+first.ResourceVersion).expect(
			"ADDED c2a", "MODIFIED c3", "MODIFIED c3", "DELETED c4", "DELETED c5", "ADDED c5", "DELETED c0")
		var selected corev1.ConfigMapList
		b.get(&selected, call{path: path + "?limit=1&labelSelector=app%3Dold"})
		if got := append(shown(&selected), b.rest(path+"?limit=1&labelSelector=app%3Dold", &selected)...); len(got) != 2 {
			t.Errorf("selected %v, want c1 and c2", got)
		}
	}
}

// TestContinueExpired: a list whose state is gone can be started anew, or gone on with as things are now.
func TestContinueExpired(t *testing.T) {
	b := newBed(t)
	for i := range 4 {
		b.create(configMap(fmt.Sprint("c", i), nil))
	}
	var first corev1.ConfigMapList
	b.get(&first, call{path: configMaps + "?limit=2"})
	for range store.DefaultHistory + 10 {
		b.relabelOrCreate("c0")
	}
	b.create(configMap("c2a", nil))
	var status metav1.Status
	answer, data := b.do(call{path: configMaps + "?limit=2&continue=" + first.Continue})
	if err := json.Unmarshal(data, &status); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusGone || status.Reason != metav1.StatusReasonExpired || status.Continue == "" {
		t.Fatalf("%d %s", answer.StatusCode, data)
	}
	var second corev1.ConfigMapList
	b.get(&second, call{path: configMaps + "?limit=2&continue=" + status.Continue})
	if got := append(shown(&second), b.rest(configMaps+"?limit=2", &second)...); !cmp.Equal([]string{"c2", "c2a", "c3"}, got) {
		t.Errorf("went on with %v", got)
	}
	if second.ResourceVersion == first.ResourceVersion {
		t.Error("the present state has the resourceVersion of the old one")
	}
	for _, broken := range []string{"x", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTIsInN0YXJ0IjoieC95In0"} { // the second is of revision -2
		if answer, data := b.do(call{path: configMaps + "?limit=2&continue=" + broken}); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", broken, answer.StatusCode, data)
		}
	}
}

// TestResourceVersionMatch goes through what a list may ask for.
func TestResourceVersionMatch(t *testing.T) {
	b := newBed(t)
	old := b.create(configMap("a", map[string]string{"app": "1"})).GetResourceVersion()
	b.relabel("a", "2")
	last := b.create(configMap("b", nil)).GetResourceVersion()
	for query, want := range map[string][]string{
		"":                       {"a=2", "b"},
		"resourceVersion=0":      {"a=2", "b"},
		"resourceVersion=" + old: {"a=2", "b"},
		"resourceVersion=0&resourceVersionMatch=NotOlderThan":                                    {"a=2", "b"},
		"resourceVersion=" + old + "&resourceVersionMatch=NotOlderThan":                          {"a=2", "b"},
		"resourceVersion=" + old + "&resourceVersionMatch=NotOlderThan&limit=5":                  {"a=2", "b"},
		"resourceVersion=" + old + "&resourceVersionMatch=Exact":                                 {"a=1"},
		"resourceVersion=" + old + "&resourceVersionMatch=Exact&labelSelector=app%3D1":           {"a=1"},
		"resourceVersion=" + old + "&resourceVersionMatch=Exact&labelSelector=app%3D2":           nil,
		"resourceVersion=" + old + "&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Db": nil,
		"resourceVersion=" + old + "&limit=5":                                                    {"a=1"},
		"resourceVersion=0&limit=5":                                                              {"a=2", "b"},
		"resourceVersion=" + last + "&resourceVersionMatch=Exact":                                {"a=2", "b"},
	} {
		var list corev1.ConfigMapList
		b.get(&list, call{path: configMaps + "?" + query})
		if diff := cmp.Diff(want, shown(&list)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
		if exact := len(want) < 2; exact && list.ResourceVersion != old {
			t.Errorf("%s: resourceVersion %s, want %s", query, list.ResourceVersion, old)
		}
	}
	for range store.DefaultHistory + 10 {
		b.relabelOrCreate("b")
	}
	answer, data := b.do(call{path: configMaps + "?resourceVersionMatch=Exact&resourceVersion=" + old})
	if answer.StatusCode != http.StatusGone {
		t.Errorf("a revision that is gone: %d %s", answer.StatusCode, data)
	}
}

// onceAsked lets a follower see a change only after it has asked the leader how far it must have read.
type onceAsked struct {
	http.RoundTripper
	then func()
}

func (f onceAsked) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := f.RoundTripper.RoundTrip(r)
	go f.then()
	return answer, err
}

// TestReadsAreLinearizable: a follower that is behind answers a read only when it has all that was acknowledged before, unless the
// client takes what is there.
func TestReadsAreLinearizable(t *testing.T) {
	for _, path := range []string{configMaps, configMaps + "/a", configMaps + "?limit=1", configMaps + "?watch=1&timeoutSeconds=1"} {
		leader := newBed(t)
		made := leader.create(configMap("a", nil))
		revision, err := strconv.ParseUint(made.GetResourceVersion(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		behind := store.New(store.Config{Kinds: api.Kinds(), FirstRevision: revision - 1})
		follower := &bed{t: t, durable: behind, consensus: &consensus{durable: behind}}
		follower.consensus.leader.Store("leader:6443")
		key := store.Key{Resource: "configmaps", Namespace: "default", Name: "a"}
		item, _ := leader.durable.Get(key)
		follower.serve(apiserver.New(apiserver.Config{
			Client:  store.NewClient(store.ClientConfig{Durable: behind, Propose: unable{}}),
			Durable: behind, Consensus: follower.consensus,
			Forward: onceAsked{toServer{leader}, func() {
				_ = behind.Apply(revision, store.Txn{Ops: []store.Op{{Key: key, Value: item.Value, Expect: store.Any}}})
			}},
		}).Handler())
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		if answer, data := follower.do(call{path: path + separator + "resourceVersion=0"}); strings.Contains(string(data), `"uid"`) {
			t.Errorf("%s from memory waited for the leader: %d %s", path, answer.StatusCode, data)
		}
		if answer, data := follower.do(call{path: path}); !strings.Contains(string(data), string(made.GetUID())) {
			t.Errorf("%s is old: %d %s", path, answer.StatusCode, data)
		}
	}
}

// padlock is a Sealer with numbers for keys.
type padlock struct{ oldest, newest byte }

func (p *padlock) Seal(plain, _ []byte) ([]byte, error) {
	return append([]byte{p.newest}, plain...), nil
}

func (p *padlock) Open(sealed, _ []byte) ([]byte, error) {
	_, err := p.Check(sealed)
	return sealed[1:], err
}

func (p *padlock) Check(sealed []byte) (stale bool, err error) {
	if sealed[0] < p.oldest {
		return false, errors.New("its key was dropped")
	}
	return sealed[0] < p.newest, nil
}

// TestPastOfSecrets: once the key of the old values was dropped, their past is gone, and the present is there.
func TestPastOfSecrets(t *testing.T) {
	const path = "/api/v1/namespaces/default/secrets"
	lock := &padlock{1, 1}
	durable := store.New(store.Config{Kinds: api.Kinds(), Sealer: lock})
	b := &bed{t: t, durable: durable, consensus: &consensus{durable: durable}}
	b.consensus.leads.Store(true)
	b.client = store.NewClient(store.ClientConfig{Durable: durable, Propose: store.NewLocal(durable)})
	b.serve(apiserver.New(apiserver.Config{Client: b.client, Durable: durable, Consensus: b.consensus}).Handler())
	for _, name := range []string{"a", "b", "c"} {
		b.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}})
	}
	var first, present corev1.SecretList
	b.get(&first, call{path: path + "?limit=1"})
	lock.newest = 2
	for _, name := range []string{"a", "b", "c"} {
		if err := b.client.Reseal(t.Context(), store.Key{Resource: "secrets", Namespace: "default", Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	b.get(&present, call{path: path + "?limit=1&continue=" + first.Continue}) // the old key is still there
	lock.oldest = 2
	for _, query := range []string{"limit=1&continue=" + first.Continue, "resourceVersionMatch=Exact&resourceVersion=" + first.ResourceVersion} {
		if answer, data := b.do(call{path: path + "?" + query}); answer.StatusCode != http.StatusGone {
			t.Errorf("%s: %d %s", query, answer.StatusCode, data)
		}
	}
	if b.get(&present, call{path: path}); len(present.Items) != 3 {
		t.Errorf("%d secrets", len(present.Items))
	}
}
