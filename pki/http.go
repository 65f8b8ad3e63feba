package pki

import (
	"context"
	"net"
	"net/http"
)

// ServeHTTP serves on a listener until ctx ends, and leaves no connection behind. The listener of a Mux may end before anything
// has closed the server; its connections would live on then, and answer for a server that is gone.
func ServeHTTP(ctx context.Context, server *http.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	defer func() { _ = server.Close() }()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}
