// Package agent owns one device: it keeps the desired state on the device's disk, makes the pods be what that says, reports
// what they are, and serves their logs and streams. It needs no control plane to start pods, to restart them or to keep
// them running: pods come from its own database, and everything else it must know it reads back from the runtime.
package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/deviceplugin"
	"github.com/shoal-edge/shoal/agent/hardware"
	containers "github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
	"github.com/shoal-edge/shoal/agent/static"
	"github.com/shoal-edge/shoal/agent/volume"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/network"
	"github.com/shoal-edge/shoal/transport"
)

// Network is what makes the device's pod network; nil in Config means that the runtime has its own.
type Network interface {
	Apply(ctx context.Context, s network.State) error
}

// Reporter takes status changes; it must not block. transport.Link's Report is one.
type Reporter func(items ...transport.Item)

// Config of an Agent. NodeName, DataDir and Runtime are needed.
type Config struct {
	NodeName string
	// DataDir holds agent.db, the pods' volumes and their logs.
	DataDir string
	// Address is the device's IP address, as others reach it.
	Address string
	Runtime containers.Runtime
	Network Network
	// Hardware says which of the device's hardware pods can ask for; nil: only Devices, and nothing is looked for.
	Hardware *hardware.Config
	Devices  []Device
	// WatchHardware calls f whenever hardware may have come or gone, until ctx ends; hardware.Watch does. Nil: only Rescan does.
	WatchHardware func(ctx context.Context, f func()) error
	// PluginSocket is where device plugins register. Empty: nowhere.
	PluginSocket string
	// CDIFolders have the files that say what CDI devices are. Default: /etc/cdi, /var/run/cdi.
	CDIFolders []string
	// Labels are added to the node; Reserved is kept back from what it offers, in Kubernetes quantities.
	Labels   map[string]string
	Reserved map[string]string
	// SeccompDefault confines containers that name no seccomp profile by the runtime's.
	SeccompDefault bool
	// CgroupParent is the cgroup of all pods. Default: /shoal.
	CgroupParent string
	// StaticPods is a folder of pods that run whatever the control plane says. Empty: none.
	StaticPods string
	// GoesDown says, when Run is to end, whether the whole device goes down. Then Run ends the pods in order before it returns, within
	// ShutdownGrace. Nil: it never does.
	GoesDown      func() bool
	ShutdownGrace time.Duration
	// PodPIDs is how many processes one pod may have; 0: as many as it likes.
	PodPIDs int64
	// RegistryConfDir gets a hosts.toml for each of Registries. Empty: none is written.
	RegistryConfDir string
	Registries      []Registry
	// Seeds is a folder with archives of images, which Import puts into the runtime; empty: none is looked for.
	Seeds  string
	Import func(ctx context.Context, file io.Reader) ([]archive.Named, error)
	// Mirror is where this device's containerd asks for what neighbours have, a URL; empty: nowhere. Turn returns when this device should
	// fetch an image; nil: at once. share.Sharer does both.
	Mirror string
	Turn   func(ctx context.Context, ref string, waiting func(neighbour string)) (end func(ok bool))
	// MaxLog is how large a container's log grows, in bytes, before it is rotated; the one before is kept too. Default: 10 MiB.
	MaxLog int64
	// ImageGCHigh is how full, in percent, the disk of images is when images are removed, and ImageGCLow when that is enough.
	// Defaults: 85, 80.
	ImageGCHigh, ImageGCLow int
	// Firmware takes the device through updates. Nil: this device has no way to.
	Firmware *firmware.Device
	// Tokens asks for the tokens of the pods' service accounts. Nil: pods run without.
	Tokens TokenSource
	// ContactFile is on a disk that forgets with the boot. It says when the control plane last heard of this device, for an agent that starts
	// again. Empty: such an agent ends pods that may not run without contact until it has some. Uptime is the time since the boot; nil: the kernel's.
	ContactFile string
	Uptime      func() time.Duration
	// Version is shoal's, for the node's status.
	Version string
	Logger  *slog.Logger
	Now     func() time.Time
}

