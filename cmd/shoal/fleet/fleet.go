// Package fleet owns a whole cluster in one process: real servers and agents, with a runtime in memory instead of containerd
// and links in memory instead of sockets. `shoal dev --fake-runtime` runs one; tests run one and make it fail.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport/memory"
)

// Config configures a Fleet.
type Config struct {
	Dir             string // every member has a folder in it
	Servers, Agents int
	Witness         bool
	Version         string
	Logger          *slog.Logger
	// Sockets has the links go over the loopback interface, as on devices, instead of through memory. Cut does nothing then.
	Sockets bool
	// Edit changes a member's configuration before it starts. May be nil.
	Edit func(c *configs.Config)
	// Runtime configures the members' runtimes.
	Runtime fake.Config
	// Firmware gives every member a bootloader and two slots. May be nil: then the members have no firmware.
	Firmware *FirmwareConfig
}

// Fleet is a cluster in one process.
type Fleet struct {
	cfg   Config
	links *memory.Network

	members []*Member

	mu       sync.Mutex // of the fields by which members run
	closed   bool
	restarts sync.WaitGroup
}

// Member is one device. Its folder and its runtime outlive its process: what is stopped can be started again.
type Member struct {
	Name    string
	Role    pki.Role
	Config  configs.Config
	Runtime *fake.Runtime

	board  *board     // nil without firmware
	life   sync.Mutex // held while it starts or stops
	server *wire.Server
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the last run; read after done
}

// New returns a fleet that has not started. Its members are server-1..., agent-1... and witness.
func New(cfg Config) (*Fleet, error) {
	f := &Fleet{cfg: cfg, links: memory.NewNetwork()}
	var members []*Member
	for i := range cfg.Servers {
		members = append(members, &Member{Name: fmt.Sprintf("server-%d", i+1), Role: pki.RoleServer})
	}
	for i := range cfg.Agents {
		members = append(members, &Member{Name: fmt.Sprintf("agent-%d", i+1), Role: pki.RoleAgent})
	}
	if cfg.Witness {
		members = append(members, &Member{Name: "witness", Role: pki.RoleWitness})
	}
	for i, m := range members {
		runtime := cfg.Runtime
		runtime.FirstIP = netip.AddrFrom4([4]byte{10, 99, byte(i), 2})
		m.Runtime = fake.New(runtime)
		if cfg.Firmware != nil && m.Role != pki.RoleWitness {
			m.board = newBoard(cfg.Firmware, filepath.Join(cfg.Dir, m.Name+"-board"))
		}
		port, err := FreeAddress()
		if err != nil {
			return nil, err
		}
		m.Config = configs.Config{
			NodeName:         m.Name,
			DataDir:          filepath.Join(cfg.Dir, m.Name),
			AdvertiseAddress: "127.0.0.1",
			Server:           configs.Server{Listen: port},
			Agent: configs.Agent{
				Heartbeat:       time.Second,
				RegistryConfDir: filepath.Join(cfg.Dir, m.Name, "certs.d"),
				CNIConfDir:      filepath.Join(cfg.Dir, m.Name, "cni"),
			},
		}
		f.members = append(f.members, m)
	}
	return f, nil
}

// FreeAddress is an address on loopback that nobody listens on. A member keeps it when it starts again.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Start starts all members, the first server first: it founds the cluster and lets the others in.
func (f *Fleet) Start(ctx context.Context) error {
	for i, m := range f.members {
		if i > 0 {
			token, err := f.members[0].server.NewToken(ctx, m.Role, time.Hour)
			if err != nil {
				return fmt.Errorf("fleet: a token for %s: %w", m.Name, err)
			}
			m.Config.Join = configs.Join{Servers: []string{f.members[0].Config.Server.Listen}, Token: token.String()}
		}
		if f.cfg.Edit != nil {
			f.cfg.Edit(&m.Config)
		}
		if err := f.StartMember(ctx, m.Name); err != nil {
			return err
		}
	}
	return f.awaitVoters(ctx)
}

