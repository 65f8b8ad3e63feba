// Package dev owns the lab: a cluster of several devices on one machine. A device is a set of namespaces (processes, mounts,
// network, host name) held by one init process, with an address on a bridge, a folder, a containerd and a real shoal process of
// its own. All of a device hangs on its init, as all of a board hangs on its power, so that taking one away, or cleaning up
// after anything, is one kill; and the inits end by themselves when the process that owns the lab ends.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/configs"
)

// Role is what a device runs.
type Role string

// The roles of devices.
const (
	Server Role = "server"
	Agent  Role = "agent"
)

const (
	// runRoot holds a lock and a state file per lab; dataRoot a folder per lab.
	runRoot  = "/run/shoal-lab"
	dataRoot = "/var/lib/shoal-lab"
	// RegistryHost is the registry name in references to the lab's images.
	RegistryHost = "registry.shoal.test"
	// apiPort is the default port of a server.
	apiPort = "6443"
	// startLimit bounds each single wait for a process to come up.
	startLimit = 30 * time.Second
)

// Config says what lab to make.
type Config struct {
	// Name tells labs on one machine apart: at most 8 letters and digits. Subnet is the lab's own 10.77.Subnet.0/24.
	Name   string
	Subnet uint8
	// Shoal is the path of the shoal binary.
	Shoal string
	// Servers and Agents are how many devices of each role to make. With no server there are devices and no cluster.
	Servers, Agents int
	// Edit, if set, may change a device's configuration before its file is written.
	Edit func(d *Device, c *configs.Config)
	// Images, if set, answers pulls from RegistryHost and from the registries ImageHosts; OpenImages makes one.
	Images     http.Handler
	ImageHosts []string
	// WithoutShoal leaves out the shoal processes: devices with a containerd only.
	WithoutShoal bool
	// WithoutContainerd leaves out the containerds, and their tools need not be there: for tests of the control plane.
	WithoutContainerd bool
	Logger            *slog.Logger
}

// Lab is a running cluster. Its methods may be called from several goroutines, but for one device from one at a time.
type Lab struct {
	cfg     Config
	dir     string
	lock    io.Closer
	state   *state
	net     *sandbox
	devices []*Device
	images  *http.Server
}

var labName = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// New takes the name's lock and cleans up what a killed lab of the same name left. Close must be called afterwards.
func New(cfg Config) (*Lab, error) {
	if !labName.MatchString(cfg.Name) {
		return nil, fmt.Errorf("lab: name %q must be 1 to 8 lower-case letters and digits", cfg.Name)
	}
	if cfg.Servers < 0 || cfg.Agents < 0 || cfg.Servers > 9 || cfg.Agents > 100 {
		return nil, fmt.Errorf("lab: %d servers and %d agents: want at most 9 and 100", cfg.Servers, cfg.Agents)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: making devices needs root; try sudo, or shoal dev --fake-runtime")
	}
	if err := needTools(cfg.WithoutContainerd); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockLab(cfg.Name)
	if err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, dir: filepath.Join(dataRoot, cfg.Name), lock: lock}
	if err := sweep(cfg.Name, cfg.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: clean up after the last run: %w", err), lock.Close())
	}
	for i := range cfg.Servers {
		l.devices = append(l.devices, l.newDevice(Server, i))
	}
	for i := range cfg.Agents {
		l.devices = append(l.devices, l.newDevice(Agent, i))
	}
	return l, nil
}

// Start makes the network and all devices and lets them join. On an error the lab still has to be closed.
func (l *Lab) Start(ctx context.Context) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l.state = newState(l.cfg.Name, l.dir)
	if err := l.startNetwork(ctx); err != nil {
		return fmt.Errorf("lab: network: %w", err)
	}
	if err := l.serveImages(ctx); err != nil {
		return fmt.Errorf("lab: registry: %w", err)
	}
	// The devices' own parts start together; a cluster starts with its first server.
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, d := range l.devices {
		group.Go(func() error { return l.boot(groupCtx, d) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if l.cfg.WithoutShoal || l.cfg.Servers == 0 {
		return nil
	}
	return l.form(ctx)
}

// form starts the first server, makes a token per role with it, and lets the others join.
func (l *Lab) form(ctx context.Context) error {
	first := l.devices[0]
	if err := l.StartShoal(ctx, first); err != nil {
		return err
	}
	if err := l.waitKubeconfig(ctx, first); err != nil {
		return err
	}
	for _, role := range []Role{Server, Agent} {
		token, err := l.token(ctx, role)
		if err != nil {
			return err
		}
		for _, d := range l.devices[1:] {
			if d.Role != role {
				continue
			}
			d.token = token
			if err := l.StartShoal(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Devices are all devices, servers first.
func (l *Lab) Devices() []*Device { return l.devices }

// Device finds one by name.
func (l *Lab) Device(name string) (*Device, error) {
	for _, d := range l.devices {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("lab: no device %q", name)
}

// Dir is the lab's folder.
func (l *Lab) Dir() string { return l.dir }

// Close ends all devices, removes everything that the lab made and says so if something was left.
func (l *Lab) Close() error {
	var errs []error
	if l.images != nil {
		errs = append(errs, l.images.Close())
	}
	for _, d := range l.devices {
		if d.serial != nil {
			errs = append(errs, d.serial.Close())
		}
		if d.box != nil {
			errs = append(errs, d.box.kill())
		}
	}
	if l.net != nil {
		errs = append(errs, l.net.kill())
	}
	errs = append(errs, sweep(l.cfg.Name, l.cfg.Logger), l.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: clean up: %w", err)
	}
	return nil
}
