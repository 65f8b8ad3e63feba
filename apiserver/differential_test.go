//go:build shoal_differential

package apiserver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/test/upstream"
)

// difference is one between this API server and Kubernetes' own that is meant to be, or not mended yet.
type difference struct {
	Kind    string `json:"kind"`    // of the object; empty: any
	Request string `json:"request"` // a regular expression for the method, a blank and what the request is
	Shows   string `json:"shows"`   // a regular expression for the difference
	Why     string `json:"why"`
}

// differential sends the same requests to this API server and to Kubernetes' own.
type differential struct {
	*testing.T
	bed    *bed
	up     *upstream.Server
	client *http.Client
	known  []difference
	used   map[int]bool

	requests, differ int
}

// TestDifferential compares status codes, bodies and objects, field by field, for good manifests of every kind and for thousands of bad
// ones, which are made of the good ones by changing them in one place. testdata/differences.yaml has the differences that are known.
func TestDifferential(t *testing.T) {
	const binary = "../bin/kube-apiserver"
	if err := upstream.Missing(binary); err != nil {
		t.Fatal(err)
	}
	d := &differential{T: t, bed: newBed(t, withRoles), up: upstream.Start(t, binary), used: map[int]bool{}}
	d.client = &http.Client{Transport: &http.Transport{TLSClientConfig: d.up.TLS, MaxIdleConnsPerHost: 8}, Timeout: 30 * time.Second}
	data, err := os.ReadFile("testdata/differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, &d.known); err != nil {
		t.Fatal(err)
	}
	eachKind(t, func(c *kindCase, object *unstructured.Unstructured) {
		if kind := api.ByGVK(object.GroupVersionKind()); !strings.HasSuffix(kind.GVK.Group, "shoal.dev") {
			t.Run(object.GroupVersionKind().String(), func(t *testing.T) {
				one := *d
				one.T = t
				one.life(c, object, kind)
				d.requests, d.differ = one.requests, one.differ
			})
		}
	})
	t.Logf("%d requests, %d answered differently", d.requests, d.differ)
	for i, known := range d.known {
		if !d.used[i] && !t.Failed() {
			t.Errorf("there is no such difference any more: %+v", known)
		}
	}
}

// life takes an object through its life on both servers.
func (d *differential) life(c *kindCase, object *unstructured.Unstructured, k *api.Kind) {
	collection := collectionOf(k)
	path := collection + "/" + object.GetName()
	good := mustJSON(d.T, object)
	post := func(what, body string) {
		d.compare(k, "POST "+what, call{method: "POST", path: collection + "?dryRun=All&fieldManager=test&fieldValidation=Strict", body: body})
	}
	for _, bad := range c.Bad {
		post(string(bad.Patch), merged(d.T, good, bad.Patch))
	}
	for what, body := range mutants(d.T, object.Object) {
		post(what, body)
	}
	d.compare(k, "POST good", call{method: "POST", path: collection + "?fieldManager=test", body: good})
	d.compare(k, "POST again", call{method: "POST", path: collection + "?fieldManager=test", body: good})
	d.compare(k, "GET", call{path: path})
	d.compare(k, "TABLE", call{path: path, header: accept(tableAccept)})
	if c.Immutable != nil {
		d.compare(k, "PATCH immutable", patchOf(path+"?fieldManager=test", c.Immutable.Patch))
	}
	if c.Change != nil {
		d.compare(k, "PATCH change", patchOf(path+"?fieldManager=test", c.Change))
	}
	if c.Status != nil {
		d.compare(k, "PATCH status", patchOf(path+"/status?fieldManager=test", c.Status))
	}
	applied := call{method: "PATCH", path: path + "?fieldManager=other&force=true", body: good, header: map[string]string{"Content-Type": "application/apply-patch+yaml"}}
	d.compare(k, "APPLY", applied)
	d.compare(k, "DELETE", call{method: "DELETE", path: path + "?propagationPolicy=Background"})
	d.compare(k, "GET deleted", call{path: path})
}

