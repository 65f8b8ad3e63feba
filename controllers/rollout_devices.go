package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

func rolloutResource() schema.GroupResource {
	return fleetv1.GroupVersion().WithResource("rollouts").GroupResource()
}

// input looks up what a decision is made from.
func (r *rolloutLoop) input(ctx context.Context, rollout *fleetv1.Rollout) (waves.Input, error) {
	in := waves.Input{Rollout: rollout, Now: r.c.now()}
	if release, ok := store.Get[firmwarev1.Release](r.c.reader, "", rollout.Spec.Release); ok {
		in.Release, in.Workloads = release, r.workloads(rollout, release)
	}
	selector := labels.Everything()
	if rollout.Spec.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(rollout.Spec.Selector); err != nil {
			return in, fmt.Errorf("selector: %w", err)
		}
	}
	voters := r.voters(ctx, &in)
	now, foreign := time.Now(), false
	r.mu.Lock()
	for _, node := range store.List[corev1.Node](r.c.reader, "") {
		if !selector.Matches(labels.Set(node.Labels)) {
			continue
		}
		d := waves.Device{
			Name: node.Name, Site: node.Labels[rollout.Spec.SiteLabel], Up: heardOf(node),
			Voter: voters[node.Name], Leads: node.Name == r.c.cfg.NodeName,
		}
		if since, ok := r.silent[node.Name]; ok && !d.Up {
			d.Silent = now.Sub(since)
		}
		if f, ok := store.Get[firmwarev1.DeviceFirmware](r.c.reader, "", node.Name); ok {
			d.Spec, d.Status = f.Spec, f.Status
			a := d.Spec.Assignment
			foreign = foreign || a != nil && a.Rollout == rollout.Name && !waves.Mine(rollout, a)
		}
		in.Devices = append(in.Devices, d)
	}
	r.devices = len(in.Devices)
	r.mu.Unlock()
	if foreign {
		return in, r.disband(ctx, rollout.Name, string(rollout.UID)) // the next report of the device brings us here again
	}
	return in, nil
}

// voters looks up who votes. How they are is asked only when one of them waits for leave to restart.
func (r *rolloutLoop) voters(ctx context.Context, in *waves.Input) map[string]bool {
	if r.c.cfg.Voters == nil {
		return nil
	}
	in.Voters = r.c.cfg.Voters(ctx, false)
	voters, look := map[string]bool{}, false
	for _, v := range in.Voters {
		voters[v.Name] = true
		f, ok := store.Get[firmwarev1.DeviceFirmware](r.c.reader, "", v.Name)
		look = look || ok && waves.Mine(in.Rollout, f.Spec.Assignment) && f.Status.Asks != "" && f.Spec.Go == nil
	}
	if look {
		in.Voters = r.c.cfg.Voters(ctx, true)
	}
	return voters
}

// disband takes back what devices were told by a rollout that is gone: of that name, but not with that UID. Those that are between
// two releases finish first; their next report brings us here again.
func (r *rolloutLoop) disband(ctx context.Context, name, uid string) error {
	var failures []error
	present := &fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
	for _, d := range store.List[firmwarev1.DeviceFirmware](r.c.reader, "") {
		a := d.Spec.Assignment
		if a == nil || a.Rollout != name || uid != "" && waves.Mine(present, a) || waves.Restarting(&d.Status) {
			continue
		}
		failures = append(failures, r.write(ctx, d.Name, func(spec *firmwarev1.DeviceFirmwareSpec, _ *firmwarev1.DeviceFirmwareStatus) bool {
			if spec.Assignment == nil || spec.Assignment.ID != a.ID {
				return false
			}
			*spec = firmwarev1.DeviceFirmwareSpec{}
			return true
		}))
	}
	return errors.Join(failures...)
}
