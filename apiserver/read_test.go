package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
)

const (
	pods        = "/api/v1/namespaces/default/pods"
	tableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	proto       = "application/vnd.kubernetes.protobuf"
)

func accept(media string) map[string]string { return map[string]string{"Accept": media} }

func TestSelectors(t *testing.T) {
	b := newBed(t)
	for _, p := range []*corev1.Pod{podOn("a", "n1"), podOn("b", "n1"), podOn("c", "n2"), podOn("d", "")} {
		b.create(p)
	}
	for query, want := range map[string][]string{
		"labelSelector=app+in+(a,c)":                                     {"a", "c"},
		"labelSelector=app!%3Da":                                         {"b", "c", "d"},
		"fieldSelector=spec.nodeName%3Dn1":                               {"a", "b"},
		"fieldSelector=spec.nodeName%3D":                                 {"d"},
		"fieldSelector=spec.nodeName!%3Dn1":                              {"c", "d"},
		"fieldSelector=metadata.name%3Dc":                                {"c"},
		"fieldSelector=metadata.name%3Dz":                                nil,
		"fieldSelector=metadata.namespace%3Dother":                       nil,
		"fieldSelector=status.phase%3DPending&labelSelector=app":         {"a", "b", "c", "d"},
		"fieldSelector=spec.nodeName%3Dn1&labelSelector=app%3Db":         {"b"},
		"fieldSelector=spec.nodeName%3Dn1&limit=1":                       {"a"},
		"fieldSelector=metadata.name%3Da,spec.nodeName%3Dn2":             nil,
		"resourceVersion=0&resourceVersionMatch=NotOlderThan":            {"a", "b", "c", "d"},
		"resourceVersion=3&resourceVersionMatch=NotOlderThan":            {"a", "b", "c", "d"},
		"resourceVersion=5&resourceVersionMatch=Exact&labelSelector=app": {"a", "b", "c", "d"},
	} {
		var list corev1.PodList
		b.get(&list, call{path: pods + "?" + query})
		var names []string
		for _, p := range list.Items {
			names = append(names, p.Name)
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
}

func TestTable(t *testing.T) {
	b := newBed(t)
	b.create(podOn("a", "n1"))
	var table metav1.Table
	for _, path := range []string{pods, pods + "/a"} {
		b.get(&table, call{path: path, header: accept(tableAccept)})
		want := []any{"a", "0/1", "Pending", "0", "5m", "<none>", "n1", "<none>", "<none>"}
		if len(table.Rows) != 1 || table.Kind != "Table" || table.ResourceVersion == "" {
			t.Fatalf("%s: %+v", path, table)
		}
		if diff := cmp.Diff(want, table.Rows[0].Cells); diff != "" {
			t.Error(diff)
		}
		var columns []string
		for _, c := range table.ColumnDefinitions {
			columns = append(columns, fmt.Sprint(c.Name, c.Priority))
		}
		if diff := cmp.Diff([]string{"Name0", "Ready0", "Status0", "Restarts0", "Age0", "IP1", "Node1", "Nominated Node1", "Readiness Gates1"}, columns); diff != "" {
			t.Error(diff)
		}
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(table.Rows[0].Object.Raw, &object); err != nil || object.Kind != "PartialObjectMetadata" || object.Labels["app"] != "a" {
			t.Errorf("%v %+v", err, object)
		}
	}
	b.get(&table, call{path: pods + "?includeObject=Object", header: accept(tableAccept)})
	mustContain(t, table.Rows[0].Object.Raw, `"kind":"Pod"`)
}

func TestPartialObjectMetadata(t *testing.T) {
	b := newBed(t)
	b.create(podOn("a", "n1"))
	var list metav1.PartialObjectMetadataList
	b.get(&list, call{path: pods, header: accept("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")})
	if list.Kind != "PartialObjectMetadataList" || len(list.Items) != 1 || list.Items[0].Labels["app"] != "a" || list.Items[0].ResourceVersion == "" {
		t.Errorf("%+v", list)
	}
}

func TestMediaTypes(t *testing.T) {
	b := newBed(t)
	b.create(podOn("a", "n1"))
	b.create(podOn("b", ""))
	var want corev1.PodList
	b.get(&want, call{path: pods})
	if want.Kind != "PodList" || want.Items[0].Kind != "" || want.Items[0].ResourceVersion == want.Items[1].ResourceVersion {
		t.Fatalf("%+v", want)
	}
	decoder := protobuf.NewSerializer(api.Scheme(), api.Scheme())
	answer, data := b.do(call{path: pods, header: accept(proto)})
	got := &corev1.PodList{}
	_, gvk, err := decoder.Decode(data, nil, got)
	if err != nil || gvk.Kind != "PodList" || answer.Header.Get("Content-Type") != proto {
		t.Fatalf("%v %v %s", gvk, err, answer.Header)
	}
	got.TypeMeta = want.TypeMeta // Protobuf has it in the envelope
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("a Protobuf list differs from the JSON one: %s", diff)
	}
	_, data = b.do(call{path: pods, header: accept("application/yaml")})
	var fromYAML corev1.PodList
	if err := yaml.Unmarshal(data, &fromYAML); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, fromYAML); diff != "" {
		t.Errorf("a YAML list differs: %s", diff)
	}
	var body bytes.Buffer
	cm := configMap("proto", nil)
	cm.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := decoder.Encode(cm, &body); err != nil {
		t.Fatal(err)
	}
	_, data = b.do(call{method: "POST", path: configMaps, body: body.String(), header: map[string]string{"Content-Type": proto, "Accept": proto}})
	back := &corev1.ConfigMap{}
	if _, _, err := decoder.Decode(data, nil, back); err != nil || back.Data["k"] != "v" || back.UID == "" {
		t.Errorf("%v %+v", err, back)
	}
}

