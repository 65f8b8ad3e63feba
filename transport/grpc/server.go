package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

// maxStreams is a device's mailbox and its tunnels.
const maxStreams = 96

// ServerConfig configures a Server. All fields are required.
type ServerConfig struct {
	Acceptor transport.Acceptor
	// Device tells from a connection's certificate which device it is.
	Device func(tls.ConnectionState) (string, error)
	Logger *slog.Logger
}

// Server is the control plane's end of the carrier.
type Server struct {
	linkpb.UnimplementedLinkServer
	cfg ServerConfig
}

// NewServer returns a server; Run makes it serve.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg: cfg} }

// Run serves connections of a listener whose connections are TLS with a finished handshake, until ctx ends.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(8<<10),
		grpc.ConnectionTimeout(15*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.WaitForHandlers(true),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(s.recovered))),
	)
	linkpb.RegisterLinkServer(server, s)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); err != nil && ctx.Err() == nil {
			return fmt.Errorf("grpc: serve links: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	return group.Wait()
}

// recovered keeps one device's message from felling the others' control plane.
func (s *Server) recovered(_ context.Context, reason any) error {
	s.cfg.Logger.Error("a link panicked", "reason", reason, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "internal error")
}

// Mailbox serves a device's link.
func (s *Server) Mailbox(stream grpc.BidiStreamingServer[linkpb.Envelope, linkpb.Envelope]) error {
	device, conn, err := s.peer(stream.Context())
	if err != nil {
		return err
	}
	err = s.cfg.Acceptor.Serve(stream.Context(), device, &serverConn{stream: stream, conn: conn})
	if err != nil {
		s.cfg.Logger.Info("link is down", "device", device, "reason", err)
		return status.Error(codes.Unavailable, "the link is over")
	}
	return nil
}

// Tunnel hands a device's byte stream to the one who asked for it and waits until it is over.
func (s *Server) Tunnel(stream grpc.BidiStreamingServer[linkpb.Chunk, linkpb.Chunk]) error {
	device, _, err := s.peer(stream.Context())
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	ids := md.Get(tunnelKey)
	if len(ids) != 1 {
		return status.Error(codes.InvalidArgument, "a tunnel needs one identifier")
	}
	over := make(chan struct{})
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	tunnel := transport.NewTunnel(stream, "control-plane", device, func() { close(over) }, cancel)
	if err := s.cfg.Acceptor.AcceptTunnel(device, ids[0], tunnel); err != nil {
		_ = tunnel.Close()
		return status.Error(codes.NotFound, err.Error())
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
	return nil
}

func (s *Server) peer(ctx context.Context) (string, net.Conn, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", nil, status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(peerInfo)
	if !ok {
		return "", nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	device, err := s.cfg.Device(info.State)
	if err != nil {
		return "", nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return device, info.conn, nil
}

// serverConn is a device's mailbox at the control plane's end.
type serverConn struct {
	stream grpc.BidiStreamingServer[linkpb.Envelope, linkpb.Envelope]
	conn   net.Conn
}

func (c *serverConn) Send(e *linkpb.Envelope) error   { return c.stream.Send(e) }
func (c *serverConn) Recv() (*linkpb.Envelope, error) { return c.stream.Recv() }
func (c *serverConn) OpenTunnel(context.Context, string) (net.Conn, error) {
	return nil, errors.New("grpc: a tunnel is opened by the device")
}

// Segments tells whether the device's kernel is there.
func (c *serverConn) Segments() (uint32, bool) { return transport.Segments(c.conn) }

// Close cuts the device's connection, its tunnels with it: a stream alone cannot be ended from outside its handler.
func (c *serverConn) Close() error { return c.conn.Close() }
