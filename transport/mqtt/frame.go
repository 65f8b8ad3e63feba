package mqtt

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20poly1305"
)

// The kinds of frames, in their first byte.
const (
	frameOpen   byte = 1 + iota // device: proves who it is and offers a key
	frameAccept                 // server: likewise, and names the session
	frameSealed                 // a message, encrypted
	frameReset                  // the sender knows no such session
	frameGone                   // the broker, in the device's name (its will): the connection is over
)

// The kinds of messages inside sealed frames.
const (
	msgReady    byte = 1 + iota // device: has the keys too; the session begins
	msgMail                     // an envelope, or the last part of one
	msgMailPart                 // a part of an envelope; more follows
	msgCredit                   // the peer may send that many more frames of a stream
	msgEnd                      // the mailbox is over
	msgOpen                     // device: opens a tunnel; the data is its identifier
	msgChunk                    // a piece of a tunnel; an empty one ends the sender's direction
	msgFinish                   // no more of this tunnel follows
	msgReset                    // the tunnel is aborted, or refused
	msgLast     = msgReset
)

// message is what one sealed frame carries. Stream 0 is the mailbox.
type message struct {
	kind   byte
	stream uint64
	credit uint64 // frames of the stream that the sender has taken since it last said so
	data   []byte
}

var (
	errMalformed = errors.New("mqtt: a malformed frame")
	errForged    = errors.New("mqtt: a frame that was not made by the peer")
	errReplay    = errors.New("mqtt: a frame that came before")
	errGap       = errors.New("mqtt: frames are missing")
	errStale     = errors.New("mqtt: a frame of another session")
)

// appendMessage encodes a message: kind, stream and credit as varints, data.
func appendMessage(to []byte, m message) []byte {
	to = append(to, m.kind)
	to = binary.AppendUvarint(to, m.stream)
	to = binary.AppendUvarint(to, m.credit)
	return append(to, m.data...)
}

// parseMessage decodes a message; its data is part of b.
func parseMessage(b []byte) (message, error) {
	if len(b) == 0 || b[0] < msgReady || b[0] > msgLast {
		return message{}, errMalformed
	}
	m := message{kind: b[0]}
	stream, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return message{}, errMalformed
	}
	b = b[1+n:]
	credit, n := binary.Uvarint(b)
	if n <= 0 {
		return message{}, errMalformed
	}
	m.stream, m.credit, m.data = stream, credit, b[n:]
	if len(m.data) > fragment {
		return message{}, errMalformed
	}
	return m, nil
}

// sealedHeader reads what stands before a sealed frame's ciphertext: kind, session (4 bytes), number (varint).
func sealedHeader(frame []byte) (session uint32, number uint64, size int, err error) {
	if len(frame) < 6 || len(frame) > maxFrame || frame[0] != frameSealed {
		return 0, 0, 0, errMalformed
	}
	number, n := binary.Uvarint(frame[5:])
	if n <= 0 || number == 0 {
		return 0, 0, 0, errMalformed
	}
	return binary.BigEndian.Uint32(frame[1:]), number, 5 + n, nil
}

func sealedSession(frame []byte) (session uint32, err error) {
	session, _, _, err = sealedHeader(frame)
	return session, err
}

// seal encrypts or decrypts one direction of a session. Its user guards it.
type seal struct {
	session uint32
	aead    cipher.AEAD // ChaCha20-Poly1305 (RFC 8439): most boards have no AES instructions
	last    uint64      // the number of the last frame
}

func newSeal(session uint32, key []byte) (*seal, error) {
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, err
	}
	return &seal{session: session, aead: aead}, nil
}

// close makes the next frame of a message.
func (s *seal) close(m message) []byte {
	s.last++
	header := append(make([]byte, 0, 64+len(m.data)), frameSealed)
	header = binary.BigEndian.AppendUint32(header, s.session)
	header = binary.AppendUvarint(header, s.last)
	plain := appendMessage(make([]byte, 0, 24+len(m.data)), m)
	return s.aead.Seal(header, nonce(s.last), plain, header)
}

// open takes the next frame. Only the one whose turn it is has an answer; errGap means that earlier ones are lost.
func (s *seal) open(frame []byte) (message, error) {
	session, number, size, err := sealedHeader(frame)
	switch {
	case err != nil:
		return message{}, err
	case session != s.session:
		return message{}, errStale
	case number <= s.last:
		return message{}, errReplay
	}
	plain, err := s.aead.Open(nil, nonce(number), frame[size:], frame[:size])
	if err != nil {
		return message{}, errForged
	}
	if number != s.last+1 {
		return message{}, errGap
	}
	s.last = number
	return parseMessage(plain)
}

func nonce(number uint64) []byte {
	var n [chacha20poly1305.NonceSize]byte
	binary.BigEndian.PutUint64(n[4:], number)
	return n[:]
}
