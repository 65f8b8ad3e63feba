package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/apiserver/audit"
	"github.com/shoal-edge/shoal/apiserver/tokens"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/grpc"
	"github.com/shoal-edge/shoal/transport/mqtt"
)

// Server is one member of the control plane, with the agent of its device.
type Server struct {
	o Options
	*seat
	id         *identity
	mux        *pki.Mux
	durable    *store.Store
	volatile   atomic.Pointer[volatile]      // while this server leads
	hub        atomic.Pointer[transport.Hub] // while this server leads
	client     *store.Client
	plugins    admission.Plugins
	voices     *voices
	quotas     *quota.Counter
	keys       *keys
	rotating   sync.Mutex // while keys are changed, or the state is replaced
	node       *raft.Node
	gate       *transport.Gate
	registry   *prometheus.Registry
	agent      *Agent
	authorizer *apiserver.Authorizer // by what is in durable
	audit      *audit.Log            // nil: nothing is recorded
	mqtt       *mqtt.Server
	mqttTCP    net.Listener // the further address for MQTT; nil: none
	mqttMux    *pki.Mux     // over mqttTCP

	dialBroker func(ctx context.Context, address string) (net.Conn, error)

	auditPolicy *audit.Policy // nil: the metadata of every request
}

// volatile is the store of one leadership, and who writes to it.
type volatile struct {
	store   *store.Store
	propose store.Proposer
}

// NewServer takes the data folder and the port, joins or founds a cluster if this is the first start, and opens the log.
// Everything that a person could have got wrong fails here.
func NewServer(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{o: o, gate: transport.NewGate(), registry: newRegistry(o.Version), quotas: quota.NewCounter()}
	s.voices = newVoices(s)
	if s.plugins, err = newPlugins(o.Config.Server, s.quotas, s.voices); err != nil {
		return nil, err
	}
	if s.seat, err = takeSeat(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.closeMQTT()
			err = errors.Join(err, s.leave())
		}
	}()
	if s.id, err = loadOrJoin(ctx, o, pki.RoleServer); err != nil {
		return nil, err
	}
	if err := certifyAddress(ctx, o, s.id); err != nil {
		return nil, err
	}
	if s.keys, err = openKeys(o.Config, o.Logger); err != nil {
		return nil, err
	}
	if file := o.Config.Server.Audit.PolicyFile; file != "" {
		if s.auditPolicy, err = audit.LoadPolicy(file); err != nil {
			return nil, fmt.Errorf("server.audit.policyFile: %w", err)
		}
	}
	if s.audit, err = openAudit(o, s.registry); err != nil {
		return nil, err
	}
	s.mux = pki.NewMux(s.listener, s.id.server, o.Logger)
	if err := s.openMQTT(ctx); err != nil {
		return nil, err
	}
	servers := []string{s.loopback()}
	if err := s.openStore(); errors.Is(err, raft.ErrSuperseded) {
		// Its pods are the cluster's business, whatever became of its part in the control plane.
		o.Logger.Error("this device runs as an agent only", "error", err)
		servers = o.Config.Join.Servers
		_ = s.listener.Close()
		s.closeMQTT()
	} else if err != nil {
		return nil, err
	}
	if s.agent, err = newAgent(ctx, withRole(o), s.id, s.registry, servers); err != nil {
		return s, err
	}
	if s.durable != nil {
		s.agent.around = func() { s.durable.Revision() }
	}
	return s, nil
}

// withRole labels the node of a server as one of the control plane, as kubectl shows it.
func withRole(o Options) Options {
	labels := map[string]string{"node-role.kubernetes.io/control-plane": ""}
	maps.Copy(labels, o.Config.Agent.Labels)
	o.Config.Agent.Labels = labels
	return o
}

// loopback is how the agent of this very device reaches the server, whatever the network does.
func (s *Server) loopback() string {
	host, _, err := net.SplitHostPort(s.o.Config.Server.Listen)
	if err != nil || net.ParseIP(host) == nil || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, s.port)
}

