// Package grpc is the carrier that moves mailboxes and tunnels over gRPC streams, on connections whose TLS handshake is
// over already: pki dials and accepts them, so that one port serves several protocols.
package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/shoal-edge/shoal/transport"
)

// tunnelKey is the metadata key of a tunnel's identifier.
const tunnelKey = "shoal-tunnel"

const (
	// bufferBytes keeps a thousand idle connections small; a larger message is written in pieces.
	bufferBytes = 4 << 10
	// maxMessage leaves room for what surrounds an envelope of the largest size.
	maxMessage = transport.MaxMessage
	// Windows of a fixed size keep gRPC from measuring the link with a ping for each heartbeat. They bound what a tunnel
	// whose reader is slow keeps in memory.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
)

// handshaken passes the state of a connection's finished TLS handshake on to gRPC.
type handshaken struct{}

// peerInfo is what gRPC knows of a connection's peer, and the connection itself, so that a link can be cut.
type peerInfo struct {
	credentials.TLSInfo
	conn net.Conn
}

func (handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return describe(conn)
}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return describe(conn)
}

func describe(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, errors.New("grpc: the connection is not TLS")
	}
	state := secure.ConnectionState()
	if !state.HandshakeComplete {
		return nil, nil, errors.New("grpc: the TLS handshake is not over")
	}
	info := credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
	return conn, peerInfo{TLSInfo: info, conn: conn}, nil
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (handshaken) Clone() credentials.TransportCredentials { return handshaken{} }

func (handshaken) OverrideServerName(string) error { return nil }
