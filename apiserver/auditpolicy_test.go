package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/audit"
)

func TestPolicyDecidesWhatIsRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := audit.ParsePolicy([]byte(`
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, verbs: [get]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: Request, verbs: [patch], resources: [{resources: [configmaps]}]}
- {level: RequestResponse, omitManagedFields: true, resources: [{resources: [configmaps]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, withRoles, func(_ *bed, cfg *apiserver.Config) { cfg.Audit, cfg.AuditPolicy = log, policy })
	asJSON := map[string]string{"Content-Type": "application/json"}
	post := func(path, body string, header map[string]string) {
		if answer, data := b.do(call{method: http.MethodPost, path: path, body: body, header: header}); answer.StatusCode != http.StatusCreated {
			t.Fatalf("%d %s", answer.StatusCode, data)
		}
	}
	post("/api/v1/namespaces/default/secrets", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"k":"hidden"}}`, asJSON)
	post(configMaps, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: sent}\n", map[string]string{"Content-Type": "application/yaml"})
	post(configMaps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"k":"`+strings.Repeat("x", 70<<10)+`"}}`, asJSON)
	b.do(call{path: configMaps + "/a"})
	b.do(call{method: http.MethodPatch, path: configMaps + "/a", body: `{"data":{"k":"patched"}}`, header: map[string]string{"Content-Type": "application/merge-patch+json"}})
	b.do(call{method: http.MethodDelete, path: pods + "/none"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = log.Run(ctx) // writes what waits
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("hidden")) || bytes.Contains(data, []byte("managedFields")) {
		t.Errorf("more than the policy says is in the log: %s", data)
	}
	var events []audit.Event
	for line := range bytes.Lines(data) {
		var e audit.Event
		decode(t, line, &e)
		events = append(events, e)
	}
	if len(events) != 4 {
		t.Fatalf("%d events: %s", len(events), data)
	}
	k := func(raw json.RawMessage) string {
		if raw == nil {
			return ""
		}
		var cm corev1.ConfigMap
		decode(t, raw, &cm)
		return cm.Data["k"]
	}
	for i, want := range []struct{ level, sent, answered, truncated string }{
		{"Metadata", "", "", ""}, {"RequestResponse", "sent", "sent", ""}, {"RequestResponse", "", "", "true"}, {"Request", "patched", "", ""},
	} {
		e := events[i]
		if e.Level != want.level || k(e.RequestObject) != want.sent || k(e.ResponseObject) != want.answered ||
			e.Annotations["audit.k8s.io/truncated"] != want.truncated {
			t.Errorf("%d: %s %s %s %v", i, e.Level, e.RequestObject, e.ResponseObject, e.Annotations)
		}
	}
}
