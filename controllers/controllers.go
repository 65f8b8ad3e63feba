// Package controllers owns the loops that bring the cluster to what its objects ask for: deployments, replica sets, daemon sets,
// stateful sets, the scheduler's loop, the health of nodes, their address blocks, namespaces, garbage and events. They run on the leader only,
// under its leadership: when the context ends, all of them stop.
//
// Each loop reads the store itself, which holds every write of its own as soon as the write returns; so no loop needs to
// remember what it has just asked for.
package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
)

// The resources that loops read by name.
const (
	pods            = "pods"
	nodes           = "nodes"
	namespaces      = "namespaces"
	events          = "events"
	leases          = "leases.coordination.k8s.io"
	deployments     = "deployments.apps"
	replicaSets     = "replicasets.apps"
	serviceAccounts = "serviceaccounts"
	configMaps      = "configmaps"
	resourceQuotas  = "resourcequotas"
	budgets         = "poddisruptionbudgets.policy"
	jobs            = "jobs.batch"
	signingRequests = "certificatesigningrequests.certificates.k8s.io"
	statefulSets    = "statefulsets.apps"
	daemonSets      = "daemonsets.apps"

	replicationControllers = "replicationcontrollers"

	services        = "services"
	endpoints       = "endpoints"
	endpointSlices  = "endpointslices.discovery.k8s.io"
	serviceCIDRs    = "servicecidrs.networking.k8s.io"
	definitions     = "customresourcedefinitions.apiextensions.k8s.io"
	clusterRoles    = "clusterroles.rbac.authorization.k8s.io"
	priorityClasses = "priorityclasses.scheduling.k8s.io"
)

// Defaults of Config.
const (
	DefaultNodeGrace     = 40 * time.Second
	DefaultPodCIDR       = "10.42.0.0/16"
	DefaultNodeBits      = 25
	DefaultFinishedPods  = 500
	DefaultEvents        = 1000
	DefaultEventLifetime = time.Hour
)

// Config configures the controllers.
type Config struct {
	Client *store.Client
	Logger *slog.Logger
	// Now is the clock for times in objects. Nil: time.Now. How long something lasts is measured by the monotonic clock.
	Now func() time.Time

	// NodeGrace is how long a node may be silent before it is Unknown.
	NodeGrace time.Duration
	// Unreachable is called when a node became Unknown: its link, if it has one, should be dropped, so that the device
	// connects again and tells its whole status. It may be nil.
	Unreachable func(node string)

	// PodCIDR is the cluster's pod network; every node gets a block of it with a prefix of NodeBits bits.
	PodCIDR  string
	NodeBits int

	// ServiceCIDR is the network of the services' addresses. Empty: services have none.
	ServiceCIDR string
	// Servers returns the addresses of the API, host:port, that are behind the service "kubernetes".
	Servers func() []string

	// CA is the PEM bundle that pods trust the API server by: every namespace's kube-root-ca.crt.
	CA []byte

	// NodeName is this server's own device. Voters are the members of the control plane that vote; with look set they are asked how
	// they are, which may take seconds. StepAside lets another server lead. They may be nil: then nothing is known of votes.
	NodeName  string
	Voters    func(ctx context.Context, look bool) []waves.Voter
	StepAside func(ctx context.Context) error

	// FinishedPods is how many finished pods stay to be looked at; Events how many events, for EventLifetime at most.
	FinishedPods  int
	Events        int
	EventLifetime time.Duration

	// SignClient certifies a client of the API, for a PKCS #10 request in PEM. An error is told whoever made the request. Nil: nobody
	// signs.
	SignClient func(request []byte, usages []certificatesv1.KeyUsage, life time.Duration) ([]byte, error)

	// HTTP asks the gates of rollouts. Nil: a client of its own.
	HTTP *http.Client

	// Quotas counts what quotas limit; admission may share it. Nil: one of its own.
	Quotas *quota.Counter
}

