package mqtt

import (
	"errors"
	"io"
	"sync"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

var errAborted = errors.New("mqtt: the tunnel was aborted")

// stream is one tunnel of a session: a transport.ChunkStream.
type stream struct {
	*flow
	session *session
	id      uint64
	gone    chan struct{} // closed when the tunnel is aborted, by either end
	once    sync.Once

	mu                 sync.Mutex
	finished, heardEnd bool
}

// Send sends a chunk of at most a fragment.
func (t *stream) Send(c *linkpb.Chunk) error {
	if len(c.GetData()) > fragment {
		return errTooLarge
	}
	if !t.take(t.gone, t.session.done) {
		return t.why()
	}
	if isClosed(t.gone) {
		return errAborted
	}
	t.session.bulk.Lock()
	defer t.session.bulk.Unlock()
	return t.session.send(message{kind: msgChunk, stream: t.id, data: c.GetData()})
}

// Recv returns the next chunk, or io.EOF when the peer has finished.
func (t *stream) Recv() (*linkpb.Chunk, error) {
	m, ok := t.next(t.gone, t.session.done)
	switch {
	case !ok:
		return nil, t.why()
	case m.kind == msgFinish:
		t.over(func() { t.heardEnd = true })
		return nil, io.EOF
	case m.kind != msgChunk:
		return nil, errMalformed
	}
	if owed := t.took(); owed > 0 {
		if err := t.session.send(message{kind: msgCredit, stream: t.id, credit: owed}); err != nil {
			return nil, err
		}
	}
	return &linkpb.Chunk{Data: m.data}, nil
}

// finish says that no more follows.
func (t *stream) finish() {
	if isClosed(t.gone) || t.session.send(message{kind: msgFinish, stream: t.id}) != nil {
		return
	}
	t.over(func() { t.finished = true })
}

// over forgets the tunnel once both ends have finished.
func (t *stream) over(note func()) {
	t.mu.Lock()
	note()
	both := t.finished && t.heardEnd
	t.mu.Unlock()
	if both {
		t.end()
	}
}

// end makes Send and Recv return.
func (t *stream) end() {
	t.once.Do(func() { close(t.gone) })
	t.session.forget(t.id)
}

// abort ends the tunnel at both ends.
func (t *stream) abort() {
	was := isClosed(t.gone)
	t.end()
	if !was && !isClosed(t.session.done) {
		_ = t.session.send(message{kind: msgReset, stream: t.id}) // or the session has failed, which tells as much
	}
}

func (t *stream) why() error {
	if isClosed(t.session.done) {
		return t.session.reason()
	}
	return errAborted
}
