package mqtt

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	version  = 1
	connSize = 8  // of a connection's random name
	keySize  = 32 // of an X25519 public key
)

// hello is a frame of the handshake: the device's open or the server's accept. Both sign what they say, and the server also
// the whole of what it heard, so that neither can be answered with an older session's words. X25519 keys that are made for one
// session give it keys that nobody has afterwards.
type hello struct {
	kind      byte
	conn      [connSize]byte // the device's connection; the accept repeats it
	session   uint32         // accept only
	public    []byte         // X25519
	cert      []byte
	signature []byte
}

// encode puts kind, version, connection, session, key, the certificate with its length (2 bytes) and the signature together.
func (h *hello) encode() []byte {
	b := h.unsigned(nil)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.cert)))
	b = append(b, h.cert...)
	return append(b, h.signature...)
}

func (h *hello) unsigned(b []byte) []byte {
	b = append(b, h.kind, version)
	b = append(b, h.conn[:]...)
	b = binary.BigEndian.AppendUint32(b, h.session)
	return append(b, h.public...)
}

const helloFixed = 2 + connSize + 4 + keySize + 2

func parseHello(frame []byte) (*hello, error) {
	if len(frame) < helloFixed || len(frame) > maxFrame || frame[1] != version {
		return nil, errMalformed
	}
	h := &hello{kind: frame[0]}
	b := frame[2:]
	b = b[copy(h.conn[:], b):]
	h.session = binary.BigEndian.Uint32(b)
	h.public = b[4 : 4+keySize]
	b = b[4+keySize:]
	size := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; size > len(b) {
		return nil, errMalformed
	}
	h.cert, h.signature = b[:size], b[size:]
	return h, nil
}

// openWords and acceptWords are what the two ends sign.
func openWords(h *hello, principal string) []byte {
	return h.unsigned([]byte("shoal mqtt open\x00" + principal + "\x00"))
}

func acceptWords(h *hello, open []byte) []byte {
	heard := sha256.Sum256(open)
	return h.unsigned(append([]byte("shoal mqtt accept\x00"), heard[:]...))
}

// offer is a device's open while it waits for the accept.
type offer struct {
	hello *hello
	key   *ecdh.PrivateKey
	frame []byte
}

func newOffer(conn [connSize]byte, principal string, keys Keys) (*offer, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	h := &hello{kind: frameOpen, conn: conn, public: key.PublicKey().Bytes()}
	if h.cert, h.signature, err = keys.Sign(openWords(h, principal)); err != nil {
		return nil, err
	}
	return &offer{hello: h, key: key, frame: h.encode()}, nil
}

// take reads the server's accept and returns the device's two directions.
func (o *offer) take(frame []byte, keys Keys) (session uint32, out, in *seal, err error) {
	h, err := parseHello(frame)
	if err != nil {
		return 0, nil, nil, err
	}
	if h.kind != frameAccept || h.session == 0 || !bytes.Equal(h.conn[:], o.hello.conn[:]) {
		return 0, nil, nil, errMalformed
	}
	if _, _, err := keys.Verify(h.cert, acceptWords(h, o.frame), h.signature); err != nil {
		return 0, nil, nil, err
	}
	up, down, err := agree(o.key, h.public, o.frame, frame, h.session)
	return h.session, up, down, err
}

// answer reads a device's open and makes the server's accept and its two directions.
func answer(frame []byte, principal string, keys Keys) (device string, h *hello, accept []byte, out, in *seal, err error) {
	open, err := parseHello(frame)
	if err != nil {
		return "", nil, nil, nil, nil, err
	}
	device, who, err := keys.Verify(open.cert, openWords(open, principal), open.signature)
	if err != nil {
		return "", nil, nil, nil, nil, err
	}
	if who != principal {
		return "", nil, nil, nil, nil, fmt.Errorf("%q speaks on the topic of %q", who, principal)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, nil, nil, nil, err
	}
	h = &hello{kind: frameAccept, conn: open.conn, session: newSession(), public: key.PublicKey().Bytes()}
	if h.cert, h.signature, err = keys.Sign(acceptWords(h, frame)); err != nil {
		return "", nil, nil, nil, nil, err
	}
	accept = h.encode()
	up, down, err := agree(key, open.public, frame, accept, h.session)
	return device, h, accept, down, up, err
}

// agree makes the keys of both directions from the shared secret and all that was said (HKDF, RFC 5869).
func agree(own *ecdh.PrivateKey, peer, open, accept []byte, session uint32) (up, down *seal, err error) {
	public, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return nil, nil, err
	}
	secret, err := own.ECDH(public)
	if err != nil {
		return nil, nil, err
	}
	said := sha256.New()
	said.Write(open)
	said.Write(accept)
	keys, err := hkdf.Key(sha256.New, secret, said.Sum(nil), "shoal mqtt keys", 2*chacha20poly1305.KeySize)
	if err != nil {
		return nil, nil, err
	}
	if up, err = newSeal(session, keys[:chacha20poly1305.KeySize]); err != nil {
		return nil, nil, err
	}
	down, err = newSeal(session, keys[chacha20poly1305.KeySize:])
	return up, down, err
}

// newSession is a random name, never 0.
func newSession() uint32 {
	for {
		var raw [4]byte
		rand.Read(raw[:]) // never fails
		if s := binary.BigEndian.Uint32(raw[:]); s != 0 {
			return s
		}
	}
}

func resetFrame(session uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{frameReset}, session)
}

func parseReset(frame []byte) (session uint32, ok bool) {
	if len(frame) != 5 || frame[0] != frameReset {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[1:]), true
}

func goneFrame(conn [connSize]byte) []byte { return append([]byte{frameGone}, conn[:]...) }