func (s *Server) openStore() error {
	s.durable = store.New(store.Config{Kinds: api.Kinds(), Persisted: true, Sealer: s.keys, Converter: s.voices.converter, Logger: s.o.Logger})
	s.authorizer = apiserver.NewAuthorizer(s.durable)
	node, err := raft.Open(raft.Config{
		ID:              s.o.Config.NodeName,
		Address:         s.address,
		Dir:             raftDir(s.o.Config.DataDir),
		Layer:           raftLayer{Listener: s.mux.Raft(), id: s.id.server},
		Bootstrap:       s.id.found,
		ElectionTimeout: s.o.Config.Server.ElectionTimeout,
		Voters:          s.o.Config.Server.Voters,
		VoterGrace:      s.o.Config.Server.VoterGrace,
		Gone:            s.deviceGone,
		Store:           s.durable,
		Logger:          s.o.Logger,
	})
	if err != nil {
		return err
	}
	s.node = node
	if err := s.checkKeys(); err != nil {
		return errors.Join(err, node.Close())
	}
	registerRaftMetrics(s.registry, node)
	s.registry.MustRegister(newLinkMetrics(s.hub.Load))
	if s.id.found {
		if err := begun(s.o.Config.DataDir); err != nil {
			return err
		}
	}
	s.client = store.NewClient(s.clientConfig())
	return nil
}

func (s *Server) clientConfig() store.ClientConfig {
	return store.ClientConfig{
		Durable: s.durable,
		Propose: s.node,
		Volatile: func() (*store.Store, store.Proposer, error) {
			v := s.volatile.Load()
			if v == nil {
				return nil, nil, store.ErrNotLeader
			}
			return v.store, v.propose, nil
		},
		Admit:   s.plugins.Admit(),
		Review:  s.plugins.Review(),
		Removed: s.plugins.Removed,
	}
}

// newPlugins returns the admission plugins as the configuration wants them.
func newPlugins(c configs.Server, quotas *quota.Counter, v *voices) (admission.Plugins, error) {
	defaults, err := admission.ParsePodSecurity(c.PodSecurity.Labels())
	if err != nil {
		return nil, fmt.Errorf("server.podSecurity: %w", err)
	}
	first, last, err := c.NodePortRange()
	if err != nil {
		return nil, err
	}
	network, err := netip.ParsePrefix(c.ServiceCIDR)
	if err != nil {
		return nil, fmt.Errorf("server.serviceCIDR: %w", err)
	}
	exempt := c.PodSecurity.Exempt
	return admission.New(admission.Config{
		ReplaceAfter: c.ReplaceAfter,
		Quotas:       quotas,
		Policies:     v.policies,
		Webhooks:     v.hooks,
		Services:     admission.ServicesConfig{CIDR: network, FirstNodePort: first, LastNodePort: last},
		PodSecurity: admission.PodSecurityConfig{
			Defaults: defaults, Namespaces: exempt.Namespaces, Users: exempt.Users, RuntimeClasses: exempt.RuntimeClasses,
		},
	}), nil
}

// raftLayer carries the log between servers over the one port.
type raftLayer struct {
	net.Listener
	id *pki.Identity
}

func (l raftLayer) Dial(ctx context.Context, address string) (net.Conn, error) {
	return l.id.Dial(ctx, address, pki.ProtoRaft)
}

// servers are the addresses of the control plane.
func (s *Server) servers() []string {
	if s.node == nil {
		return nil
	}
	return s.node.Addresses()
}

// Run serves until ctx ends, then hands leadership over and closes.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if s.node != nil {
		s.runControlPlane(ctx, group)
		defer s.stopLinks()
	}
	group.Go(func() error { return s.agent.run(ctx) })
	group.Go(func() error { return renew(ctx, s.o, s.id, pki.RoleServer, s.servers) })
	s.o.Logger.Info("serving", "node", s.o.Config.NodeName, "address", s.address, "kubeconfig", KubeconfigPath(s.o.Config))
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, s.agent.Close(), s.leave())
}

func (s *Server) stopLinks() {
	if s.o.Links != nil {
		s.o.Links.Remove(s.address)
	}
}

