// Package dispatch owns the traffic between the store and the devices' links, on the leader: it follows what each device
// should have and sends the differences, and it writes what devices report, each device about itself only.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// The resources that devices get or write.
const (
	pods       = "pods"
	nodes      = "nodes"
	configMaps = "configmaps"
	secrets    = "secrets"
	classes    = "runtimeclasses.node.k8s.io"
	leases     = "leases.coordination.k8s.io"
	events     = "events"
	firmwares  = "devicefirmwares.firmware.shoal.dev"
	releases   = "releases.firmware.shoal.dev"
)

// The keys of a device's firmware: what it is told, and the release that it is about, with its signed metadata.
const (
	firmwareKey = "firmware"
	releaseKey  = "release"
)

// Config configures a Dispatcher. Client and Logger are required.
type Config struct {
	Client *store.Client
	Logger *slog.Logger
	// Servers returns the control plane's addresses, host:port, for the devices to remember. Nil: they keep their own list.
	Servers func() []string
	// Now is the clock for heartbeats. Nil: time.Now.
	Now func() time.Time
}

// sender is what a Dispatcher needs of a Hub.
type sender interface {
	Send(device string, items []transport.Item)
}

// Dispatcher implements transport.Owner over the store.
type Dispatcher struct {
	cfg    Config
	client *store.Client
	reader store.Reader
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	hub     sender
	devices map[string]*device
	users   map[string]map[*device]bool // by the key of a ConfigMap or Secret: the connected devices whose pods use it
	peers   map[string]peer             // by node
	beats   map[string]time.Time        // by node: when its lease was renewed
	servers string                      // what the devices were last told of the servers
}

// New returns a dispatcher. Give it the hub with Use before the hub lets links in.
func New(cfg Config) *Dispatcher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Dispatcher{
		cfg: cfg, client: cfg.Client, reader: cfg.Client.Reader(), logger: cfg.Logger, now: cfg.Now,
		devices: make(map[string]*device),
		users:   make(map[string]map[*device]bool),
		peers:   make(map[string]peer),
		beats:   make(map[string]time.Time),
	}
}

// Use sets the hub that changes are sent through.
func (d *Dispatcher) Use(hub sender) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hub = hub
}

// Run follows the store until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for resource, handle := range map[string]func(store.Event){
		pods: d.podChanged, nodes: d.nodeChanged, configMaps: d.usedChanged, secrets: d.usedChanged, classes: d.usedChanged,
		"persistentvolumeclaims": d.claimChanged, "persistentvolumes": d.volumeChanged,
		firmwares: d.firmwareChanged, trustBundles: d.bundlesChanged,
	} {
		group.Go(func() error { return d.follow(ctx, resource, handle) })
	}
	return group.Wait()
}

// follow hands the changes of one resource on. Where changes were missed, every device's whole state is compared.
func (d *Dispatcher) follow(ctx context.Context, resource string, handle func(store.Event)) error {
	source, err := d.client.ReaderFor(api.ByResource(resource), "")
	if err != nil {
		return fmt.Errorf("dispatch: follow %s: %w", resource, err)
	}
	for ctx.Err() == nil {
		watcher, err := source.Watch(resource, "", source.Revision())
		if err != nil {
			return fmt.Errorf("dispatch: follow %s: %w", resource, err)
		}
		d.Compare()
		err = pass(ctx, watcher, handle)
		watcher.Close()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("dispatch: follow %s: %w", resource, err)
		}
	}
	return nil
}

// Compare sends the devices all that differs from what they have, as when what could not be decrypted now can.
func (d *Dispatcher) Compare() {
	for _, dev := range d.connected() {
		d.compare(dev)
	}
}

// pass ends without an error when the watch was cut off for being slow.
func pass(ctx context.Context, watcher *store.Watcher, handle func(store.Event)) error {
	for {
		batch, err := watcher.Next(ctx)
		if errors.Is(err, store.ErrSlow) || errors.Is(err, store.ErrGone) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, event := range batch {
			handle(event)
		}
	}
}

// ServersChanged tells the devices of a new list of servers.
func (d *Dispatcher) ServersChanged() {
	for _, dev := range d.connected() {
		d.touch(dev, transport.ServersKey)
	}
}

func (d *Dispatcher) podChanged(event store.Event) {
	for _, value := range [][]byte{event.Item.Value, event.Prev} {
		if value == nil {
			continue
		}
		if dev := d.device(podNode(value)); dev != nil {
			d.touch(dev, "pods/"+event.Item.Key.Namespace+"/"+event.Item.Key.Name)
			return // a pod never changes its node
		}
	}
}

// firmwareChanged sends a device what it is told, the release first. Releases never change.
func (d *Dispatcher) firmwareChanged(event store.Event) {
	if dev := d.device(event.Item.Key.Name); dev != nil {
		d.touch(dev, releaseKey)
		d.touch(dev, firmwareKey)
	}
}

func (d *Dispatcher) usedChanged(event store.Event) {
	d.touchUsers(event.Item.Key.String())
}

func (d *Dispatcher) nodeChanged(event store.Event) {
	name := event.Item.Key.Name
	if dev := d.device(name); dev != nil {
		d.touch(dev, "node")
	}
	if event.Type == store.Deleted {
		d.forget(name)
	}
	if !d.peerChanged(event) {
		return
	}
	d.tellPeers(event)
	d.tellServers() // it may be one that has come or gone
}

// device returns a device that has a link, or nil.
func (d *Dispatcher) device(name string) *device {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev := d.devices[name]; dev != nil && dev.connected {
		return dev
	}
	return nil
}

// forget drops what is known of a device that has neither a node nor a link.
func (d *Dispatcher) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.peers, name)
	delete(d.beats, name)
	if dev := d.devices[name]; dev != nil && !dev.connected {
		delete(d.devices, name)
	}
}

func (d *Dispatcher) connected() []*device {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*device, 0, len(d.devices))
	for _, dev := range d.devices {
		if dev.connected {
			out = append(out, dev)
		}
	}
	return out
}

// splitKey reads "pods/<namespace>/<name>".
func splitKey(key string) (kind, namespace, name string) {
	kind, rest, _ := strings.Cut(key, "/")
	namespace, name, _ = strings.Cut(rest, "/")
	return kind, namespace, name
}