// Controllers is all the loops of one leadership.
type Controllers struct {
	cfg      Config
	client   *store.Client
	reader   store.Reader
	logger   *slog.Logger
	now      func() time.Time
	recorder *Recorder
	podNet   netip.Prefix
	// serviceNet is the network of the services' addresses; not valid if they have none.
	serviceNet netip.Prefix

	feeds   []*feed
	custom  *customFeeds
	loops   []*loop
	runners []func(context.Context) error
}

// New returns the controllers of one leadership.
func New(cfg Config) (*Controllers, error) {
	setDefaults(&cfg)
	network, err := netip.ParsePrefix(cfg.PodCIDR)
	if err != nil {
		return nil, fmt.Errorf("controllers: the cluster's pod network: %w", err)
	}
	if cfg.NodeBits < network.Bits() || cfg.NodeBits > network.Addr().BitLen() {
		return nil, fmt.Errorf("controllers: blocks of /%d do not fit into the pod network %s", cfg.NodeBits, network)
	}
	c := &Controllers{
		cfg: cfg, client: cfg.Client, reader: cfg.Client.Reader(), logger: cfg.Logger, now: cfg.Now, podNet: network.Masked(),
		recorder: NewRecorder(RecorderConfig{Client: cfg.Client, Component: "shoal", Now: cfg.Now, Logger: cfg.Logger}),
	}
	if cfg.ServiceCIDR != "" {
		if c.serviceNet, err = netip.ParsePrefix(cfg.ServiceCIDR); err != nil {
			return nil, fmt.Errorf("controllers: the services' network: %w", err)
		}
	}
	c.runners = append(c.runners, c.recorder.Run)
	c.addCustomFeeds()
	c.addDefinitions()
	c.addNamespaces()
	c.addRoles()
	c.addPriorityClasses()
	c.addQuotas()
	c.addDisruption()
	c.addEndpoints()
	c.addJobExpiry()
	if cfg.SignClient != nil {
		c.addSigner()
	}
	if c.serviceNet.IsValid() {
		c.addServiceAddresses()
		c.addKubernetesService()
	}
	c.addReplicaSets()
	c.addDeployments()
	c.addDaemonSets()
	c.addStatefulSets()
	c.addScheduler(c.addVolumes())
	c.addNodeHealth()
	c.addEviction()
	c.addAddresses()
	c.addGarbage()
	c.addPodGarbage()
	c.addEventExpiry()
	c.addRollouts()
	return c, nil
}

func setDefaults(cfg *Config) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	orDefault(&cfg.NodeGrace, DefaultNodeGrace)
	orDefault(&cfg.PodCIDR, DefaultPodCIDR)
	orDefault(&cfg.NodeBits, DefaultNodeBits)
	orDefault(&cfg.FinishedPods, DefaultFinishedPods)
	orDefault(&cfg.Events, DefaultEvents)
	orDefault(&cfg.EventLifetime, DefaultEventLifetime)
}

func orDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// Run lists everything, then runs all loops until ctx ends.
func (c *Controllers) Run(ctx context.Context) error {
	for _, f := range c.feeds {
		if err := f.list(); err != nil {
			return fmt.Errorf("controllers: %w", err)
		}
	}
	if err := c.custom.follow(); err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range c.feeds {
		group.Go(func() error { return f.run(ctx) })
	}
	for _, l := range c.loops {
		for range l.workers {
			group.Go(func() error {
				l.work(ctx)
				return nil
			})
		}
	}
	for _, run := range c.runners {
		group.Go(func() error { return run(ctx) })
	}
	err := group.Wait()
	for _, l := range c.loops {
		l.queue.close()
	}
	if err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	return nil
}

// Recorder returns the recorder, for others that have something to tell.
func (c *Controllers) Recorder() *Recorder { return c.recorder }

// key is the key of an object.
func key(resource, namespace, name string) store.Key {
	return store.Key{Resource: resource, Namespace: namespace, Name: name}
}

// addAll adds every object of a resource to a loop.
func (c *Controllers) addAll(l *loop, resource string) {
	items, _ := c.reader.List(resource, "")
	for _, item := range items {
		l.add(item.Key)
	}
}