// Device is hardware that is offered under a name of its own.
type Device = hardware.Declared

// Agent runs the pods of one device. It is a transport.Device.
type Agent struct {
	c       Config
	db      *database
	volumes *volume.Manager
	tokens  *tokens
	devices *devices
	plugins *deviceplugin.Server
	metrics *metrics
	contact *contact
	logDir  string
	told    told
	sampler sampler
	// starts bounds how many sandboxes and containers are created at once, pulls how many images are fetched.
	starts, pulls chan struct{}
	// ready: the runtime answers and its sandbox image is there.
	ready atomic.Bool
	// saving, telling and networking wake the goroutines that write statuses and events and apply the network.
	saving, telling, networking, nodeChanged chan struct{}
	untold                                   *untold
	// seeding wakes the goroutine that imports archives of images.
	seeding chan struct{}
	// replugged wakes the goroutine that looks at the hardware; deaf: the kernel does not tell when to.
	replugged chan struct{}
	deaf      atomic.Bool

	mu       sync.Mutex
	run      context.Context //nolint:containedctx // of Run, for workers that Apply starts
	workers  *errgroup.Group
	pods     map[string]*worker // by uid
	owners   map[string]*worker // by container or sandbox id
	statuses map[string]transport.Item
	unsaved  map[string][]byte // statuses by uid, nil to delete
	// node is as last reported, nodeValue its encoding.
	node      *corev1.Node
	nodeValue []byte
	info      containers.Info
	report    Reporter
	// imageDir is a folder on the disk of images. pressed is when the device was last short of something.
	imageDir string
	pressed  map[corev1.NodeConditionType]time.Time
	sensors  sensors
	// static reads the folder of static pods, and only in the goroutine that watches it. staticPods are they, by uid.
	static     *static.Folder
	staticPods map[string]*corev1.Pod
	// down: the device goes down. Its pods end, and start again after the next boot.
	down bool
	// cgroups is where the cgroup hierarchies are mounted.
	cgroups string
}

// New opens the device's database. The agent does nothing before Run.
func New(c Config) (*Agent, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.CDIFolders == nil {
		c.CDIFolders = []string{"/etc/cdi", "/var/run/cdi"}
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/shoal"
	}
	if c.MaxLog == 0 {
		c.MaxLog = 10 << 20
	}
	if c.ImageGCHigh == 0 {
		c.ImageGCHigh, c.ImageGCLow = 85, 80
	}
	db, err := openDatabase(c.DataDir, c.Now(), c.Logger)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		c: c, db: db, metrics: newMetrics(), contact: newContact(&c), logDir: filepath.Join(c.DataDir, "logs"),
		starts: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), pulls: make(chan struct{}, 2),
		saving: make(chan struct{}, 1), telling: make(chan struct{}, 1), networking: make(chan struct{}, 1), nodeChanged: make(chan struct{}, 1),
		pods: map[string]*worker{}, owners: map[string]*worker{}, statuses: map[string]transport.Item{}, unsaved: map[string][]byte{},
		pressed: map[corev1.NodeConditionType]time.Time{}, sensors: realSensors(), cgroups: cgroupRoot,
		replugged: make(chan struct{}, 1), seeding: make(chan struct{}, 1),
	}
	if c.StaticPods != "" {
		a.static = &static.Folder{Dir: c.StaticPods, NodeName: c.NodeName, Logger: c.Logger}
	}
	a.untold = newUntold()
	a.untold.load(a.db)
	a.tokens = newTokens(c.Tokens, c.Now)
	a.volumes = &volume.Manager{
		Root: filepath.Join(c.DataDir, "pods"), Source: a, Tokens: a.tokens, Anchors: a.anchors,
		Claims: a.claimed, Local: filepath.Join(c.DataDir, "local"),
	}
	if a.devices, err = newDevices(c, db); err != nil {
		return nil, errors.Join(err, db.close())
	}
	a.plugins = deviceplugin.New(deviceplugin.Config{Socket: c.PluginSocket, Update: a.pluginChanged, Logger: c.Logger})
	if c.Firmware != nil {
		c.Firmware.SetReporter(a.reportFirmware)
		c.Firmware.SetCheck(func(ctx context.Context, h *firmwarev1.Health) error { return firmware.Check(ctx, h, a.podsRun) })
	}
	boots, err := db.boot()
	if err != nil { // pods start from a full disk too
		c.Logger.Warn("this boot is not counted", "err", err)
	}
	c.Logger.Debug("database opened", "dir", c.DataDir, "boots", boots)
	return a, nil
}

