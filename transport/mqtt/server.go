package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"

	"github.com/shoal-edge/shoal/transport"
)

// ServerConfig configures a Server. All fields but Refused are required.
type ServerConfig struct {
	Acceptor transport.Acceptor
	// Device tells from a connection's certificate which device it is.
	Device func(tls.ConnectionState) (string, error)
	// Keys are this server's, and know devices.
	Keys Keys
	// Refused is told of every frame that was refused: which device's topic it came on, and why. It must not wait.
	Refused func(principal string, why Refusal)
	Logger  *slog.Logger
}

// Refusal is a reason to refuse a frame.
type Refusal string

// The reasons, as metrics and audit records have them.
const (
	RefusedStale     Refusal = "stale"     // of a session that is over or never was
	RefusedReplay    Refusal = "replay"    // it was taken before
	RefusedForged    Refusal = "forged"    // not made by the device, or not for this server
	RefusedGap       Refusal = "gap"       // frames before it are missing: the session ends
	RefusedMalformed Refusal = "malformed" // it cannot be read
	RefusedOverrun   Refusal = "overrun"   // the device sends more than it may
	RefusedTopic     Refusal = "topic"     // another's topic, at the embedded broker
	RefusedName      Refusal = "name"      // a client whose names are not those in its certificate
)

// Refusals lists them all.
func Refusals() []Refusal {
	return []Refusal{
		RefusedStale, RefusedReplay, RefusedForged, RefusedGap, RefusedMalformed, RefusedOverrun, RefusedTopic, RefusedName,
	}
}

func refusalOf(err error) Refusal {
	switch {
	case errors.Is(err, errStale):
		return RefusedStale
	case errors.Is(err, errReplay):
		return RefusedReplay
	case errors.Is(err, errForged):
		return RefusedForged
	case errors.Is(err, errGap):
		return RefusedGap
	case errors.Is(err, errOverrun):
		return RefusedOverrun
	default:
		return RefusedMalformed
	}
}

const (
	// maxShakes bounds the handshakes that are worked on at once: each costs signatures.
	maxShakes = 8
	// maxUplinks bounds the devices of one server.
	maxUplinks = 16384
)

// Server is the control plane's end of the carrier.
type Server struct {
	cfg    ServerConfig
	shakes chan struct{}
}

// NewServer returns a server; Run makes it serve with the embedded broker, Join at one that stands elsewhere.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Refused == nil {
		cfg.Refused = func(string, Refusal) {}
	}
	return &Server{cfg: cfg, shakes: make(chan struct{}, maxShakes)}
}

func (s *Server) refuse(principal string, why Refusal) { s.cfg.Refused(principal, why) }

// serverConn is a device's mailbox at the control plane's end.
type serverConn struct {
	*session
	link net.Conn // nil: it is a broker's elsewhere
}

// Segments tells whether the device's kernel is there.
func (c serverConn) Segments() (uint32, bool) {
	if c.link == nil {
		return 0, false
	}
	return transport.Segments(c.link)
}

func (serverConn) OpenTunnel(context.Context, string) (net.Conn, error) {
	return nil, errors.New("mqtt: a tunnel is opened by the device")
}

// Close ends the session.
func (c serverConn) Close() error {
	c.fail(errOver)
	return nil
}
