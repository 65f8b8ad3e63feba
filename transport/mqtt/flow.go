package mqtt

import "sync/atomic"

// flow is one stream's two directions: what came and was not taken, and how much may be sent.
type flow struct {
	in     chan message  // holds a window, and an end
	tokens chan struct{} // one for each frame that may be sent
	owed   atomic.Uint64 // frames taken that the peer has not heard of
}

func newFlow(window int) *flow {
	f := &flow{in: make(chan message, window+1), tokens: make(chan struct{}, window)}
	for range window {
		f.tokens <- struct{}{}
	}
	return f
}

// take waits until a frame may be sent, or one of the channels is closed. A nil channel never is.
func (f *flow) take(gone, over <-chan struct{}) bool {
	select {
	case <-f.tokens:
		return true
	case <-gone:
	case <-over:
	}
	return false
}

// give takes note of what the peer has taken.
func (f *flow) give(n uint64) error {
	for range n {
		select {
		case f.tokens <- struct{}{}:
		default:
			return errOverrun // it has taken what was not sent
		}
	}
	return nil
}

// put queues what came.
func (f *flow) put(m message) error {
	if m.kind != msgEnd && m.kind != msgFinish && len(f.in) >= cap(f.in)-1 {
		return errOverrun
	}
	select {
	case f.in <- m:
		return nil
	default:
		return errOverrun
	}
}

// next returns what came first; after the end of the session, what came before it.
func (f *flow) next(gone, over <-chan struct{}) (message, bool) {
	select {
	case m := <-f.in:
		return m, true
	case <-gone:
	case <-over:
	}
	select {
	case m := <-f.in:
		return m, true
	default:
		return message{}, false
	}
}

// took notes that a frame was taken and returns the credit that should be sent by itself: half a window of it.
func (f *flow) took() (owed uint64) {
	if f.owed.Add(1)*2 < uint64(cap(f.tokens)) {
		return 0
	}
	return f.owes()
}

// owes takes the credit that the peer has not heard of.
func (f *flow) owes() uint64 { return f.owed.Swap(0) }
