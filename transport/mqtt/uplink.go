package mqtt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

const (
	// resetEvery bounds how often a device is told that its session is unknown.
	resetEvery = time.Second
	// partingTime is how long a device has to take the last messages of a session.
	partingTime = 2 * time.Second
)

// uplink is one device's topic at one broker, at the control plane's end: it shakes hands and has at most one session.
type uplink struct {
	server    *Server
	running   *sync.WaitGroup // of the sessions
	acceptor  transport.Acceptor
	principal string
	// write moves a frame to the device; cut ends the device's connection, or at least its session.
	write func(frame []byte) error
	cut   func(session uint32)
	link  net.Conn // the device's connection, if it ends here

	mu      sync.Mutex
	pending *pending // the handshake that waits for the device's first message
	current *session
	conn    [connSize]byte // of the current session
	reset   time.Time      // when the device was last told of one
}

// pending is a session that the device has not confirmed.
type pending struct {
	device  string
	hello   *hello
	out, in *seal
	heard   [sha256.Size]byte // of the device's open
	accept  []byte
}

// receive takes a frame that came on the device's topic. The calls come one after the other.
func (u *uplink) receive(ctx context.Context, frame []byte) {
	if len(frame) == 0 || len(frame) > maxFrame {
		u.server.refuse(u.principal, RefusedMalformed)
		return
	}
	var err error
	switch frame[0] {
	case frameOpen:
		// Signatures take a deep stack. The caller's goroutine lives as long as the link, and keeps its own small.
		done := make(chan error)
		go func() { done <- u.shake(ctx, frame) }()
		err = <-done
	case frameSealed:
		err = u.sealed(ctx, frame)
	case frameGone:
		u.gone(frame)
	default:
		err = errMalformed
	}
	if err != nil && ctx.Err() == nil {
		u.server.refuse(u.principal, refusalOf(err))
	}
}

// shake answers a device's open.
func (u *uplink) shake(ctx context.Context, frame []byte) error {
	heard := sha256.Sum256(frame)
	u.mu.Lock()
	p := u.pending
	u.mu.Unlock()
	if p != nil && p.heard == heard {
		u.reply(p.accept) // the device has become impatient: the first answer is on its way, and it is to take either
		return nil
	}
	select {
	case u.server.shakes <- struct{}{}:
		defer func() { <-u.server.shakes }()
	case <-ctx.Done():
		return ctx.Err()
	}
	device, h, accept, out, in, err := answer(frame, u.principal, u.server.cfg.Keys)
	if err != nil {
		u.server.cfg.Logger.Warn("refused a handshake over MQTT", "principal", u.principal, "error", err)
		return errors.Join(errForged, err)
	}
	u.mu.Lock()
	u.pending = &pending{device: device, hello: h, out: out, in: in, heard: heard, accept: accept}
	u.mu.Unlock()
	u.reply(accept)
	return nil
}

func (u *uplink) reply(frame []byte) {
	if err := u.write(frame); err != nil {
		u.server.cfg.Logger.Debug("cannot answer a device over MQTT", "principal", u.principal, "error", err)
	}
}

// sealed hands a frame to its session, or begins the session with it.
func (u *uplink) sealed(ctx context.Context, frame []byte) error {
	id, err := sealedSession(frame)
	if err != nil {
		return err
	}
	u.mu.Lock()
	p, s := u.pending, u.current
	u.mu.Unlock()
	switch {
	case s != nil && s.id == id:
		return s.deliver(frame)
	case p != nil && p.hello.session == id:
		return u.begin(ctx, p, frame)
	}
	u.mu.Lock()
	tell := time.Since(u.reset) > resetEvery
	if tell {
		u.reset = time.Now()
	}
	u.mu.Unlock()
	if tell {
		// A device whose session this process never had, as after a change of leaders, is to begin anew. A stranger who repeats
		// its old frames gets nothing by it: the device minds the name of its present session only.
		u.reply(resetFrame(id))
	}
	return errStale
}

// begin serves a session whose first message has come.
func (u *uplink) begin(ctx context.Context, p *pending, frame []byte) error {
	m, err := p.in.open(frame)
	if err != nil {
		return err
	}
	if m.kind != msgReady {
		return errMalformed
	}
	s := startSession(p.hello.session, p.out, p.in, u.write, func() { u.cut(p.hello.session) })
	s.opened = func(id string, t *stream) error {
		tunnel := transport.NewTunnel(t, "control-plane", p.device, t.finish, t.abort)
		err := u.acceptor.AcceptTunnel(p.device, id, tunnel)
		if err != nil {
			_ = tunnel.Close()
		}
		return err
	}
	u.mu.Lock()
	old := u.current
	u.pending, u.current, u.conn = nil, s, p.hello.conn
	u.mu.Unlock()
	if old != nil {
		old.fail(errReplaced)
	}
	u.running.Go(func() { u.serve(ctx, p.device, s) })
	return nil
}

var errReplaced = errors.New("mqtt: the device began a new session")

// serve runs a session until it is over.
func (u *uplink) serve(ctx context.Context, device string, s *session) {
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	defer stop()
	err := u.acceptor.Serve(ctx, device, serverConn{session: s, link: u.link})
	if err != nil {
		u.server.cfg.Logger.Info("link is down", "device", device, "carrier", "mqtt", "reason", err)
	}
	// What was sent last, such as where the leader is, is to arrive: the device takes it, and then closes.
	if s.send(message{kind: msgEnd}) == nil {
		select {
		case <-s.done:
		case <-time.After(partingTime):
		}
	}
	s.fail(errOver)
	u.mu.Lock()
	if u.current == s {
		u.current = nil
	}
	u.mu.Unlock()
}

// gone ends the session of a connection that the broker says is over.
func (u *uplink) gone(frame []byte) {
	u.mu.Lock()
	s := u.current
	if len(frame) != 1+connSize || !bytes.Equal(frame[1:], u.conn[:]) {
		s = nil
	}
	u.mu.Unlock()
	if s != nil {
		s.fail(errGone)
	}
}

var errGone = errors.New("mqtt: the device's connection to the broker is over")

// end ends whatever session there is.
func (u *uplink) end(err error) {
	u.mu.Lock()
	s := u.current
	u.mu.Unlock()
	if s != nil {
		s.fail(err)
	}
}