// SetReporter sets where status changes go; nil for nowhere. What is reported before is in Status.
func (a *Agent) SetReporter(r Reporter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report = r
}

// Run runs the device's pods until ctx ends, and leaves them running then, unless the device goes down.
func (a *Agent) Run(ctx context.Context) error {
	outside := ctx
	g, ctx := errgroup.WithContext(context.WithoutCancel(outside))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.writeRegistries(); err != nil {
		return err
	}
	a.applyNetwork(ctx)
	workers, workersCtx := errgroup.WithContext(ctx)
	a.mu.Lock()
	a.run, a.workers = workersCtx, workers
	a.mu.Unlock()
	a.refreshNode()
	a.readStatic() // before those of the control plane, for their statuses are known too
	a.startDesired()
	a.startReclaims()
	if a.static != nil {
		g.Go(func() error { a.keepStatic(ctx); return nil })
	}
	if a.c.Firmware != nil {
		a.tellFirmware()
		g.Go(func() error { return a.c.Firmware.Run(ctx) })
	}
	g.Go(func() error { a.watchRuntime(ctx); return nil })
	g.Go(func() error { a.tick(ctx); return nil })
	g.Go(func() error { a.keepPressure(ctx); return nil })
	g.Go(func() error { a.save(ctx); return nil })
	g.Go(func() error { a.keepUntold(ctx); return nil })
	g.Go(func() error { a.keepNetwork(ctx); return nil })
	g.Go(func() error { a.keepNode(ctx); return nil })
	g.Go(func() error { a.keepDevices(ctx); return nil })
	g.Go(func() error { a.tokens.run(ctx, a.tokenChanged); return nil })
	if a.c.PluginSocket != "" {
		g.Go(func() error { a.keepPlugins(ctx); return nil })
	}
	if a.c.Seeds != "" {
		g.Go(func() error { a.keepSeeds(ctx); return nil })
	}
	<-outside.Done()
	if a.c.GoesDown != nil && a.c.GoesDown() {
		a.shutDown(ctx)
	}
	cancel()
	_ = g.Wait() // none of them returns an error
	a.mu.Lock()
	a.run = nil // no new workers from here on
	a.mu.Unlock()
	_ = workers.Wait()
	a.saveNow()
	a.writeUntold(true)
	return a.db.close()
}

// tokenChanged has a pod take its new token.
func (a *Agent) tokenChanged(uid string) {
	a.mu.Lock()
	w := a.pods[uid]
	a.mu.Unlock()
	if w == nil {
		a.tokens.forget(uid)
		return
	}
	w.renewed()
}

// Close closes the database of an agent that never ran; Run does it otherwise.
func (a *Agent) Close() error { return a.db.close() }

// Alive returns when the agent's parts answer; it does not return when they wait for each other for ever.
func (a *Agent) Alive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.db.position()
}

// Health is nil when the agent can run pods.
func (a *Agent) Health() error {
	if !a.ready.Load() {
		return containers.ErrUnavailable
	}
	return nil
}

