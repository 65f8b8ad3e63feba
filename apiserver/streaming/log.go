package streaming

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"

	"golang.org/x/net/websocket"
)

// serveLog sends a log in messages without channels.
func serveLog(w http.ResponseWriter, r *http.Request, to *Backend) error {
	protocol, err := choose(r, "binary.k8s.io", "base64.binary.k8s.io", "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn, answer, err := to.ask(ctx, http.MethodGet, http.Header{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if answer.StatusCode != http.StatusOK {
		refused(w, answer)
		return nil
	}
	accept(w, r, protocol, func(s *socket) {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			defer func() { _ = conn.Close() }()
			for { // a client has nothing to say, but it may go
				if _, _, err := s.receive(); err != nil {
					return
				}
			}
		}()
		var out io.Writer = s
		if s.text {
			out = inText{s.Conn}
		}
		_, _ = out.Write(nil) // tells the client that it is connected
		_, _ = io.CopyBuffer(struct{ io.Writer }{out}, answer.Body, make([]byte, chunk))
		_ = s.Close()
		<-gone
	})
	return nil
}

// inText writes messages in base64.
type inText struct{ ws *websocket.Conn }

func (t inText) Write(p []byte) (int, error) {
	return len(p), websocket.Message.Send(t.ws, base64.StdEncoding.EncodeToString(p))
}
