package mqtt

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

var (
	errOver     = errors.New("mqtt: the session is over")
	errOverrun  = errors.New("mqtt: the peer sends more than it may")
	errTooLarge = fmt.Errorf("mqtt: a message is larger than %d bytes", transport.MaxMessage)
)

// session is one link while it lasts, at either end: the mailbox and the tunnels, in sealed frames.
type session struct {
	id uint32
	// write moves one frame to the broker. It may take long, and returns when the link is cut.
	write func(frame []byte) error
	// cut ends the link under the session. It is called once.
	cut func()
	// opened takes a tunnel that the peer opened; nil: the peer may open none.
	opened func(id string, s *stream) error

	bulk  sync.Mutex // held by the one tunnel whose turn it is to send: the mailbox never waits for more than that one
	outMu sync.Mutex
	out   *seal
	in    *seal         // of deliver, whose calls come one after the other
	taken atomic.Uint64 // frames

	mail *flow

	dialling sync.Mutex

	mu      sync.Mutex
	streams map[uint64]*stream
	next    uint64 // the last number of a stream that was opened
	err     error
	done    chan struct{}
}

func startSession(id uint32, out, in *seal, write func([]byte) error, cut func()) *session {
	return &session{
		id: id, out: out, in: in, write: write, cut: cut, mail: newFlow(mailWindow), done: make(chan struct{}),
	}
}

// Frames is how many frames of the peer were taken.
func (s *session) Frames() uint64 { return s.taken.Load() }

// send seals a message and writes it.
func (s *session) send(m message) error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if isClosed(s.done) {
		return s.reason()
	}
	if err := s.write(s.out.close(m)); err != nil {
		s.fail(fmt.Errorf("mqtt: send: %w", err))
		return s.reason()
	}
	return nil
}

// fail ends the session; the first reason stays.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	close(s.done)
	s.mu.Unlock()
	s.cut()
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Send sends an envelope, in parts if need be.
func (s *session) Send(e *linkpb.Envelope) error {
	data, err := proto.Marshal(e)
	if err != nil {
		return err
	}
	if len(data) > transport.MaxMessage {
		return errTooLarge
	}
	for {
		if !s.mail.take(nil, s.done) {
			return s.reason()
		}
		n := min(len(data), fragment)
		m := message{kind: msgMail, data: data[:n]}
		if n < len(data) {
			m.kind = msgMailPart
		}
		m.credit = s.mail.owes() // it rides along: a quiet link sends no frames for credit alone
		if err := s.send(m); err != nil {
			return err
		}
		if data = data[n:]; m.kind == msgMail {
			return nil
		}
	}
}

// Recv returns the next envelope; io.EOF when the peer has ended the mailbox.
func (s *session) Recv() (*linkpb.Envelope, error) {
	var whole []byte
	for {
		m, ok := s.mail.next(nil, s.done)
		switch {
		case !ok:
			return nil, s.reason()
		case m.kind == msgEnd:
			return nil, io.EOF
		case len(whole)+len(m.data) > transport.MaxMessage:
			s.fail(errTooLarge)
			return nil, errTooLarge
		}
		if owed := s.mail.took(); owed > 0 {
			if err := s.send(message{kind: msgCredit, credit: owed}); err != nil {
				return nil, err
			}
		}
		if m.kind == msgMailPart {
			whole = append(whole, m.data...)
			continue
		}
		if whole != nil {
			m.data = append(whole, m.data...)
		}
		e := new(linkpb.Envelope)
		if err := proto.Unmarshal(m.data, e); err != nil {
			s.fail(fmt.Errorf("mqtt: an envelope that cannot be read: %w", err))
			return nil, s.reason()
		}
		return e, nil
	}
}

// deliver takes a sealed frame. It never waits: windows bound what may come. The error says why a frame was refused; only
// what the link cannot go on after ends the session.
func (s *session) deliver(frame []byte) error {
	m, err := s.in.open(frame)
	if errors.Is(err, errGap) || errors.Is(err, errMalformed) {
		s.fail(err)
	}
	if err != nil {
		return err
	}
	s.taken.Add(1)
	if err := s.handle(m); err != nil {
		s.fail(err)
		return err
	}
	return nil
}

func (s *session) handle(m message) error {
	switch m.kind {
	case msgReady:
		return nil
	case msgMail, msgMailPart, msgEnd:
		return errors.Join(s.mail.give(m.credit), s.mail.put(m))
	case msgCredit:
		if m.stream == 0 {
			return s.mail.give(m.credit)
		}
	case msgOpen:
		return s.open(m)
	}
	s.mu.Lock()
	t := s.streams[m.stream]
	s.mu.Unlock()
	switch {
	case t == nil:
		return nil // it was aborted here; the peer will hear of it
	case m.kind == msgCredit:
		return t.give(m.credit)
	case m.kind == msgReset:
		t.end()
		return nil
	default:
		return t.put(m)
	}
}

// open takes a tunnel that the peer opens, or refuses it.
func (s *session) open(m message) error {
	s.mu.Lock()
	if s.opened == nil || m.stream <= s.next || len(m.data) > 256 {
		s.mu.Unlock()
		return errMalformed
	}
	s.next = m.stream
	if len(s.streams) >= maxStreams {
		s.mu.Unlock()
		return errOverrun
	}
	t := s.add(m.stream)
	s.mu.Unlock()
	if err := s.opened(string(m.data), t); err != nil {
		go t.abort() // deliver does not wait for a write; there are at most maxStreams
	}
	return nil
}

// add makes a stream. The caller holds the lock.
func (s *session) add(id uint64) *stream {
	t := &stream{session: s, id: id, flow: newFlow(tunnelWindow), gone: make(chan struct{})}
	if s.streams == nil {
		s.streams = make(map[uint64]*stream)
	}
	s.streams[id] = t
	return t
}

// dial opens a tunnel.
func (s *session) dial(id string) (*stream, error) {
	s.dialling.Lock() // the numbers go out in their order
	defer s.dialling.Unlock()
	s.mu.Lock()
	if s.err != nil || len(s.streams) >= maxStreams {
		err := s.err
		s.mu.Unlock()
		return nil, errors.Join(errors.New("mqtt: no tunnel can be opened"), err)
	}
	s.next++
	t := s.add(s.next)
	s.mu.Unlock()
	if err := s.send(message{kind: msgOpen, stream: t.id, data: []byte(id)}); err != nil {
		return nil, err
	}
	return t, nil
}

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
