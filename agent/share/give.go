package share

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// digests that are asked for.
var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// forNeighbours is what neighbours are answered.
func (s *Sharer) forNeighbours() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/blobs/{digest}", s.give)
	mux.HandleFunc("POST /v1/fetches", s.asked)
	mux.HandleFunc("GET /v1/fetches", s.waited)
	return mux
}

// give gives a piece, or what of it comes after an offset: the one form of Range that containerd and this package ask with.
func (s *Sharer) give(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("digest")
	if !digest.MatchString(name) {
		http.Error(w, "want sha256:...", http.StatusBadRequest)
		return
	}
	size, err := s.c.Store.Size(r.Context(), name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	offset, err := offsetOf(r, size)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return
	}
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size-offset, 10))
	if r.Method == http.MethodHead {
		return
	}
	select {
	case s.giving <- struct{}{}:
		defer func() { <-s.giving }()
	default:
		w.Header().Del("Content-Length")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	if offset > 0 {
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(size-1, 10)+"/"+strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusPartialContent)
	}
	if err := s.c.Store.Copy(r.Context(), w, name, offset); err != nil && !errors.Is(err, context.Canceled) {
		s.c.Logger.Debug("giving a piece of an image", "digest", name, "err", err)
		panic(http.ErrAbortHandler) // so that the other end does not take it for whole
	}
}

// offsetOf is where what is asked for begins: Range: bytes=N- or bytes=N-LAST.
func offsetOf(r *http.Request, size int64) (int64, error) {
	text := r.Header.Get("Range")
	if text == "" {
		return 0, nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	offset, err := strconv.ParseInt(from, 10, 64)
	if last, lastErr := strconv.ParseInt(to, 10, 64); to != "" && (lastErr != nil || last != size-1) {
		ok = false
	}
	if err != nil || !ok || offset < 0 || offset >= size {
		return 0, errors.New("want bytes=N-")
	}
	return offset, nil
}
