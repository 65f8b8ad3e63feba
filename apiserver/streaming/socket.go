package streaming

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// maxMessage bounds what a client can make us hold in memory.
	maxMessage = 1 << 20
	// idleTimeout ends a stream on which nothing was said; a shell may wait for its user for long.
	idleTimeout = 4 * time.Hour
	// chunk is how much of an output goes into one message.
	chunk = 16 << 10
)

// closeStream is the first byte of a message by which a client ends one of its streams; the second says which.
const closeStream = 255

// choose finds the first subprotocol that the client offers and we speak. A client that offers none speaks the empty one.
func choose(r *http.Request, spoken ...string) (string, error) {
	var offered []string
	for _, header := range r.Header.Values("Sec-Websocket-Protocol") {
		for name := range strings.SplitSeq(header, ",") {
			offered = append(offered, strings.TrimSpace(name))
		}
	}
	if len(offered) == 0 {
		offered = []string{""}
	}
	for _, name := range offered {
		if slices.Contains(spoken, name) {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("requested protocol(s) are not supported: %v; supports %v", offered, spoken))
}

// socket is a WebSocket whose messages belong to numbered channels.
type socket struct {
	*websocket.Conn
	text bool // messages are base64 behind a digit
}

// accept makes a WebSocket of the request, which must be able to become one, and returns when handle does.
func accept(w http.ResponseWriter, r *http.Request, protocol string, handle func(*socket)) {
	server := websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			c.Protocol = nil
			if protocol != "" {
				c.Protocol = []string{protocol}
			}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType, ws.MaxPayloadBytes = websocket.BinaryFrame, maxMessage
			s := &socket{Conn: ws, text: strings.Contains(protocol, "base64.")}
			s.awake()
			handle(s)
		},
	}
	server.ServeHTTP(w, r)
}

// awake puts the end of a silent connection off.
func (s *socket) awake() { _ = s.SetDeadline(time.Now().Add(idleTimeout)) } // only a closed one cannot

// send sends data on a channel.
func (s *socket) send(channel byte, data []byte) error {
	s.awake()
	if s.text {
		return websocket.Message.Send(s.Conn, string('0'+channel)+base64.StdEncoding.EncodeToString(data))
	}
	return websocket.Message.Send(s.Conn, append([]byte{channel}, data...))
}

// receive returns the next message that is not empty, and its channel.
func (s *socket) receive() (channel byte, data []byte, err error) {
	for len(data) == 0 {
		if err := websocket.Message.Receive(s.Conn, &data); err != nil {
			return 0, nil, err
		}
		s.awake()
	}
	channel, data = data[0], data[1:]
	if s.text {
		channel -= '0'
		data, err = base64.StdEncoding.AppendDecode(nil, data)
	}
	return channel, data, err
}

// sendAll sends what a reader gives on a channel, until it ends or the client does not listen any more.
func (s *socket) sendAll(channel byte, from io.Reader) error {
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if err := s.send(channel, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
