// Package deviceplugintest owns a small device plugin for tests: a real one, on a real socket, as a vendor's would be.
package deviceplugintest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Plugin serves devices with these IDs until Stop.
type Plugin struct {
	api.UnimplementedDevicePluginServer
	Resource, Socket string
	// Answer is what a container gets for devices. Default: an environment variable with their IDs.
	Answer func(ids []string) (*api.ContainerAllocateResponse, error)
	// Prefer, if there is one, is asked which devices it prefers.
	Prefer func(available, must []string, size int) []string

	mu      sync.Mutex
	devices map[string]string // ID -> health
	changed chan struct{}
	calls   []string
	server  *grpc.Server
}

// Start makes the plugin serve in the folder of kubelet's socket. It has yet to register.
func Start(t testing.TB, p *Plugin, folder string, ids ...string) {
	t.Helper()
	// Calls of before are kept: a plugin that starts again is the same one to a test.
	p.Socket = filepath.Join(folder, strings.ReplaceAll(p.Resource, "/", "-")+".sock")
	p.devices, p.changed = map[string]string{}, make(chan struct{})
	for _, id := range ids {
		p.devices[id] = api.Healthy
	}
	_ = os.Remove(p.Socket)
	listener, err := net.Listen("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	p.server = grpc.NewServer()
	api.RegisterDevicePluginServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }()
	t.Cleanup(p.Stop)
}

// Stop ends the plugin, as if it had crashed.
func (p *Plugin) Stop() { p.server.Stop() }

// Register tells kubelet's socket of the plugin.
func (p *Plugin) Register(ctx context.Context, kubelet string) error {
	conn, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	_, err = api.NewRegistrationClient(conn).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: filepath.Base(p.Socket), ResourceName: p.Resource,
		Options: &api.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: p.Prefer != nil},
	}, grpc.WaitForReady(true))
	return errors.Join(err, conn.Close())
}

// Set changes a device's health; "" takes it away.
func (p *Plugin) Set(id, health string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if health == "" {
		delete(p.devices, id)
	} else {
		p.devices[id] = health
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Calls are the calls so far: "allocate a,b", "prestart a".
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *Plugin) called(what string, ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, what+" "+strings.Join(ids, ","))
}

// GetDevicePluginOptions implements the API.
func (p *Plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: p.Prefer != nil}, nil
}

// ListAndWatch implements the API.
func (p *Plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for {
		reply := &api.ListAndWatchResponse{}
		p.mu.Lock()
		for id, health := range p.devices {
			reply.Devices = append(reply.Devices, &api.Device{ID: id, Health: health})
		}
		changed := p.changed
		p.mu.Unlock()
		if err := stream.Send(reply); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-changed:
		}
	}
}

// GetPreferredAllocation implements the API.
func (p *Plugin) GetPreferredAllocation(_ context.Context, r *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	reply := &api.PreferredAllocationResponse{}
	for _, c := range r.ContainerRequests {
		ids := p.Prefer(c.AvailableDeviceIDs, c.MustIncludeDeviceIDs, int(c.AllocationSize))
		reply.ContainerResponses = append(reply.ContainerResponses, &api.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return reply, nil
}

// Allocate implements the API.
func (p *Plugin) Allocate(_ context.Context, r *api.AllocateRequest) (*api.AllocateResponse, error) {
	reply := &api.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		p.called("allocate", c.DevicesIds)
		answer := &api.ContainerAllocateResponse{Envs: map[string]string{"TEST_DEVICES": strings.Join(c.DevicesIds, ",")}}
		if p.Answer != nil {
			var err error
			if answer, err = p.Answer(c.DevicesIds); err != nil {
				return nil, err
			}
		}
		reply.ContainerResponses = append(reply.ContainerResponses, answer)
	}
	return reply, nil
}

// PreStartContainer implements the API.
func (p *Plugin) PreStartContainer(_ context.Context, r *api.PreStartContainerRequest) (*api.PreStartContainerResponse, error) {
	p.called("prestart", r.DevicesIds)
	return &api.PreStartContainerResponse{}, nil
}
