package dev

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// registryPort is where the machine's end of the lab serves images.
const registryPort = "5000"

func (l *Lab) registryAddress() string { return net.JoinHostPort(l.Gateway(), registryPort) }

func (l *Lab) serveImages(ctx context.Context) error {
	if l.cfg.Images == nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.registryAddress())
	if err != nil {
		return err
	}
	l.images = &http.Server{Handler: l.cfg.Images, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := l.images.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			l.cfg.Logger.Error("The lab's registry has stopped", "error", err)
		}
	}()
	return nil
}

// Images serves an OCI image layout read-only by the distribution protocol: all that a pull needs. An image whose name starts with
// a registry's host is served as that registry's, the others as RegistryHost's.
type Images struct {
	dir   string
	hosts []string
	tags  map[string]descriptor // by host/name:tag
	byID  map[string]string     // media types by digest
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

const refName = "org.opencontainers.image.ref.name"

// OpenImages reads the OCI image layout in dir, whose index names its images (org.opencontainers.image.ref.name) as name:tag, or as
// host/name:tag for the images of another registry.
func OpenImages(dir string) (*Images, error) {
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, fmt.Errorf("images: %w; want an OCI image layout", err)
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("images: %s: %w", dir, err)
	}
	r := &Images{dir: dir, tags: map[string]descriptor{}, byID: map[string]string{}}
	for _, m := range index.Manifests {
		r.byID[m.Digest] = m.MediaType
		name := m.Annotations[refName]
		if name == "" {
			continue
		}
		host, _, ok := strings.Cut(name, "/")
		if !ok || !strings.ContainsAny(host, ".:") {
			host, name = RegistryHost, RegistryHost+"/"+name
		}
		if host != RegistryHost && !slices.Contains(r.hosts, host) {
			r.hosts = append(r.hosts, host)
		}
		r.tags[name] = m
	}
	return r, nil
}

// Hosts are the registries besides RegistryHost that it answers for.
func (r *Images) Hosts() []string { return r.hosts }

func (r *Images) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such path")
		return
	}
	if path == "" {
		_, _ = w.Write([]byte("{}"))
		return
	}
	if name, reference, ok := cutLast(path, "/manifests/"); ok {
		// containerd says which registry it means when it asks another host for its images.
		r.serveManifest(w, req, cmp.Or(req.URL.Query().Get("ns"), RegistryHost), name, reference)
		return
	}
	if _, digest, ok := cutLast(path, "/blobs/"); ok {
		r.serveBlob(w, req, digest, "application/octet-stream", "BLOB_UNKNOWN")
		return
	}
	refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such path")
}

func (r *Images) serveManifest(w http.ResponseWriter, req *http.Request, host, name, reference string) {
	digest := reference
	if !strings.Contains(reference, ":") {
		digest = r.tags[host+"/"+name+":"+reference].Digest
	}
	mediaType, ok := r.byID[digest]
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no image "+name+":"+reference)
		return
	}
	r.serveBlob(w, req, digest, mediaType, "MANIFEST_UNKNOWN")
}

func (r *Images) serveBlob(w http.ResponseWriter, req *http.Request, digest, mediaType, missing string) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "the digest is not of sha256")
		return
	}
	f, err := os.Open(filepath.Join(r.dir, "blobs", "sha256", hex))
	if err != nil {
		refuse(w, http.StatusNotFound, missing, "no blob "+digest)
		return
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Etag", `"`+digest+`"`)
	http.ServeContent(w, req, "", time.Time{}, f)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}
