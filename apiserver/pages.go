package apiserver

import (
	"sync"
	"time"
)

const (
	// pagesLast is how long the pages of a list may be fetched in the state of the first one, as long as with upstream: whoever takes longer acts on
	// what may be long gone.
	pagesLast = 5 * time.Minute
	// maxPaged bounds the states that are remembered.
	maxPaged = 1024
)

// paged remembers when lists of which states began. Time is that which has passed, whatever the clock says.
type paged struct {
	mu    sync.Mutex
	begun map[uint64]time.Time
}

// begin notes that a list in a state has further pages.
func (p *paged) begin(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(revision)
}

func (p *paged) note(revision uint64) {
	if p.begun == nil || len(p.begun) >= maxPaged {
		p.begun = map[uint64]time.Time{}
	}
	p.begun[revision] = time.Now()
}

// over reports whether a list in a state has lasted too long. One that this server knows nothing of begins now.
func (p *paged) over(revision uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	begun, ok := p.begun[revision]
	if !ok {
		p.note(revision)
	}
	return ok && time.Since(begun) > pagesLast
}
