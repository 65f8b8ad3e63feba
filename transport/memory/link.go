package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

var errCut = errors.New("memory: the link is cut")

// link is one mailbox link; messages cross it in their wire form, so that the ends share nothing.
type link struct {
	network  *Network
	device   string
	address  string
	server   transport.Acceptor
	toServer chan parcel
	toDevice chan parcel
	over     chan struct{} // closed when the server is done with the link
	ctx      context.Context
	close    context.CancelFunc
}

type parcel struct {
	data []byte
	due  time.Time
}

func newLink(n *Network, device, address string, server transport.Acceptor) *link {
	l := &link{
		network: n, device: device, address: address, server: server,
		toServer: make(chan parcel, 8), toDevice: make(chan parcel, 8), over: make(chan struct{}),
	}
	l.ctx, l.close = context.WithCancel(context.Background())
	return l
}

func (l *link) serve() {
	// The reason is the other end's to tell.
	_ = l.server.Serve(l.ctx, l.device, end{link: l, toDevice: true})
	close(l.over)
	l.network.mu.Lock()
	delete(l.network.links, l)
	l.network.mu.Unlock()
}

// end is one end of a link: toDevice is the direction that it sends in.
type end struct {
	link     *link
	toDevice bool
}

func (e end) Send(message *linkpb.Envelope) error {
	data, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > transport.MaxMessage {
		return fmt.Errorf("memory: a message of %d bytes is too large", len(data))
	}
	fault := e.link.network.fault(e.link.device)
	if fault.Drop != nil && fault.Drop(e.toDevice, message) {
		return e.link.ctx.Err()
	}
	copies := 1
	if fault.Duplicate != nil && fault.Duplicate(e.toDevice, message) {
		copies = 2
	}
	out := e.link.toServer
	if e.toDevice {
		out = e.link.toDevice
	}
	for range copies {
		select {
		case out <- parcel{data: data, due: time.Now().Add(fault.Delay)}:
		case <-e.link.over:
			return errCut
		case <-e.link.ctx.Done():
			return errCut
		}
	}
	return nil
}

func (e end) Recv() (*linkpb.Envelope, error) {
	in := e.link.toDevice
	if e.toDevice {
		in = e.link.toServer
	}
	select {
	case got := <-in:
		return e.open(got)
	case <-e.link.over:
		select { // what was sent before the end
		case got := <-in:
			return e.open(got)
		default:
			e.link.close()
			return nil, io.EOF
		}
	case <-e.link.ctx.Done():
		return nil, errCut
	}
}

// open waits until a parcel is due.
func (e end) open(got parcel) (*linkpb.Envelope, error) {
	timer := time.NewTimer(time.Until(got.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		message := new(linkpb.Envelope)
		return message, proto.Unmarshal(got.data, message)
	case <-e.link.ctx.Done():
		return nil, errCut
	}
}

func (e end) Close() error {
	e.link.close()
	return nil
}

func (e end) OpenTunnel(_ context.Context, id string) (net.Conn, error) {
	if e.toDevice {
		return nil, errors.New("memory: a tunnel is opened by the device")
	}
	ctx, cut := context.WithCancel(e.link.ctx)
	up, down := newDirection(ctx), newDirection(ctx)
	far := transport.NewTunnel(stream{out: down, in: up}, "control-plane", e.link.device, down.finish, cut)
	near := transport.NewTunnel(stream{out: up, in: down}, e.link.device, "control-plane", up.finish, cut)
	if err := e.link.server.AcceptTunnel(e.link.device, id, far); err != nil {
		cut()
		return nil, err
	}
	return near, nil
}

// direction is one half of a tunnel.
type direction struct {
	ctx      context.Context
	chunks   chan []byte
	finished chan struct{}
	once     *sync.Once
}

func newDirection(ctx context.Context) direction {
	return direction{ctx: ctx, chunks: make(chan []byte, 2), finished: make(chan struct{}), once: new(sync.Once)}
}

func (d direction) finish() { d.once.Do(func() { close(d.finished) }) }

type stream struct{ out, in direction }

func (s stream) Send(c *linkpb.Chunk) error {
	select {
	case s.out.chunks <- append([]byte(nil), c.Data...):
		return nil
	case <-s.out.ctx.Done():
		return errCut
	}
}

func (s stream) Recv() (*linkpb.Chunk, error) {
	select {
	case data := <-s.in.chunks:
		return &linkpb.Chunk{Data: data}, nil
	case <-s.in.ctx.Done():
		return nil, errCut
	case <-s.in.finished:
		select { // what was sent before the end
		case data := <-s.in.chunks:
			return &linkpb.Chunk{Data: data}, nil
		default:
			return nil, io.EOF
		}
	}
}
