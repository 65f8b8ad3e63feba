package pki

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestServeHTTPLeavesNothingBehind ends the listener alone, as a Mux may do first when a server stops: a client must not go on
// talking to what is gone.
func TestServeHTTPLeavesNothingBehind(t *testing.T) {
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error)
	go func() { ended <- ServeHTTP(t.Context(), server, listener) }()

	conn := must[net.Conn](t)(net.Dial("tcp", listener.Addr().String()))
	defer conn.Close()
	answers := bufio.NewReader(conn)
	ask := func() error {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := <-ended; err == nil {
		t.Error("it ended early without an error")
	}
	if err := ask(); err == nil {
		t.Error("a server that has ended still answers")
	}
}
