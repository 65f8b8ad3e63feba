package apiserver

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Bodies are held in memory while their requests are answered. Small ones are bounded by how many requests there are at a time; large
// ones of all requests together may have maxBodies, and those of one user half of it.
const (
	maxBodyBytes = 3 << 20
	smallBody    = 256 << 10
	maxBodies    = 16 << 20
	// maxDepth is how deep objects and lists of JSON may lie in each other. Decoders call themselves for each level, so depth costs much more
	// memory than length. Upstream stops at 10,000; schemas of definitions, the deepest documents there are, have less than a hundred.
	maxDepth = 1000
)

// bodies keeps account of the memory of large bodies.
type bodies struct {
	mu    sync.Mutex
	held  int64
	by    map[string]int64
	freed chan struct{} // closed when some is given back; nil while nobody waits
}

// take waits until n more bytes may be held for a user.
func (b *bodies) take(ctx context.Context, user string, n int64) (release func(), err error) {
	for {
		b.mu.Lock()
		if b.held+n <= maxBodies && b.by[user]+n <= maxBodies/2 {
			b.held += n
			b.by[user] += n
			b.mu.Unlock()
			return func() { b.give(user, n) }, nil
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, errTooBusy()
		}
	}
}

func (b *bodies) give(user string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	if b.by[user] -= n; b.by[user] == 0 {
		delete(b.by, user)
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// readBody reads the request's body, for which there must be room until the request is answered.
func (s *Server) readBody(w *recorder, req *request) error {
	if req.Body == nil || req.isStream() || req.Method == http.MethodGet || req.Method == http.MethodHead {
		return nil
	}
	if req.ContentLength > maxBodyBytes {
		return errBodyTooLarge(w)
	}
	control := http.NewResponseController(w.ResponseWriter)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // a recorder in a test has no deadlines
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	size := req.ContentLength
	if size < 0 { // in pieces, of a length that nobody has said
		head, err := readUpTo(req.Body, nil, smallBody+1)
		if err != nil {
			return err
		}
		req.body = head
		if len(head) <= smallBody {
			return req.checkDepth()
		}
		size = maxBodyBytes
	}
	if size > smallBody {
		ctx, cancel := context.WithTimeout(req.Context(), s.cfg.QueueWait)
		defer cancel()
		release, err := s.bodies.take(ctx, req.user.Name, size)
		if err != nil {
			return err
		}
		req.giveBack = release
	}
	body, err := readUpTo(req.Body, req.body, int(size)+1)
	if err != nil {
		return err
	}
	if len(body) > maxBodyBytes {
		return errBodyTooLarge(w)
	}
	req.body = body
	return req.checkDepth()
}

// checkDepth refuses JSON that no decoder should be given. YAML has a limit of its own.
func (r *request) checkDepth() error {
	if media, err := mediaOfBody(r.Header.Get("Content-Type")); err == nil && strings.HasSuffix(media, "json") && depth(r.body) > maxDepth {
		return errBadRequest("the body could not be read: its objects and lists exceed the maximum depth of %d", maxDepth)
	}
	return nil
}

// depth is how deep JSON goes, or a little more than maxDepth.
func depth(data []byte) (most int) {
	level, inString := 0, false
	for i := 0; i < len(data) && most <= maxDepth; i++ {
		switch c := data[i]; {
		case c == '\\' && inString:
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			level++
			most = max(most, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return most
}

// readUpTo reads on after what there is, to the end or until there are most bytes. Memory grows with what has come, not with what was announced.
func readUpTo(r io.Reader, have []byte, most int) ([]byte, error) {
	all := have
	for len(all) < most {
		if len(all) == cap(all) {
			all = append(make([]byte, 0, min(most, max(4<<10, 2*cap(all)))), all...)
		}
		n, err := r.Read(all[len(all):cap(all)])
		all = all[:len(all)+n]
		if err == io.EOF { //nolint:errorlint // a reader's end is this value
			break
		}
		if err != nil {
			return nil, errBadRequest("the body could not be read: %v", err)
		}
	}
	return all, nil
}

// errBodyTooLarge has the connection closed, for nobody reads the rest.
func errBodyTooLarge(w *recorder) error {
	w.Header().Set("Connection", "close")
	return apierrors.NewRequestEntityTooLargeError("limit is 3145728")
}
