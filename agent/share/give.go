package share

import (
	"context"
	"errors"
	"io"
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

// give gives a piece, or one part of it.
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
	offset, end, err := partOf(r, size)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return
	}
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(end-offset, 10))
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
	if offset > 0 || end < size {
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(end-1, 10)+"/"+strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusPartialContent)
	}
	err = s.c.Store.Copy(r.Context(), &until{w, end - offset}, name, offset)
	if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, context.Canceled) {
		s.c.Logger.Debug("giving a piece of an image", "digest", name, "err", err)
		panic(http.ErrAbortHandler) // so that the other end does not take it for whole
	}
}

// partOf is the part that is asked for: Range: bytes=N- or bytes=N-LAST (RFC 9110, section 14).
func partOf(r *http.Request, size int64) (from, end int64, err error) {
	text := r.Header.Get("Range")
	if text == "" {
		return 0, size, nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	from, err = strconv.ParseInt(first, 10, 64)
	end = size
	if last != "" && err == nil {
		end, err = strconv.ParseInt(last, 10, 64)
		end = min(end, size-1) + 1
	}
	if err != nil || !ok || from < 0 || from >= end {
		return 0, 0, errors.New("want bytes=N- or bytes=N-LAST")
	}
	return from, end, nil
}

// errEnough ends a copy when all that was asked for is written.
var errEnough = errors.New("enough")

// until is a writer that takes so many bytes.
type until struct {
	w    io.Writer
	left int64
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.w.Write(p[:min(int64(len(p)), u.left)])
	if u.left -= int64(n); err == nil && u.left == 0 {
		err = errEnough
	}
	return n, err
}
