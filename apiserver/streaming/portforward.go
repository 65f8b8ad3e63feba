package streaming

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/spdystream"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	portForward = "portforward.k8s.io"
	// tunnelled is SPDY inside of a WebSocket.
	tunnelled = "SPDY/3.1+" + portForward
	// maxPorts bounds the ports of one WebSocket without SPDY in it.
	maxPorts = 16
)

func servePortForward(w http.ResponseWriter, r *http.Request, to *Backend) error {
	protocol, err := choose(r, tunnelled, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
	if err != nil {
		return err
	}
	var ports []uint16
	if protocol != tunnelled {
		if ports, err = portsOf(r); err != nil {
			return err
		}
	}
	conn, answer, err := to.upgrade(r.Context(), portForward)
	switch {
	case err != nil:
		return err
	case conn == nil:
		refused(w, answer)
		return nil
	}
	defer func() { _ = conn.Close() }()
	accept(w, r, protocol, func(s *socket) {
		if protocol == tunnelled {
			tunnel(s, conn)
			return
		}
		forward(s, conn, ports)
	})
	return nil
}

// tunnel moves bytes both ways until one side ends.
func tunnel(s *socket, conn net.Conn) {
	var both sync.WaitGroup
	pipe := func(to, from io.ReadWriteCloser) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, awakeReader{from, s}, make([]byte, chunk)) // either side's end is the end
		_, _ = to.Close(), from.Close()
	}
	both.Go(func() { pipe(conn, s) })
	both.Go(func() { pipe(s, conn) })
	both.Wait()
}

// awakeReader puts the end of a silent socket off with everything that is read.
type awakeReader struct {
	io.Reader
	s *socket
}

func (r awakeReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.s.awake()
	return n, err
}

// portsOf are the ports that a client wants to reach without SPDY: each has two channels, for data and for its error.
func portsOf(r *http.Request) ([]uint16, error) {
	var ports []uint16
	for _, list := range r.URL.Query()["ports"] {
		for text := range strings.SplitSeq(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, apierrors.NewBadRequest("unable to parse " + strconv.Quote(text) + " as a port")
			}
			ports = append(ports, uint16(port))
		}
	}
	if len(ports) == 0 || len(ports) > maxPorts {
		return nil, apierrors.NewBadRequest("query parameter \"ports\" must name between 1 and " + strconv.Itoa(maxPorts) + " ports")
	}
	return ports, nil
}

// forward connects the channels of each port with two SPDY streams to the device.
func forward(s *socket, conn net.Conn, ports []uint16) {
	session, err := newSession(conn)
	if err != nil {
		return
	}
	defer session.wait()
	var all sync.WaitGroup
	defer all.Wait()
	defer func() { _ = s.Close() }()
	defer session.close()
	inputs := make([]*spdystream.Stream, len(ports))
	for i, port := range ports {
		head := http.Header{"port": {strconv.Itoa(int(port))}, "requestID": {strconv.Itoa(i)}}
		failure, err := session.stream("error", head)
		if err != nil {
			return
		}
		_ = failure.Close() // we only read it
		if inputs[i], err = session.stream("data", head); err != nil {
			return
		}
		dataChannel, errorChannel := byte(2*i), byte(2*i+1)
		number := binary.LittleEndian.AppendUint16(nil, port)
		if s.send(dataChannel, number) != nil || s.send(errorChannel, number) != nil {
			return
		}
		all.Go(func() { _ = s.sendAll(dataChannel, inputs[i]) }) // the client has gone: listening ends, too
		all.Go(func() { _ = s.sendAll(errorChannel, failure) })
	}
	for {
		channel, data, err := s.receive()
		if err != nil {
			return
		}
		if port := int(channel / 2); channel%2 == 0 && port < len(inputs) {
			if _, err := inputs[port].Write(data); err != nil {
				return
			}
		}
	}
}
