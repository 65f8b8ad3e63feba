package share

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// maxManifest bounds manifests, as registries do.
const maxManifest = 4 << 20

// mirror answers this device's containerd as a registry that has what the neighbours have. It knows pieces by their digest only: what
// a tag stands for the real registry says. What nobody has is not found, and containerd goes on to the registry.
func (s *Sharer) mirror(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		return
	}
	rest, name := path.Split(r.URL.Path)
	repository, kind := path.Split(strings.TrimSuffix(rest, "/"))
	known := strings.HasPrefix(r.URL.Path, "/v2/") && (kind == "blobs" || kind == "manifests") && digest.MatchString(name)
	if !known || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	reply := s.find(ctx, repository, name, r.Header.Get("Range"))
	if reply == nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = reply.Body.Close() }()
	body := io.Reader(reply.Body)
	for _, h := range []string{"Content-Length", "Content-Range", "Content-Type", "Accept-Ranges"} {
		if v := reply.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.Header().Set("Docker-Content-Digest", name)
	if kind == "manifests" {
		data, err := io.ReadAll(io.LimitReader(reply.Body, maxManifest))
		if err != nil {
			w.Header().Del("Content-Length")
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", mediaType(data))
		body = bytes.NewReader(data)
	}
	w.WriteHeader(reply.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, body); err != nil {
		s.c.Logger.Debug("a neighbour's piece of an image was cut off", "digest", name, "err", err)
		panic(http.ErrAbortHandler) // so that containerd does not take it for whole
	}
}

// mediaType is that of a manifest, which the digest alone does not tell.
func mediaType(data []byte) string {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(data, &doc); {
	case err == nil && doc.MediaType != "":
		return doc.MediaType
	case err == nil && doc.Manifests != nil:
		return image.TypeIndex
	}
	return image.TypeManifest
}

// find asks whoever had the last piece of the repository, then all, for the piece. Nil: nobody has it.
func (s *Sharer) find(ctx context.Context, repository, name, part string) *http.Response {
	peers := s.c.Peers()
	s.mu.Lock()
	giver := s.givers[repository]
	s.mu.Unlock()
	for _, p := range peers {
		if p.Name == giver {
			if reply := s.get(ctx, p, len(peers), name, part); reply != nil {
				return reply
			}
		}
	}
	type found struct {
		name  string
		reply *http.Response
	}
	replies := make(chan found, len(peers))
	for _, p := range peers {
		go func() { replies <- found{p.Name, s.get(ctx, p, len(peers), name, part)} }()
	}
	for left := len(peers) - 1; left >= 0; left-- {
		f := <-replies
		if f.reply == nil {
			continue
		}
		s.gave(repository, f.name)
		s.closing.Go(func() { // the others are still asked, until ctx ends
			for range left {
				if f := <-replies; f.reply != nil {
					_ = f.reply.Body.Close()
				}
			}
		})
		return f.reply
	}
	return nil
}

// ErrNobody says that no neighbour has what was asked for.
var ErrNobody = errors.New("no neighbour has it")

// Fetch opens a piece that a neighbour has, from one offset up to another, or to its end (-1). Whoever had the last part is asked first.
// The bytes are to be compared with what they should be. The piece is let go of when ctx ends.
func (s *Sharer) Fetch(ctx context.Context, digest string, from, to int64) (io.ReadCloser, error) {
	part := "bytes=" + strconv.FormatInt(from, 10) + "-"
	if to >= 0 {
		part += strconv.FormatInt(to-1, 10)
	}
	ctx, cancel := context.WithCancel(ctx)
	reply := s.find(ctx, digest, digest, part)
	if reply == nil {
		cancel()
		return nil, ErrNobody
	}
	return &ending{reply.Body, cancel}, nil
}

// gave remembers who had a piece; only the last few repositories are worth it.
func (s *Sharer) gave(repository, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.givers) >= 64 {
		clear(s.givers)
	}
	s.givers[repository] = name
}

// get asks one neighbour for a piece; nil when it has none to give.
func (s *Sharer) get(ctx context.Context, p Peer, present int, name, part string) *http.Response {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.Address+"/v1/blobs/"+name, nil)
	if err != nil {
		return nil
	}
	if part != "" {
		q.Header.Set("Range", part)
	}
	reply, err := s.clients.do(ctx, p, present, q, patience)
	if err != nil {
		s.c.Logger.Debug("a neighbour does not answer", "neighbour", p.Name, "err", err)
		return nil
	}
	if reply.StatusCode != http.StatusOK && reply.StatusCode != http.StatusPartialContent {
		discard(reply.Body)
		return nil
	}
	return reply
}