// watchRuntime keeps a subscription to the runtime's events for as long as ctx lasts.
func (a *Agent) watchRuntime(ctx context.Context) {
	const least, most = 50 * time.Millisecond, 2 * time.Second
	wait, told := least, false
	for ctx.Err() == nil {
		err := a.c.Runtime.Watch(ctx, func(e containers.Event) {
			if e.Type == containers.ContainerExited {
				a.exited(e.ID)
				return
			}
			if err := a.resync(ctx); err != nil {
				a.c.Logger.Warn("the container runtime is not ready", "err", err)
				return
			}
			if told {
				a.c.Logger.Info("the container runtime answers again")
			}
			wait, told = least, false
		})
		if ctx.Err() != nil {
			return
		}
		if a.ready.Swap(false) {
			a.wakeNode()
		}
		if !told {
			a.c.Logger.Warn("no connection to the container runtime; pods keep running, trying again", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

// resync prepares for a runtime that is new, or was away: look at everything.
func (a *Agent) resync(ctx context.Context) error {
	if r, ok := a.c.Runtime.(interface {
		EnsureSandboxImage(context.Context) error
	}); ok {
		if err := r.EnsureSandboxImage(ctx); err != nil {
			a.c.Logger.Error("the sandbox image is missing, pods cannot start", "err", err)
		}
	}
	info, err := a.c.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	dir, err := a.c.Runtime.ImageDir(ctx)
	if err != nil { // a new containerd may have measured nothing yet
		a.c.Logger.Debug("the disk of images is not known", "err", err)
	}
	a.mu.Lock()
	a.info = info
	if dir != "" {
		a.imageDir = dir
	}
	a.mu.Unlock()
	if err := a.adoptClaims(ctx); err != nil {
		return err
	}
	a.ready.Store(true)
	wake(a.seeding)
	a.relist(ctx)
	a.mu.Lock()
	for _, w := range a.pods {
		w.nudge()
	}
	a.mu.Unlock()
	a.wakeNode()
	return nil
}

// tick is the slow safety net: what no event told, pressure on the device, logs that grow.
func (a *Agent) tick(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if a.ready.Load() {
				a.relist(ctx)
				a.rotateLogs(ctx)
				a.enforceDisk(ctx)
			}
			if a.deaf.Load() {
				a.Rescan()
			}
			a.wakeNode()
		}
	}
}

// relist wakes the workers whose pods are not as they last saw them, and starts workers for pods nobody wants.
func (a *Agent) relist(ctx context.Context) {
	pods, err := a.c.Runtime.Pods(ctx)
	if err != nil {
		return // the subscription breaks too, and its return brings us here again
	}
	epoch, _ := a.db.position()
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid, w := range a.pods {
		if w.changed(pods[uid]) {
			w.nudge()
		}
	}
	for uid, p := range pods {
		// When nothing was ever received, or the database was lost, not wanting a pod of the API is not knowing of it.
		if a.pods[uid] == nil && (epoch != 0 || a.wasStatic(p)) {
			a.c.Logger.Info("removing a pod that this device should not have", "uid", uid)
			a.startWorker(newWorker(a, uid, nil, podName(p)))
		}
	}
	if epoch == 0 {
		return
	}
	for uid, name := range a.traces() {
		if a.pods[uid] == nil {
			a.c.Logger.Info("removing what is left of a pod that is gone", "pod", name, "uid", uid)
			a.startWorker(newWorker(a, uid, nil, name))
		}
	}
	a.sweepDevices()
}

// sweepDevices frees the hardware of pods of which nothing is left: the power may fail between a pod's end and the release of what it
// had. The caller holds the lock.
func (a *Agent) sweepDevices() {
	freed, err := a.devices.sweep(func(uid string) bool { return a.pods[uid] != nil })
	if err != nil {
		a.c.Logger.Error("devices of pods that are gone", "err", err)
	}
	if freed {
		a.wakeWaiting()
	}
}

// wakeWaiting has the pods that wait for something try again; the caller holds the lock.
func (a *Agent) wakeWaiting() {
	for _, w := range a.pods {
		if w.waiting.Load() {
			w.again()
		}
	}
}

// exited wakes the owner of a container or sandbox whose process ended.
func (a *Agent) exited(id string) {
	a.mu.Lock()
	w := a.owners[id]
	a.mu.Unlock()
	if w != nil {
		w.exited(id)
	}
}

// startWorker starts a worker; the caller holds the lock.
func (a *Agent) startWorker(w *worker) {
	if a.run == nil {
		return
	}
	a.pods[w.uid] = w
	ctx := a.run
	a.workers.Go(func() error { w.run(ctx); return nil })
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
