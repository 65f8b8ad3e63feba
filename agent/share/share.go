// Package share owns what the devices of one network do for each other with images and firmware, so that a site fetches each from outside
// once: it gives pieces of images to neighbours, asks them for pieces on behalf of this device's containerd, and has neighbours that
// want the same image wait for the one that fetches it.
//
// All of it is a help, and nothing depends on it: a neighbour that does not answer, or answers wrongly, is left out, and the registry is
// asked. Pieces go by their digest, which containerd checks.
package share

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"
)

// turns is how many pieces are given at a time, over all neighbours: a device with pods has other things to do.
const turns = 4

// Peer is a neighbour.
type Peer struct{ Name, Address string }

// Store has the device's pieces of images and its firmware; content.Store and firmware.Device are such stores.
type Store interface {
	Size(ctx context.Context, digest string) (int64, error)
	Copy(ctx context.Context, w io.Writer, digest string, offset int64) error
}

// Config of a Sharer.
type Config struct {
	Name string
	// Peers are the present neighbours.
	Peers func() []Peer
	Store Store
	// Has reports whether this device has the image of a name.
	Has func(ctx context.Context, ref string) bool
	// Server lets in neighbours; Client is for reaching the one of that name.
	Server *tls.Config
	Client func(name string) *tls.Config
	Logger *slog.Logger
}

// Sharer shares one device's images.
type Sharer struct {
	c       Config
	clients clients
	giving  chan struct{}

	mu      sync.Mutex
	fetches map[string]*fetch // by the image's name
	// givers is who had the last piece of a repository.
	givers map[string]string
	// closing are the goroutines that put away answers that nobody needs.
	closing sync.WaitGroup
}

// New returns a Sharer; it does nothing before Run.
func New(c Config) *Sharer {
	s := &Sharer{c: c, giving: make(chan struct{}, turns), fetches: map[string]*fetch{}, givers: map[string]string{}}
	s.clients = clients{dial: c.Client, known: map[Peer]*client{}}
	return s
}

// Run serves neighbours and this device's containerd until ctx ends, and closes both listeners.
func (s *Sharer) Run(ctx context.Context, neighbours, local net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	serve := func(l net.Listener, h http.Handler) {
		server := &http.Server{
			Handler: h, ReadHeaderTimeout: patience, IdleTimeout: keep, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(s.c.Logger.Handler(), slog.LevelDebug),
		}
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return server.Close()
		})
	}
	serve(tls.NewListener(neighbours, s.c.Server), s.forNeighbours())
	serve(local, http.HandlerFunc(s.mirror))
	defer s.clients.close()
	defer s.closing.Wait()
	return g.Wait()
}