func TestResourceVersionOfTheFuture(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	b := newBed(t)
	answer, data := b.do(call{path: pods + "?resourceVersion=1000"})
	if answer.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("%d", answer.StatusCode)
	}
	mustContain(t, data, "Too large resource version: 1000, current: 1")
	mustContain(t, data, `"reason":"ResourceVersionTooLarge"`)
}

func TestDiscovery(t *testing.T) {
	b := newBed(t, withRoles)
	var resources metav1.APIResourceList
	b.get(&resources, call{path: "/apis/apps/v1", as: "joe|users"})
	names := map[string]metav1.APIResource{}
	for _, r := range resources.APIResources {
		names[r.Name] = r
	}
	if d := names["deployments"]; d.Kind != "Deployment" || !d.Namespaced || d.SingularName != "deployment" || d.ShortNames[0] != "deploy" {
		t.Errorf("%+v", d)
	}
	if s := names["deployments/scale"]; s.Kind != "Scale" || s.Group != "autoscaling" {
		t.Errorf("%+v", s)
	}
	var groups metav1.APIGroupList
	b.get(&groups, call{path: "/apis"})
	preferred := map[string]string{}
	for _, g := range groups.Groups {
		preferred[g.Name] = g.PreferredVersion.Version
	}
	if preferred["apps"] != "v1" || preferred["autoscaling"] != "v2" || len(preferred) != len(groups.Groups) {
		t.Errorf("%+v", groups)
	}
	want := "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for _, path := range []string{"/api", "/apis"} {
		answer, data := b.do(call{path: path, header: accept(want + ",application/json")})
		if answer.Header.Get("Content-Type") != want {
			t.Errorf("content type %s", answer.Header.Get("Content-Type"))
		}
		mustContain(t, data, `"freshness":"Current"`)
		again, _ := b.do(call{path: path, header: map[string]string{"Accept": want, "If-None-Match": answer.Header.Get("Etag")}})
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("again: %d", again.StatusCode)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	b := newBed(t)
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	b.get(&index, call{path: "/openapi/v3"})
	for _, k := range api.Served() {
		path := "apis/" + k.GVK.GroupVersion().String()
		if k.GVK.Group == "" {
			path = "api/v1"
		}
		var doc struct {
			Paths      map[string]json.RawMessage `json:"paths"`
			Components struct {
				Schemas map[string]json.RawMessage `json:"schemas"`
			} `json:"components"`
		}
		b.get(&doc, call{path: index.Paths[path].URL})
		object := "/" + path + "/" + k.Resource + "/{name}"
		if k.Namespaced {
			object = "/" + path + "/namespaces/{namespace}/" + k.Resource + "/{name}"
		}
		mustContain(t, doc.Paths[object], `"fieldValidation"`)
		for _, sub := range k.Subresources {
			if doc.Paths[object+"/"+sub] == nil {
				t.Errorf("%s/%s is not described: run go generate", k.Resource, sub)
			}
		}
		for _, part := range doc.Paths {
			mustResolve(t, part, doc.Components.Schemas)
		}
		for _, part := range doc.Components.Schemas {
			mustResolve(t, part, doc.Components.Schemas)
		}
	}
	plain, data := b.do(call{path: index.Paths["api/v1"].URL, header: map[string]string{"Accept-Encoding": "identity"}})
	if plain.Header.Get("Content-Encoding") != "" || !json.Valid(data) {
		t.Error("a client that cannot unpack gets plain JSON")
	}
}

func mustResolve(t *testing.T, doc json.RawMessage, schemas map[string]json.RawMessage) {
	t.Helper()
	const ref = `"#/components/schemas/`
	for rest := doc; ; {
		i := bytes.Index(rest, []byte(ref))
		if i < 0 {
			return
		}
		rest = rest[i+len(ref):]
		name := string(rest[:bytes.IndexByte(rest, '"')])
		if schemas[name] == nil {
			t.Fatalf("the schema %s is missing", name)
		}
	}
}

func TestHealthAndVersion(t *testing.T) {
	b := newBed(t, withRoles)
	if answer, data := b.do(call{path: "/readyz?verbose"}); answer.StatusCode != 200 || string(data) != "[+]leader ok\n[+]ping ok\nreadyz check passed\n" {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	b.consensus.leads.Store(false)
	if answer, data := b.do(call{path: "/readyz"}); answer.StatusCode != 500 || !bytes.Contains(data, []byte("[-]leader failed")) {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	if answer, data := b.do(call{path: "/livez", as: "joe|users"}); answer.StatusCode != 200 || string(data) != "ok" {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	_, data := b.do(call{path: "/metrics"})
	mustContain(t, data, `apiserver_request_total{code="500",resource="",verb="get"} 1`)
	_, data = b.do(call{path: "/version"})
	mustContain(t, data, `"gitVersion": "v1.37.2+shoal-devel"`)
}
