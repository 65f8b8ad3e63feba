package powercut

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
)

const (
	namespace = "powercut"
	// readyName is the object that a server is tried with.
	readyName = "ready"
	// rootCA is made by the server itself.
	rootCA   = "kube-root-ca.crt"
	listPath = "/api/v1/namespaces/" + namespace + "/configmaps"
)

// object is what is known of one ConfigMap.
type object struct {
	value    string
	uid      string
	revision uint64 // 0: no such object
}

func (o object) String() string {
	if o.revision == 0 && o.value == "" {
		return "nothing"
	}
	sum := sha256.Sum256([]byte(o.value))
	return fmt.Sprintf("%s… (%d bytes, revision %d)", hex.EncodeToString(sum[:4]), len(o.value), o.revision)
}

func makeNamespace(ctx context.Context, client *kube.Client) error {
	err := client.Do(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace, nil, nil)
	if !apierrors.IsNotFound(err) {
		return err
	}
	err = client.Do(ctx, http.MethodPost, "/api/v1/namespaces",
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, nil)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// write creates (POST), changes (PUT, which creates what is not there) or deletes a ConfigMap.
func write(ctx context.Context, client *kube.Client, method, name string, o object) (object, error) {
	in := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: map[string]string{"value": o.value},
	}
	var out corev1.ConfigMap
	var err error
	switch method {
	case http.MethodDelete:
		return object{}, client.Do(ctx, method, listPath+"/"+name, nil, nil)
	case http.MethodPost:
		err = client.Do(ctx, method, listPath, in, &out)
	default:
		if err = client.Do(ctx, method, listPath+"/"+name, in, &out); apierrors.IsNotFound(err) {
			err = client.Do(ctx, http.MethodPost, listPath, in, &out)
		}
	}
	if err != nil {
		return object{}, err
	}
	return seen(&out)
}

func seen(c *corev1.ConfigMap) (object, error) {
	revision, err := strconv.ParseUint(c.ResourceVersion, 10, 64)
	return object{value: c.Data["value"], uid: string(c.UID), revision: revision}, err
}

// list reads all objects, linearizably.
func list(ctx context.Context, client *kube.Client) (map[string]object, error) {
	var l corev1.ConfigMapList
	if err := client.Do(ctx, http.MethodGet, listPath, nil, &l); err != nil {
		return nil, err
	}
	objects := map[string]object{}
	for i := range l.Items {
		o, err := seen(&l.Items[i])
		if err != nil {
			return nil, err
		}
		objects[l.Items[i].Name] = o
	}
	return objects, nil
}

// ledger knows what was acknowledged. Every name is written by one writer only, one write after the other, so that there is at
// most one write of which nobody knows whether it happened.
type ledger struct {
	mu      sync.Mutex
	known   map[string]object   // as acknowledged last; the zero object was deleted or never made
	maybe   map[string][]object // written since, with unknown outcome
	highest uint64              // revision acknowledged
	acks    int
}

func newLedger() *ledger { return &ledger{known: map[string]object{}, maybe: map[string][]object{}} }

func (l *ledger) clone() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &ledger{known: maps.Clone(l.known), maybe: map[string][]object{}, highest: l.highest}
	for name, objects := range l.maybe {
		c.maybe[name] = slices.Clone(objects)
	}
	return c
}

func (l *ledger) trying(name string, o object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.maybe[name] = append(l.maybe[name], o)
}

func (l *ledger) acknowledged(name string, o object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[name] = o
	delete(l.maybe, name)
	l.highest = max(l.highest, o.revision)
	l.acks++
}

func (l *ledger) acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// check compares what a server has with what it acknowledged, and says what is wrong.
func (l *ledger) check(have map[string]object) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wrong []string
	owners := map[uint64]string{}
	names := maps.Clone(have)
	maps.Copy(names, l.known)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		got, want := have[name], l.known[name]
		if name == readyName || name == rootCA {
			continue
		}
		if got.revision != 0 {
			if other := owners[got.revision]; other != "" {
				wrong = append(wrong, fmt.Sprintf("%s and %s have the same revision %d", other, name, got.revision))
			}
			owners[got.revision] = name
		}
		if got != want && !l.possible(name, got) {
			wrong = append(wrong, fmt.Sprintf("%s was acknowledged as %v, but is %v", name, want, got))
		}
	}
	return wrong
}

// possible says whether an object is as a write of unknown outcome would have made it. Such a write comes after all that was
// acknowledged for the name.
func (l *ledger) possible(name string, got object) bool {
	return slices.ContainsFunc(l.maybe[name], func(o object) bool {
		deleted := o.value == "" && got.revision == 0
		return deleted || got.value == o.value && got.revision > l.known[name].revision
	})
}

// writer is one client with names of its own.
type writer struct {
	client *kube.Client
	ledger *ledger
	rng    *rand.Rand
	name   string
	names  int
	big    int // of so many writes one is large
	until  int // so many writes are acknowledged to all, 0 for no end
}

// run writes until it is enough, a write fails or ctx ends, and returns why it failed.
func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil && (w.until == 0 || w.ledger.acked() < w.until) {
		name := fmt.Sprintf("%s-%d", w.name, w.rng.IntN(w.names))
		method, o := w.choose(name)
		w.ledger.trying(name, o)
		got, err := write(ctx, w.client, method, name, o)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, name, err)
		}
		w.ledger.acknowledged(name, got)
	}
	return nil
}

func (w *writer) choose(name string) (method string, o object) {
	w.ledger.mu.Lock()
	exists := w.ledger.known[name].revision != 0
	w.ledger.mu.Unlock()
	value := randomValue(w.rng, w.big)
	switch {
	case !exists:
		return http.MethodPost, object{value: value}
	case w.rng.IntN(8) == 0:
		return http.MethodDelete, object{}
	default:
		return http.MethodPut, object{value: value}
	}
}

// randomValue is short, but one of so many is up to 64 KiB.
func randomValue(rng *rand.Rand, big int) string {
	size := 16 + rng.IntN(240)
	if rng.IntN(big) == 0 {
		size = 1<<10 + rng.IntN(63<<10)
	}
	b := make([]byte, size/2)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return hex.EncodeToString(b)
}
