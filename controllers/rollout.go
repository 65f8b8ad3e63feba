package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

const (
	rollouts        = "rollouts.fleet.shoal.dev"
	releases        = "releases.firmware.shoal.dev"
	deviceFirmwares = "devicefirmwares.firmware.shoal.dev"
)

// rolloutPause, and rolloutPauseEach for every device, gather what many devices report at once into one decision.
const (
	rolloutPause     = 200 * time.Millisecond
	rolloutPauseEach = time.Millisecond
)

// rolloutWrites is how many devices are written at once; the log commits them together.
const rolloutWrites = 8

// rolloutLoop takes rollouts through their waves. It reads rollouts, releases, nodes, the devices' firmware and the releases' workloads,
// and owns the status of rollouts, the spec of DeviceFirmware, and the images and the hold of the workloads while it brings them a release. What it decides is package waves' work; here it is looked up and written.
type rolloutLoop struct {
	c    *Controllers
	loop *loop

	mu      sync.Mutex
	silent  map[string]time.Time // by node: since when this leader has not heard of it
	counted map[store.Key]count  // by rollout
	devices int                  // when last looked at

	asked map[question]time.Time // when gates were last asked; of the one goroutine that reconciles
}

// count is until when a rollout's time has been counted.
type count struct {
	uid   string
	until time.Time
}

func (c *Controllers) addRollouts() {
	r := &rolloutLoop{c: c, silent: map[string]time.Time{}, counted: map[store.Key]count{}, asked: map[question]time.Time{}}
	r.loop = c.newLoop("rollout", 1, r.reconcile)
	c.follow(rollouts, "", keys(r.loop))
	c.follow(releases, "", each(func(release *firmwarev1.Release, _ bool) {
		for _, ro := range store.List[fleetv1.Rollout](c.reader, "") {
			if ro.Spec.Release == release.Name {
				r.loop.add(key(rollouts, "", ro.Name))
			}
		}
	}))
	c.follow(deviceFirmwares, "", each(func(d *firmwarev1.DeviceFirmware, _ bool) {
		if a := d.Spec.Assignment; a != nil {
			r.soon(a.Rollout)
		}
		if a := d.Spec.Assignment; a == nil || d.Status.Assignment != a.ID {
			r.allSoon()
		}
	}))
	nodeReader := each(r.note)
	nodeReader.relist = func() {
		r.mu.Lock()
		clear(r.silent)
		r.mu.Unlock()
	}
	c.follow(nodes, "", nodeReader)
	r.followWorkloads()
}

func (r *rolloutLoop) soon(name string) {
	r.mu.Lock()
	pause := rolloutPause + time.Duration(r.devices)*rolloutPauseEach
	r.mu.Unlock()
	r.loop.queue.addAfter(key(rollouts, "", name), pause)
}

func (r *rolloutLoop) allSoon() {
	items, _ := r.c.reader.List(rollouts, "")
	for _, item := range items {
		r.soon(item.Key.Name)
	}
}

// note follows which devices are heard of. Only a change of that concerns a rollout, or one of the labels.
func (r *rolloutLoop) note(node *corev1.Node, deleted bool) {
	heard := heardOf(node) && !deleted
	r.mu.Lock()
	_, was := r.silent[node.Name]
	switch {
	case heard:
		delete(r.silent, node.Name)
	case !was:
		r.silent[node.Name] = time.Now()
	}
	if deleted {
		delete(r.silent, node.Name)
	}
	r.mu.Unlock()
	r.allSoon()
}

// heardOf: the device says how it is, well or not.
func heardOf(node *corev1.Node) bool {
	s := nodeCondition(node, corev1.NodeReady)
	return s == corev1.ConditionTrue || s == corev1.ConditionFalse
}

func (r *rolloutLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	rollout, ok := store.Get[fleetv1.Rollout](r.c.reader, "", k.Name)
	if !ok || rollout.DeletionTimestamp != nil {
		r.forget(k)
		return 0, errors.Join(r.disband(ctx, k.Name, ""), r.releaseWorkloads(ctx, k.Name, ""))
	}
	if err := r.releaseWorkloads(ctx, k.Name, string(rollout.UID)); err != nil {
		return 0, err
	}
	in, err := r.input(ctx, rollout)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	in.Passed = r.passed(k, rollout, now)
	in.Answers = r.askGates(ctx, k, rollout)
	decision := waves.Decide(in)
	if err := r.carryOut(ctx, rollout, in.Release, &decision); err != nil {
		return 0, err
	}
	if decision.Counted {
		r.mu.Lock()
		r.counted[k] = count{uid: string(rollout.UID), until: now}
		r.mu.Unlock()
	}
	r.tell(rollout, &decision.Status)
	if decision.StepAside && r.c.cfg.StepAside != nil {
		r.c.logger.Info("this server lets another one lead: its device is next in a rollout", "rollout", rollout.Name)
		if err := r.c.cfg.StepAside(ctx); err != nil {
			return 0, fmt.Errorf("let another server lead: %w", err)
		}
	}
	return decision.Again, nil
}

func (r *rolloutLoop) forget(k store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.counted, k)
	for q := range r.asked {
		if q.rollout == k {
			delete(r.asked, q)
		}
	}
}

// passed is how long ago the rollout's time was counted, by this process's monotonic clock.
func (r *rolloutLoop) passed(k store.Key, rollout *fleetv1.Rollout, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.counted[k]
	if !ok || c.uid != string(rollout.UID) {
		r.counted[k] = count{uid: string(rollout.UID), until: now}
		return 0
	}
	return now.Sub(c.until)
}

