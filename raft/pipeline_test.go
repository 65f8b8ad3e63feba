package raft

import (
	"testing"
	"testing/synctest"

	hraft "github.com/hashicorp/raft"
)

// fullPipeline takes nothing until it is closed, as the library's does when nobody takes answers out of it.
type fullPipeline struct{ closed chan struct{} }

func (p fullPipeline) AppendEntries(*hraft.AppendEntriesRequest, *hraft.AppendEntriesResponse) (hraft.AppendFuture, error) {
	<-p.closed
	return nil, hraft.ErrPipelineShutdown
}
func (p fullPipeline) Consumer() <-chan hraft.AppendFuture { return nil }
func (p fullPipeline) Close() error                        { close(p.closed); return nil }

// TestFullPipelineEnds: a sender that finds no room for long gets an error, and so can be stopped.
func TestFullPipelineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipeline{fullPipeline{make(chan struct{})}}
		if _, err := p.AppendEntries(nil, nil); err == nil {
			t.Error("it took an entry")
		}
	})
}
