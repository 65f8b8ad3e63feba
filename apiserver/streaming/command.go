package streaming

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/moby/spdystream"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
)

// commandProtocols are the subprotocols of exec and attach. From the fourth on the error channel carries a Status, before that a
// text; in the fifth the client can end its input.
func commandProtocols() []string {
	return []string{
		remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name, "v4.base64.channel.k8s.io", "base64.channel.k8s.io",
		remotecommand.StreamProtocolV1Name, "",
	}
}

// command is a running exec or attach.
type command struct {
	socket          *socket
	session         *session
	protocol        string
	failure         *spdystream.Stream
	stdin, resize   *spdystream.Stream // nil when not asked for, like the next
	stdout, stderr  *spdystream.Stream
	wantIn, wantTTY bool
	wantOut         bool
	wantErr         bool
}

func serveCommand(w http.ResponseWriter, r *http.Request, to *Backend) error {
	protocol, err := choose(r, commandProtocols()...)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	c := &command{
		protocol: protocol, wantIn: flag(query, "stdin"), wantOut: flag(query, "stdout"), wantErr: flag(query, "stderr"), wantTTY: flag(query, "tty"),
	}
	if c.wantTTY {
		c.wantErr = false // a terminal has one output
	}
	if !c.wantIn && !c.wantOut && !c.wantErr {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	conn, answer, err := to.upgrade(r.Context(), remotecommand.StreamProtocolV4Name)
	switch {
	case err != nil:
		return err
	case conn == nil:
		refused(w, answer)
		return nil
	}
	if c.session, err = newSession(conn); err != nil {
		return unreachable(err)
	}
	accept(w, r, protocol, func(s *socket) {
		c.socket = s
		c.run()
	})
	return nil
}

// flag reads a parameter of the API; kubelets call the same otherwise.
func flag(query url.Values, name string) bool {
	b, err := strconv.ParseBool(query.Get(name))
	return err == nil && b
}

// run moves bytes until the command has ended, or its client has gone.
func (c *command) run() {
	var hears sync.WaitGroup
	defer hears.Wait()
	defer func() { _ = c.socket.Close() }() // ends the listening
	defer c.session.close()                 // and a write to a command that does not read
	err := c.open()
	if err == nil {
		err = c.socket.send(c.firstOutput(), nil) // tells the client that it is connected
	}
	if err != nil {
		c.end(statusOf(err))
		return
	}
	hears.Go(c.listen)
	var outputs sync.WaitGroup
	for channel, from := range map[byte]*spdystream.Stream{remotecommand.StreamStdOut: c.stdout, remotecommand.StreamStdErr: c.stderr} {
		if from == nil {
			continue
		}
		outputs.Go(func() {
			if c.socket.sendAll(channel, from) != nil {
				c.session.close() // nobody listens: the command need not go on
			}
		})
	}
	outputs.Wait()
	told, err := io.ReadAll(io.LimitReader(c.failure, maxRefusal))
	if err == nil && len(told) == 0 {
		err = errors.New("the connection to the device was lost")
	}
	if err != nil {
		c.end(statusOf(err))
		return
	}
	c.end(told)
}

// open opens the streams that were asked for, in the order of upstream's clients.
func (c *command) open() (err error) {
	for _, s := range []struct {
		name string
		want bool
		into **spdystream.Stream
	}{
		{"error", true, &c.failure},
		{"stdin", c.wantIn, &c.stdin},
		{"stdout", c.wantOut, &c.stdout},
		{"stderr", c.wantErr, &c.stderr},
		{"resize", c.wantTTY, &c.resize},
	} {
		if !s.want {
			continue
		}
		if *s.into, err = c.session.stream(s.name, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) firstOutput() byte {
	switch {
	case c.wantOut:
		return remotecommand.StreamStdOut
	case c.wantErr:
		return remotecommand.StreamStdErr
	}
	return remotecommand.StreamErr
}

// listen passes the client's input on, and ends the session when the client goes.
func (c *command) listen() {
	for {
		channel, data, err := c.socket.receive()
		if err != nil {
			c.session.close()
			return
		}
		switch {
		case channel == closeStream && c.protocol == remotecommand.StreamProtocolV5Name:
			if len(data) == 1 && data[0] == remotecommand.StreamStdIn && c.stdin != nil {
				_ = c.stdin.Close() // a second time is none
			}
		case channel == remotecommand.StreamStdIn && c.stdin != nil:
			_, _ = c.stdin.Write(data) // a command that does not read any more still has its output
		case channel == remotecommand.StreamResize && c.resize != nil:
			_, _ = c.resize.Write(data) // as above
		}
	}
}

// end tells the client how the command ended: status is the JSON of a Status.
func (c *command) end(status []byte) {
	switch c.protocol {
	case remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name, "v4.base64.channel.k8s.io":
	default:
		var s metav1.Status
		if json.Unmarshal(status, &s) != nil || s.Status == metav1.StatusSuccess {
			return
		}
		status = []byte(s.Message)
	}
	_ = c.socket.send(remotecommand.StreamErr, status) // the client has gone: there is nobody to tell
}

// statusOf is an error as the error channel carries it.
func statusOf(err error) []byte {
	status := apierrors.NewInternalError(err).Status()
	data, err := json.Marshal(status)
	if err != nil {
		return nil // a Status is always encoded
	}
	return data
}
