package cri

import (
	"context"
	"errors"
	"fmt"
	"io"

	events "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/content"
)

// Watch implements runtime.Runtime with containerd's events of ended tasks.
func (r *Runtime) Watch(ctx context.Context, f func(runtime.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filter := fmt.Sprintf(`topic=="/tasks/exit",namespace==%q`, content.Namespace)
	stream, err := events.NewEventsClient(r.conn).Subscribe(ctx, &events.SubscribeRequest{Filters: []string{filter}})
	if err != nil {
		return r.failed("events", err)
	}
	// The subscription is there when containerd has sent its header; only then does a look at everything miss nothing.
	// Versions that send none before the first event make us wait, so we ask for something small in the meantime.
	if _, err := r.Info(ctx); err != nil {
		return err
	}
	f(runtime.Event{Type: runtime.Resync})
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("events: %w: the stream ended", runtime.ErrUnavailable)
		}
		if err != nil {
			return r.failed("events", err)
		}
		if id := exited(e.GetEvent().GetValue()); id != "" {
			f(runtime.Event{Type: runtime.ContainerExited, ID: id})
		}
	}
}

// exited reads the container's id (field 1) from a containerd.events.TaskExit; the empty string for the exit of a process
// that was only exec'ed into it (field 2, the process's id, differs). The package with this message's type would bring
// another Protobuf library with it.
func exited(message []byte) string {
	var container, process string
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return ""
		}
		message = message[n:]
		if kind == protowire.BytesType && (number == 1 || number == 2) {
			value, n := protowire.ConsumeString(message)
			if n < 0 {
				return ""
			}
			if number == 1 {
				container = value
			} else {
				process = value
			}
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return ""
		}
		message = message[n:]
	}
	if process != container {
		return ""
	}
	return container
}
