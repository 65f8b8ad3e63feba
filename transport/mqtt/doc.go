// Package mqtt is the carrier that moves mailboxes and tunnels through an MQTT broker: the one that is embedded in every
// server, or one that stands elsewhere.
//
// A broker is not trusted with more than moving bytes. At the start of a session device and server prove who they are by
// signatures and agree on keys; every frame after that is encrypted under the session's keys with a number that goes up by
// one, so that a frame that was made up, comes twice, comes late or is of an older session is seen and refused. A frame that is
// missing ends the session; the mailbox makes good what was lost.
//
// Each device has two topics, shoal/NAME/u from it and shoal/NAME/d to it, where NAME is the name in its certificate. All
// messages have quality of service 0, none is retained: an acknowledgement of a broker says nothing about the peer, and the
// mailbox has its own.
package mqtt

import (
	"strings"
	"time"
)

const (
	// fragment is how much of a message or a tunnel goes into one frame.
	fragment = 32 << 10
	// maxFrame bounds a frame; what surrounds a fragment is a few dozen bytes.
	maxFrame = fragment + 512
	// maxPacket bounds an MQTT packet: a frame, its topic, and a header.
	maxPacket = maxFrame + 512

	// mailWindow and tunnelWindow are how many frames may be on the way before the peer has taken some. They bound what a
	// session keeps in memory and what a broker must queue.
	mailWindow   = 8
	tunnelWindow = 4
	// maxStreams bounds the tunnels of a device.
	maxStreams = 96

	// keepAlive is told to brokers, which drop a client that is silent for half as long again. The mailbox finds out sooner by
	// itself; this is for what a broker keeps of a client that never comes back.
	keepAlive = time.Hour
	// brokerTime is how long a broker has for its part of a connection's beginning, and to answer a ping.
	brokerTime = 30 * time.Second
)

// Keys is who this end is, and how it knows the other.
type Keys interface {
	// Sign returns this end's certificate (DER) and its signature of a message.
	Sign(message []byte) (cert, signature []byte, err error)
	// Verify checks a signature of the other end and returns its name, and its whole name as the certificate has it.
	Verify(cert, message, signature []byte) (name, principal string, err error)
}

const topicRoot = "shoal/"

func upTopic(principal string) string   { return topicRoot + principal + "/u" }
func downTopic(principal string) string { return topicRoot + principal + "/d" }

// allUp is the filter of what all devices say.
const allUp = topicRoot + "+/u"

// sender is the principal whose topic this is.
func sender(topic string) (principal string, ok bool) {
	rest, ok := strings.CutPrefix(topic, topicRoot)
	if !ok {
		return "", false
	}
	principal, ok = strings.CutSuffix(rest, "/u")
	return principal, ok && principal != "" && !strings.Contains(principal, "/")
}
