// Package streaming owns the WebSocket side of exec, attach, port-forward and logs. A client speaks WebSocket, a container
// runtime speaks SPDY: for a command the one is translated into the other, stream by stream; port-forward's SPDY comes inside
// the WebSocket and is only unpacked; logs are plain HTTP.
package streaming

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Backend is the HTTP API of the device that a stream leads to.
type Backend struct {
	// Dial opens a connection to it. Its errors are API errors.
	Dial func(ctx context.Context) (net.Conn, error)
	// Target is the path and query to ask for.
	Target string
}

// IsWebSocket reports whether a request wants to become a WebSocket.
func IsWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// Serve answers a WebSocket request for a subresource of a pod: "log", "exec", "attach" or "portforward". It returns when the
// stream is over. An error says that nothing was answered yet.
func Serve(w http.ResponseWriter, r *http.Request, sub string, to *Backend) error {
	if r.ProtoMajor != 1 {
		return apierrors.NewBadRequest("a WebSocket begins with HTTP/1.1")
	}
	switch sub {
	case "log":
		return serveLog(w, r, to)
	case "portforward":
		return servePortForward(w, r, to)
	default:
		return serveCommand(w, r, to)
	}
}

// refused passes on a device's answer that is not the expected one.
func refused(w http.ResponseWriter, answer *http.Response) {
	defer func() { _ = answer.Body.Close() }()
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(answer.Body, maxRefusal)) // the client has gone: there is nobody to tell
}

// maxRefusal bounds the text of a refusal.
const maxRefusal = 64 << 10

func unreachable(err error) error {
	return apierrors.NewInternalError(fmt.Errorf("the device did not answer: %w", err))
}