func (s *Server) runControlPlane(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return s.mux.Run(ctx) })
	group.Go(func() error { return s.serveAPI(ctx) })
	group.Go(func() error {
		authority := &pki.Authority{
			CA: s.id.ca, Members: s.members(), Logger: s.o.Logger,
			SecretsKeys: func() ([]byte, error) { return s.keys.Ring().Marshal() },
		}
		return authority.Serve(ctx, s.mux.Join())
	})
	if s.o.Links != nil {
		s.o.Links.Listen(s.address, s.gate)
	}
	group.Go(func() error {
		links := grpc.NewServer(grpc.ServerConfig{Acceptor: s.gate, Device: deviceOf, Logger: s.o.Logger})
		return links.Run(ctx, s.mux.Link())
	})
	group.Go(func() error { return s.mqtt.Run(ctx, s.mux.MQTT()) })
	if s.mqttMux != nil {
		group.Go(func() error { return s.mqttMux.Run(ctx) })
		group.Go(func() error { return s.mqtt.Run(ctx, s.mqttMux.MQTT()) })
	}
	group.Go(func() error { return s.node.Run(ctx, s.lead) })
	group.Go(func() error {
		return followAddress(ctx, s.o.Config.AdvertiseAddress, s.o.Config.PresentAddress, addressLook)
	})
	group.Go(func() error { return s.followLeader(ctx) })
	group.Go(func() error {
		announcer := &announcer{
			node: s.node, id: s.id.server, me: announcement{ID: s.o.Config.NodeName, Address: s.address}, logger: s.o.Logger,
			candidates: func() []string {
				return slices.Concat(s.id.servers, s.o.Config.Join.Servers, s.servers(), s.agent.agent.Servers())
			},
		}
		return announcer.run(ctx)
	})
	group.Go(func() error { return s.keepKeys(ctx) })
	if s.audit != nil {
		group.Go(func() error { return s.audit.Run(ctx) })
	}
}

// deviceOf names the device at the other end of a link.
func deviceOf(state tls.ConnectionState) (string, error) {
	name, ok := pki.NodeName(state.PeerCertificates[0])
	if !ok {
		return "", fmt.Errorf("%q is not a device", state.PeerCertificates[0].Subject.CommonName)
	}
	return name, nil
}

// openAudit opens the record of requests, if there is to be one.
func openAudit(o Options, registry *prometheus.Registry) (*audit.Log, error) {
	c := o.Config.Server.Audit
	if c.File == "" {
		return nil, nil
	}
	l, err := audit.Open(audit.Config{
		File: c.File, MaxBytes: int64(c.MaxSizeMB) << 20, MaxFiles: c.MaxFiles, Logger: o.Logger, Registry: registry,
	})
	if err != nil {
		return nil, fmt.Errorf("server.audit.file: %w", err)
	}
	return l, nil
}

// tokenKey is the key that signs the tokens of service accounts.
func (s *Server) tokenKey(generation int) (*ecdsa.PrivateKey, error) {
	return s.id.ca.Derive(fmt.Sprintf("service-account-tokens/%d", generation))
}

// serveAPI serves HTTP until ctx ends.
func (s *Server) serveAPI(ctx context.Context) error {
	forward := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return s.id.server.Dial(ctx, address, "http/1.1")
		},
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: time.Minute,
	}
	defer forward.CloseIdleConnections()
	slow := forward.Clone()
	slow.ResponseHeaderTimeout = 0
	defer slow.CloseIdleConnections()
	answers := apiserver.New(apiserver.Config{
		Client:      s.strictClient(s.authorizer.Guards()),
		Durable:     s.durable,
		Authorizer:  s.authorizer,
		Audit:       s.audit,
		AuditPolicy: s.auditPolicy,
		Tokens:      tokens.New(tokens.Config{Store: s.durable, Key: s.tokenKey}),
		Consensus:   consensus{s.node},
		Forward:     forward,
		ForwardSlow: slow,
		Snapshots:   snapshots{s},
		SecretsKeys: secretsKeys{s},
		Members:     memberList{s.node},
		DialDevice:  s.gate.Dial,
		Admit:       s.voices.admit,
		Registry:    s.registry,
		Ready:       map[string]func() error{"agent": s.agent.ready},
		Version:     s.o.Version,
		Logger:      s.o.Logger,
	})
	server := answers.HTTP()
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == membersPath && r.Method == http.MethodPost:
			s.serveAnnouncement(w, r)
		case r.URL.Path == exchangePath:
			s.serveExchange(w, r)
		default:
			handler.ServeHTTP(w, r)
		}
	})
	if err := pki.ServeHTTP(ctx, server, s.mux.API()); ctx.Err() == nil {
		return fmt.Errorf("serve the API: %w", err)
	}
	return ctx.Err()
}