// mutants are the JSON of the object with one place of it changed, by what was changed.
func mutants(t *testing.T, object map[string]any) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(path string, get func() any, set func(any), remove func())
	note := func(what string) { all[what] = mustJSON(t, object) }
	walk = func(path string, get func() any, set func(any), remove func()) {
		before := get()
		others := []any{nil, "", "Not a Name!", "-1", -1.0, 0.0, 1e12, true, []any{}, map[string]any{}, []any{"x", "x"}, map[string]any{"unknown": "x"}}
		for _, other := range others {
			if cmp.Equal(before, other) {
				continue
			}
			set(other)
			note(fmt.Sprintf("%s = %s", path, mustJSON(t, other)))
		}
		set(before)
		if remove != nil {
			remove()
			note(path + " removed")
			set(before)
		}
		switch v := before.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(path+"."+key, func() any { return v[key] }, func(x any) { v[key] = x }, func() { delete(v, key) })
			}
			v["unknown"] = "x"
			note(path + ".unknown added")
			delete(v, "unknown")
		case []any:
			for i := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), func() any { return v[i] }, func(x any) { v[i] = x }, nil)
			}
			if len(v) > 0 {
				set(append(slices.Clone(v), v[0]))
				note(path + " with its first item twice")
				set(before)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if key == "apiVersion" || key == "kind" {
			continue
		}
		walk(key, func() any { return object[key] }, func(x any) { object[key] = x }, func() { delete(object, key) })
	}
	return all
}

// compare makes a request at both servers.
func (d *differential) compare(k *api.Kind, what string, c call) {
	d.Helper()
	d.requests++
	c.as = "shoal-admin|system:masters"
	ours, body := d.bed.do(c)
	theirs, reference := d.reference(c)
	got, want := normal(d.T, ours.StatusCode, body), normal(d.T, theirs.StatusCode, reference)
	diff := strings.Join(differences("", want, got), "\n")
	if diff == "" {
		return
	}
	d.differ++
	for i, known := range d.known {
		if (known.Kind == "" || known.Kind == k.GVK.Kind) && matches(known.Request, what) && matches(known.Shows, diff) {
			d.used[i] = true
			return
		}
	}
	d.Errorf("%s: kube-apiserver (-) and shoal (+) answer differently:\n%s", what, diff)
}

// differences are the places in which two answers differ.
func differences(path string, want, got any) (all []string) {
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			keys := maps.Clone(w)
			maps.Copy(keys, g)
			for _, key := range slices.Sorted(maps.Keys(keys)) {
				all = append(all, differences(path+"."+key, w[key], g[key])...)
			}
			return all
		}
	case []any:
		if g, ok := got.([]any); ok && len(g) == len(w) {
			for i := range w {
				all = append(all, differences(fmt.Sprintf("%s[%d]", path, i), w[i], g[i])...)
			}
			return all
		}
	}
	if cmp.Equal(want, got) {
		return nil
	}
	text := func(v any) string { data, _ := json.Marshal(v); return string(data) }
	return []string{fmt.Sprintf("  %s\n    - %s\n    + %s", path, text(want), text(got))}
}

func matches(pattern, text string) bool {
	return regexp.MustCompile("(?s)" + pattern).MatchString(text)
}

func (d *differential) reference(c call) (*http.Response, []byte) {
	d.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(d.Context(), c.method, "https://"+d.up.Address+c.path, strings.NewReader(c.body))
	if err != nil {
		d.Fatal(err)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	answer, err := d.client.Do(r)
	if err != nil {
		d.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		d.Fatal(err)
	}
	return answer, data
}

var (
	uids     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times    = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`)
	chosen   = regexp.MustCompile(`^10\.43\.\d+\.\d+$`) // of the network of services
	ageCells = regexp.MustCompile(`^(\d+[smhd])+$`)
)

// normal is an answer without what differs between any two servers: ids, revisions and times.
func normal(t *testing.T, code int, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Sprintf("%d %s", code, body)
	}
	return map[string]any{"code": code, "body": without(v)}
}

func without(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if key == "resourceVersion" || key == "uid" || key == "selfLink" {
				delete(v, key)
				continue
			}
			v[key] = without(value)
		}
	case []any:
		for i := range v {
			v[i] = without(v[i])
		}
	case string:
		if times.MatchString(v) {
			return "<time>"
		}
		if ageCells.MatchString(v) {
			return "<age>"
		}
		return chosen.ReplaceAllString(uids.ReplaceAllString(v, "<uid>"), "<address>")
	}
	return v
}