// awaitVoters waits until as many members have a vote as can: before that a fleet survives less than it will.
func (f *Fleet) awaitVoters(ctx context.Context) error {
	able, target := 0, configs.DefaultVoters
	for _, m := range f.members {
		if m.Role != pki.RoleAgent {
			able++
		}
		if m.Config.Server.Voters > 0 {
			target = m.Config.Server.Voters
		}
	}
	want := min(target, able-(able+1)%2)
	for {
		var voters int
		if leader := f.Member(f.Leader()); leader != nil {
			server, _ := f.running(leader)
			for _, s := range server.Members() {
				if s.Voter {
					voters++
				}
			}
		}
		if voters == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fleet: %d members have a vote, not %d: %w", voters, want, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// StartMember starts a member that is not running. Its life does not end with ctx, which bounds the start only.
func (f *Fleet) StartMember(ctx context.Context, name string) error {
	m := f.Member(name)
	if m == nil {
		return fmt.Errorf("fleet: there is no stopped member %q", name)
	}
	m.life.Lock()
	defer m.life.Unlock()
	if _, cancel := f.running(m); cancel != nil {
		return fmt.Errorf("fleet: there is no stopped member %q", name)
	}
	config, err := configs.Complete(m.Config)
	if err != nil {
		return err
	}
	config.Agent.Listen = "" // several members would want the same port
	o := wire.Options{
		Config: config, Logger: f.cfg.Logger.With("member", m.Name), Version: f.cfg.Version, Runtime: m.Runtime, Links: f.links,
	}
	if f.cfg.Sockets {
		o.Links = nil
	}
	if m.board != nil {
		if o.Firmware, err = m.board.boot(func() { f.restart(m.Name) }); err != nil {
			return fmt.Errorf("fleet: boot %s: %w", name, err)
		}
	}
	run, err := f.open(ctx, m, o)
	if err != nil {
		return fmt.Errorf("fleet: start %s: %w", name, err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	f.mu.Lock()
	m.cancel, m.done = cancel, done
	f.mu.Unlock()
	go func() {
		defer close(done)
		m.err = run(life)
	}()
	return nil
}

// running is a member's server, if it is one, and how its process is ended; nil if it does not run.
func (f *Fleet) running(m *Member) (*wire.Server, context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.server, m.cancel
}

// open makes a member's process, and returns how it runs.
func (f *Fleet) open(ctx context.Context, m *Member, o wire.Options) (func(context.Context) error, error) {
	switch m.Role {
	case pki.RoleServer:
		server, err := wire.NewServer(ctx, o)
		if err != nil {
			return nil, err
		}
		f.mu.Lock()
		m.server = server
		f.mu.Unlock()
		return server.Run, nil
	case pki.RoleWitness:
		witness, err := wire.NewWitness(ctx, o)
		if err != nil {
			return nil, err
		}
		return witness.Run, nil
	default:
		agent, err := wire.NewAgent(ctx, o)
		if err != nil {
			return nil, err
		}
		return agent.Run, nil
	}
}

// Member returns a member by its name, or nil.
func (f *Fleet) Member(name string) *Member {
	for _, m := range f.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Members lists all members, running or not.
func (f *Fleet) Members() []*Member { return f.members }

// Leader is the name of the server that leads, or "".
func (f *Fleet) Leader() string {
	for _, m := range f.members {
		if server, cancel := f.running(m); server != nil && cancel != nil && server.IsLeader() {
			return m.Name
		}
	}
	return ""
}

// StopMember ends a member's process in good order. Its containers go on.
func (f *Fleet) StopMember(name string) error {
	m := f.Member(name)
	if m == nil {
		return fmt.Errorf("fleet: there is no running member %q", name)
	}
	m.life.Lock()
	defer m.life.Unlock()
	_, cancel := f.running(m)
	if cancel == nil {
		return fmt.Errorf("fleet: there is no running member %q", name)
	}
	cancel()
	<-m.done
	f.mu.Lock()
	m.cancel = nil
	f.mu.Unlock()
	return m.err
}

// Cut cuts a device's link, until Heal.
func (f *Fleet) Cut(name string) { f.links.SetFault(name, memory.Fault{Cut: true}) }

// Heal lets a device's link come up again.
func (f *Fleet) Heal(name string) { f.links.SetFault(name, memory.Fault{}) }

// Kubeconfig is the path of an administrator's kubeconfig, for the first server.
func (f *Fleet) Kubeconfig() string { return wire.KubeconfigPath(f.members[0].Config) }

// Close stops all members.
func (f *Fleet) Close() error {
	var err error
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.restarts.Wait()
	for i := len(f.members) - 1; i >= 0; i-- {
		m := f.members[i]
		if _, cancel := f.running(m); cancel != nil {
			err = errors.Join(err, f.StopMember(m.Name))
		}
	}
	f.links.Wait()
	return err
}

// Running tells whether the member's process was started and not stopped.
func (m *Member) Running() bool { return m.cancel != nil }

// Done is closed when a member's process has ended, by itself or because it was stopped.
func (m *Member) Done() <-chan struct{} { return m.done }
