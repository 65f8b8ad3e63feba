package apiserver

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// recorder remembers the status code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 || r.code == http.StatusContinue {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Hijack gives the connection away, to speak another protocol on it.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil && r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

// Unwrap lets http.ResponseController reach flushing and deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// limit bounds how long a slow reader may take; the zero time lifts the bound.
func (r *recorder) limit(until time.Time) {
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(until) // a recorder in a test has no deadlines
}
