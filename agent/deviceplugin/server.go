// Package deviceplugin owns kubelet's side of the device plugin API (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1), so that vendors'
// plugins work unchanged: they register on a socket, tell of their devices over a stream, and say what a container needs for those
// that it gets. Who gets which device is decided elsewhere.
//
// As kubelet does, a start removes the sockets of the folder and makes the server's anew: a plugin that watches either registers again.
package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Bounds. A plugin is trusted as far as root is, but its mistakes must not fill the memory.
const (
	maxPlugins = 64
	maxDevices = 4096 // of one plugin
	// Absent is how long a plugin that went away may be gone until its resource is: its own update takes less.
	Absent = 5 * time.Minute
	// callTimeout bounds a call to a plugin, prestartTimeout that before a start (KubeletPreStartContainerRPCTimeoutInSecs).
	callTimeout     = 10 * time.Second
	prestartTimeout = api.KubeletPreStartContainerRPCTimeoutInSecs * time.Second
)

// Device is one device of a plugin.
type Device struct {
	ID      string
	Healthy bool
}

// Config of a Server. All but Logger are needed.
type Config struct {
	// Socket is where plugins register; theirs are in the same folder.
	Socket string
	// Update gets what a plugin offers whenever that changes. When the plugin is not there, all are unhealthy; when it is not
	// coming back, the list is nil. Calls for one resource come one after the other.
	Update func(resource string, devices []Device)
	Logger *slog.Logger
}

// Server is where plugins register. Its methods may be called at the same time.
type Server struct {
	api.UnimplementedRegistrationServer
	c Config

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run, for plugins that register
	workers *errgroup.Group
	plugins map[string]*plugin // by resource
}

// New returns a Server that does nothing before Run.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{c: c, plugins: map[string]*plugin{}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return fmt.Errorf("device plugins: %w", err)
	}
	workers, workersCtx := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.ctx, s.workers = workersCtx, workers
	s.mu.Unlock()
	server := grpc.NewServer(grpc.MaxConcurrentStreams(maxPlugins), grpc.MaxRecvMsgSize(64<<10))
	api.RegisterRegistrationServer(server, s)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	err = server.Serve(listener)
	s.mu.Lock()
	s.ctx = nil // no new plugins from here on
	s.mu.Unlock()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, workers.Wait())
}

// listen makes the socket anew, and removes those of plugins, by which they notice.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	dir := filepath.Dir(s.c.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket == 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", s.c.Socket)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(s.c.Socket, 0o600)
}

// Register implements the API: it takes a plugin in the place of an earlier one of the same resource, and talks to it from then on.
func (s *Server) Register(_ context.Context, r *api.RegisterRequest) (*api.Empty, error) {
	if err := check(r); err != nil {
		s.c.Logger.Warn("a device plugin is refused", "resource", r.ResourceName, "endpoint", r.Endpoint, "err", err)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil, status.Error(codes.Unavailable, "the agent ends")
	}
	old := s.plugins[r.ResourceName]
	if old == nil && len(s.plugins) >= maxPlugins {
		return nil, status.Errorf(codes.ResourceExhausted, "there are %d device plugins already", maxPlugins)
	}
	p, err := newPlugin(s, r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithCancel(s.ctx)
	p.cancel = cancel
	s.plugins[r.ResourceName] = p
	s.workers.Go(func() error {
		defer cancel()
		if old != nil { // one after the other, so that the older one's last word is not the newest
			old.cancel()
			<-old.done
		}
		p.run(ctx)
		return nil
	})
	s.c.Logger.Info("a device plugin has registered", "resource", r.ResourceName, "endpoint", r.Endpoint)
	return &api.Empty{}, nil
}

func check(r *api.RegisterRequest) error {
	if r.Version != api.Version {
		return fmt.Errorf("version %q is not served; %s is", r.Version, api.Version)
	}
	domain, _, ok := strings.Cut(r.ResourceName, "/")
	if !ok || len(validation.IsQualifiedName(r.ResourceName)) > 0 || domain == "shoal.dev" || domain == "kubernetes.io" ||
		strings.HasSuffix(domain, ".kubernetes.io") {
		return fmt.Errorf("resource %q must be of the vendor's own domain, such as vendor.example/gpu", r.ResourceName)
	}
	if r.Endpoint == "" || r.Endpoint != filepath.Base(r.Endpoint) || strings.HasPrefix(r.Endpoint, ".") {
		return fmt.Errorf("endpoint %q must be the name of a socket in the folder of this one", r.Endpoint)
	}
	return nil
}

// of is the plugin of a resource, if it is there.
func (s *Server) of(resource string) (*plugin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.plugins[resource]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no device plugin for %s has registered", resource)
}

// Allocate asks the plugin what a container needs for these devices.
func (s *Server) Allocate(ctx context.Context, resource string, ids []string) (*api.ContainerAllocateResponse, error) {
	p, err := s.of(resource)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := p.client.Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, fmt.Errorf("device plugin of %s: %w", resource, err)
	}
	if len(reply.ContainerResponses) != 1 {
		return nil, fmt.Errorf("device plugin of %s gave %d answers for one container", resource, len(reply.ContainerResponses))
	}
	return reply.ContainerResponses[0], nil
}

// Preferred asks the plugin which of the available devices a container best gets; nil when it has no opinion.
func (s *Server) Preferred(ctx context.Context, resource string, available, must []string, size int) []string {
	p, err := s.of(resource)
	if err != nil || !p.options.GetGetPreferredAllocationAvailable() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := p.client.GetPreferredAllocation(ctx, &api.PreferredAllocationRequest{
		ContainerRequests: []*api.ContainerPreferredAllocationRequest{{
			AvailableDeviceIDs: available, MustIncludeDeviceIDs: must, AllocationSize: int32(min(size, maxDevices)),
		}},
	})
	if err != nil || len(reply.ContainerResponses) != 1 {
		s.c.Logger.Warn("a device plugin does not say which devices it prefers", "resource", resource, "err", err)
		return nil
	}
	return reply.ContainerResponses[0].DeviceIDs
}

// PreStart has the plugin prepare the devices for a start of the container, if it wants to.
func (s *Server) PreStart(ctx context.Context, resource string, ids []string) error {
	p, err := s.of(resource)
	if err != nil {
		return err
	}
	if !p.options.GetPreStartRequired() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prestartTimeout)
	defer cancel()
	if _, err := p.client.PreStartContainer(ctx, &api.PreStartContainerRequest{DevicesIds: ids}); err != nil {
		return fmt.Errorf("device plugin of %s: %w", resource, err)
	}
	return nil
}
