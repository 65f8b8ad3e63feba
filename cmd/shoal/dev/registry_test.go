package dev

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/configs"
)

// layout writes an OCI image layout with one manifest under two names: hello:v1, and pause:3 of another registry.
func layout(t *testing.T) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	manifest := []byte(`{"schemaVersion":2}`)
	digest = fmt.Sprintf("sha256:%x", sha256.Sum256(manifest))
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"annotations":{%q:%q}}`
	index := fmt.Sprintf(`{"manifests":[`+entry+`,`+entry+`]}`, digest, refName, "hello:v1", digest, refName, "other.test:5000/a/pause:3")
	for name, data := range map[string][]byte{
		"index.json": []byte(index),
		filepath.Join("blobs", "sha256", digest[7:]):      manifest,
		filepath.Join("blobs", "secret-beside-the-blobs"): []byte("secret"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, digest
}

func TestImages(t *testing.T) {
	dir, digest := layout(t)
	handler, err := OpenImages(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"other.test:5000"}, handler.Hosts()); diff != "" {
		t.Error(diff)
	}
	for _, tc := range []struct {
		method, path, ranges string
		status               int
		body                 string
	}{
		{"GET", "/v2/", "", 200, "{}"},
		{"GET", "/v2/hello/manifests/v1", "", 200, `{"schemaVersion":2}`},
		{"HEAD", "/v2/hello/manifests/v1", "", 200, ""},
		{"GET", "/v2/hello/manifests/" + digest, "", 200, `{"schemaVersion":2}`},
		{"GET", "/v2/hello/blobs/" + digest, "bytes=2-6", 206, "schem"}, // a pull that goes on where it was cut off
		{"GET", "/v2/hello/manifests/v2", "", 404, ""},
		{"GET", "/v2/other/manifests/v1", "", 404, ""},
		{"GET", "/v2/hello/manifests/v1?ns=registry.shoal.test", "", 200, `{"schemaVersion":2}`},
		{"GET", "/v2/a/pause/manifests/3?ns=other.test:5000", "", 200, `{"schemaVersion":2}`},
		{"GET", "/v2/a/pause/manifests/3", "", 404, ""},
		{"GET", "/v2/hello/manifests/v1?ns=other.test:5000", "", 404, ""},
		{"GET", "/v2/hello/blobs/sha256:../secret-beside-the-blobs", "", 400, ""},
		{"PUT", "/v2/hello/manifests/v1", "", 405, ""},
		{"GET", "/index.json", "", 404, ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			request := httptest.NewRequest(tc.method, "http://r"+tc.path, nil)
			if tc.ranges != "" {
				request.Header.Set("Range", tc.ranges)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, request)
			if w.Code != tc.status || tc.status < 300 && w.Body.String() != tc.body {
				t.Fatalf("got %d %q, want %d %q", w.Code, w.Body, tc.status, tc.body)
			}
			if tc.status == http.StatusOK && tc.path != "/v2/" && w.Header().Get("Docker-Content-Digest") != digest {
				t.Errorf("digest %q", w.Header().Get("Docker-Content-Digest"))
			}
		})
	}
}

// What the lab writes is a strict configuration file that means what was meant.
func TestRender(t *testing.T) {
	want, err := configs.Parse("", []byte(`{nodeName: a, dataDir: /d, advertiseAddress: 10.0.0.1, join: {servers: ["10.0.0.2:1"], token: t},
		agent: {devices: [{resource: shoal.dev/serial, path: /dev/pts/1, containerPath: /dev/serial0}], labels: {a: b}}}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := configs.Render(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := configs.Parse("rendered", text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
}
