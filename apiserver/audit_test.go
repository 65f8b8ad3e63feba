package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/audit"
)

// told is the part of an event that a test looks at.
type told struct {
	Verb, Stage, User, As, Object, Decision string
	Code                                    int
}

func TestRequestsAreRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, withRoles, func(_ *bed, cfg *apiserver.Config) { cfg.Audit = log })
	b.create(configMap("cm", nil))
	b.do(call{path: configMaps + "/cm"})
	b.do(call{path: configMaps + "/cm", as: "joe|users"})
	b.do(call{path: configMaps + "/cm", as: nobody, header: map[string]string{"Authorization": "Bearer secret"}})
	b.do(call{method: "POST", path: "/api/v1/namespaces/default/secrets", body: `{"metadata":{"name":"s"},"stringData":{"k":"hidden"}}`})
	b.do(call{path: "/version", header: map[string]string{"Impersonate-User": "jane"}})
	b.do(call{path: configMaps + "?watch=1&resourceVersion=1&timeoutSeconds=1"})
	b.do(call{path: "/livez"})
	b.do(call{path: configMaps, as: "system:shoal:server:b|system:shoal:servers"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = log.Run(ctx) // writes what waits

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("hidden")) || bytes.Contains(data, []byte("Bearer")) {
		t.Error("a secret is in the log")
	}
	var got []told
	for line := range bytes.Lines(data) {
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		x := told{Verb: e.Verb, Stage: e.Stage, User: e.User.Username, Decision: e.Annotations["authorization.k8s.io/decision"]}
		if e.ImpersonatedUser != nil {
			x.As = e.ImpersonatedUser.Username
		}
		if e.ObjectRef != nil {
			x.Object = e.ObjectRef.Resource + "/" + e.ObjectRef.Name
		}
		if e.ResponseStatus != nil {
			x.Code = e.ResponseStatus.Code
		}
		if e.AuditID == "" || e.RequestURI == "" || len(e.SourceIPs) != 1 || e.RequestReceived.IsZero() {
			t.Errorf("%+v", e)
		}
		got = append(got, x)
	}
	const done, allow, forbid = "ResponseComplete", "allow", "forbid"
	want := []told{
		{Verb: "get", Stage: done, User: "admin", Object: "configmaps/cm", Decision: allow, Code: 200},
		{Verb: "get", Stage: done, User: "joe", Object: "configmaps/cm", Decision: forbid, Code: 403},
		{Verb: "get", Stage: done, Object: "configmaps/cm", Code: 401},
		{Verb: "create", Stage: done, User: "admin", Object: "secrets/", Decision: allow, Code: 201},
		{Verb: "get", Stage: done, User: "admin", As: "jane", Decision: allow, Code: 200},
		{Verb: "watch", Stage: "ResponseStarted", User: "admin", Object: "configmaps/", Decision: allow},
		{Verb: "watch", Stage: done, User: "admin", Object: "configmaps/", Decision: allow, Code: 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s, err := audit.Verify(path); err != nil || s.Lines != len(want) {
		t.Errorf("%+v %v", s, err)
	}
}

func TestStrangersDoNotFillTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, withRoles, func(_ *bed, cfg *apiserver.Config) { cfg.Audit = log })
	for range 400 {
		b.do(call{path: "/version", as: nobody})
	}
	b.do(call{path: "/version"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = log.Run(ctx)
	s, err := audit.Verify(path)
	if err != nil || s.Dropped == 0 || s.Lines+int(s.Dropped) != 401 {
		t.Errorf("%+v %v", s, err)
	}
}
