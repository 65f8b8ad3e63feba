package deviceplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin is one that has registered. Its goroutine follows the stream of its devices.
type plugin struct {
	s        *Server
	resource string
	conn     *grpc.ClientConn
	client   api.DevicePluginClient
	options  *api.DevicePluginOptions
	cancel   context.CancelFunc
	done     chan struct{}
	last     []Device
}

func newPlugin(s *Server, r *api.RegisterRequest) (*plugin, error) {
	// The folder is root's, and so is the socket; there is nobody else to be kept from listening.
	conn, err := grpc.NewClient("unix://"+filepath.Join(filepath.Dir(s.c.Socket), r.Endpoint),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &plugin{
		s: s, resource: r.ResourceName, conn: conn, client: api.NewDevicePluginClient(conn), options: r.Options, done: make(chan struct{}),
	}, nil
}

// run follows the plugin until its stream ends, and what it offered for some time after that. A plugin that starts again
// registers again, which ends this one.
func (p *plugin) run(ctx context.Context) {
	defer close(p.done)
	err := p.follow(ctx)
	_ = p.conn.Close()
	if ctx.Err() != nil {
		return
	}
	p.s.c.Logger.Warn("a device plugin went away; its devices are not given to further pods", "resource", p.resource, "err", err)
	for i := range p.last {
		p.last[i].Healthy = false
	}
	p.s.c.Update(p.resource, slices.Clone(p.last))
	select {
	case <-ctx.Done():
	case <-time.After(Absent):
		p.s.c.Update(p.resource, nil)
	}
}

func (p *plugin) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(callTimeout, cancel) // some register a moment before they serve
	stream, err := p.client.ListAndWatch(ctx, &api.Empty{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	late.Stop()
	for {
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(reply.Devices) > maxDevices {
			return fmt.Errorf("it has %d devices; at most %d are taken", len(reply.Devices), maxDevices)
		}
		list := make([]Device, 0, len(reply.Devices))
		for _, d := range reply.Devices {
			if d.ID == "" {
				return errors.New("it has a device with no ID")
			}
			list = append(list, Device{ID: d.ID, Healthy: d.Health == api.Healthy})
		}
		slices.SortFunc(list, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
		list = slices.CompactFunc(list, func(a, b Device) bool { return a.ID == b.ID })
		if p.last != nil && slices.Equal(p.last, list) {
			continue
		}
		p.last = list
		p.s.c.Update(p.resource, slices.Clone(list))
	}
}