// carryOut writes a decision in its order.
func (r *rolloutLoop) carryOut(ctx context.Context, rollout *fleetv1.Rollout, release *firmwarev1.Release, d *waves.Decision) error {
	withdraw := func(name string) error {
		return r.write(ctx, name, func(spec *firmwarev1.DeviceFirmwareSpec, _ *firmwarev1.DeviceFirmwareStatus) bool {
			if !waves.Mine(rollout, spec.Assignment) {
				return false
			}
			*spec = firmwarev1.DeviceFirmwareSpec{}
			return true
		})
	}
	revoke := func(name string) error {
		return r.write(ctx, name, func(spec *firmwarev1.DeviceFirmwareSpec, _ *firmwarev1.DeviceFirmwareStatus) bool {
			if spec.Go == nil || !waves.Mine(rollout, spec.Assignment) {
				return false
			}
			spec.Go.Seconds = 0
			return true
		})
	}
	assign := func(a waves.Assign) error {
		return r.write(ctx, a.Device, func(spec *firmwarev1.DeviceFirmwareSpec, status *firmwarev1.DeviceFirmwareStatus) bool {
			made := assignment(rollout, release, a, status.HardwareID)
			if made == nil {
				return false
			}
			*spec = firmwarev1.DeviceFirmwareSpec{Assignment: made}
			return true
		})
	}
	grant := func(g waves.Grant) error {
		return r.write(ctx, g.Device, func(spec *firmwarev1.DeviceFirmwareSpec, status *firmwarev1.DeviceFirmwareStatus) bool {
			if !waves.Mine(rollout, spec.Assignment) || status.Asks != g.Nonce {
				return false
			}
			spec.Go = &firmwarev1.Go{Nonce: g.Nonce, Seconds: waves.LeaveSeconds}
			return true
		})
	}
	if err := errors.Join(eachAtOnce(d.Withdraw, withdraw), eachAtOnce(d.Revoke, revoke), eachAtOnce(d.Assign, assign)); err != nil {
		return err
	}
	if err := r.writeStatus(ctx, rollout, &d.Status); err != nil {
		return err
	}
	return errors.Join(eachAtOnce(d.Grant, grant), r.tellWorkloads(ctx, rollout, d))
}

func eachAtOnce[T any](list []T, do func(T) error) error {
	var group errgroup.Group
	group.SetLimit(rolloutWrites)
	for _, item := range list {
		group.Go(func() error { return do(item) })
	}
	return group.Wait()
}

// assignment is what a device is told, or nil if the release has nothing for it.
func assignment(rollout *fleetv1.Rollout, release *firmwarev1.Release, a waves.Assign, hardware string) *firmwarev1.Assignment {
	artifact := release.Spec.ArtifactFor(hardware)
	if artifact == nil {
		return nil
	}
	return &firmwarev1.Assignment{
		ID: waves.AssignmentID(rollout, a.Attempt), Rollout: rollout.Name, Wave: a.Wave, Attempt: a.Attempt,
		Release: release.Name, Version: release.Spec.Version, Counter: release.Spec.Counter, SecurityFloor: release.Spec.SecurityFloor,
		DataSchema: release.Spec.DataSchema, Artifact: *artifact, Health: rollout.Spec.Health, Window: rollout.Spec.Window,
	}
}

// write changes what a device is told. A device that has gone is told nothing.
func (r *rolloutLoop) write(
	ctx context.Context, name string, change func(*firmwarev1.DeviceFirmwareSpec, *firmwarev1.DeviceFirmwareStatus) bool,
) error {
	_, err := r.c.client.Modify(ctx, key(deviceFirmwares, "", name), "", func(object api.Object) error {
		d := object.(*firmwarev1.DeviceFirmware)
		if !change(&d.Spec, &d.Status) {
			return errKeep
		}
		return nil
	})
	if err == nil || errors.Is(err, errKeep) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("write what device %s is told: %w", name, err)
}

func (r *rolloutLoop) writeStatus(ctx context.Context, rollout *fleetv1.Rollout, status *fleetv1.RolloutStatus) error {
	if apiequality.Semantic.DeepEqual(&rollout.Status, status) {
		return nil
	}
	_, err := r.c.client.Modify(ctx, key(rollouts, "", rollout.Name), "status", func(object api.Object) error {
		current := object.(*fleetv1.Rollout)
		if current.UID != rollout.UID {
			return errKeep
		}
		if current.Generation != rollout.Generation { // a person has edited it since: decide again before anybody goes
			return apierrors.NewConflict(rolloutResource(), rollout.Name, errors.New("it was edited meanwhile"))
		}
		current.Status = *status
		return nil
	})
	if errors.Is(err, errKeep) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// tell records what people want to know of.
func (r *rolloutLoop) tell(rollout *fleetv1.Rollout, status *fleetv1.RolloutStatus) {
	before := &rollout.Status
	if status.Phase == before.Phase && status.Wave == before.Wave {
		return
	}
	kind := corev1.EventTypeNormal
	if status.Phase == fleetv1.Halted || status.Phase == fleetv1.Held || status.Phase == fleetv1.Invalid {
		kind = corev1.EventTypeWarning
	}
	wave := rollout.Spec.Waves[min(int(status.Wave), len(rollout.Spec.Waves)-1)].Name
	r.c.recorder.eventf(rollout, kind, string(status.Phase), "Wave %s: %d of %d updated, %d failed, %d lost. %s",
		wave, status.Updated, status.Devices, status.Failed, status.Lost, status.Why)
}
