package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

// tooOften is how many restarts of a container mark its pod as one that does not run, even if it seems to at the moment.
const tooOften = 3

// appResources are the resources of the kinds that waves bring images to.
var appResources = map[string]string{"Deployment": deployments, "DaemonSet": daemonSets, "StatefulSet": statefulSets}

// followWorkloads wakes rollouts when a workload of theirs changes, and when a pod of one fails.
func (r *rolloutLoop) followWorkloads() {
	r.c.follow(deployments, "", each(func(d *appsv1.Deployment, _ bool) { r.wake("Deployment", &d.ObjectMeta) }))
	r.c.follow(daemonSets, "", each(func(d *appsv1.DaemonSet, _ bool) { r.wake("DaemonSet", &d.ObjectMeta) }))
	r.c.follow(statefulSets, "", each(func(s *appsv1.StatefulSet, _ bool) { r.wake("StatefulSet", &s.ObjectMeta) }))
	r.c.follow(pods, "", each(func(pod *corev1.Pod, deleted bool) {
		if deleted || whyFailing(pod) == "" {
			return
		}
		if kind, app := r.appOf(pod); app != nil {
			r.wake(kind, app.Meta)
		}
	}))
}

// appOf looks up the workload that a pod belongs to, a deployment by way of its replica set.
func (r *rolloutLoop) appOf(pod *corev1.Pod) (kind string, app *waves.App) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref != nil && ref.Kind == "ReplicaSet" {
		set, ok := store.Get[appsv1.ReplicaSet](r.c.reader, pod.Namespace, ref.Name)
		if !ok {
			return "", nil
		}
		ref = metav1.GetControllerOfNoCopy(set)
	}
	if ref == nil {
		return "", nil
	}
	return ref.Kind, r.app(ref.Kind, pod.Namespace, ref.Name)
}

// app looks up a workload; nil if there is none.
func (r *rolloutLoop) app(kind, namespace, name string) *waves.App {
	resource, ok := appResources[kind]
	if !ok {
		return nil
	}
	item, ok := r.c.reader.Get(key(resource, namespace, name))
	if !ok {
		return nil
	}
	object, _ := r.c.reader.Object(item)
	return waves.AppOf(object)
}

func (r *rolloutLoop) wake(kind string, app *metav1.ObjectMeta) {
	for _, ro := range store.List[fleetv1.Rollout](r.c.reader, "") {
		release, ok := store.Get[firmwarev1.Release](r.c.reader, "", ro.Spec.Release)
		if ok && slices.ContainsFunc(release.Spec.Workloads, func(w firmwarev1.Workload) bool {
			return w.Kind == kind && w.Name == app.Name && w.Namespace == app.Namespace
		}) {
			r.soon(ro.Name)
		}
	}
	if hold, err := fleetv1.ReadHold(app.Annotations); err == nil && hold != nil {
		r.soon(hold.Rollout) // also one that is gone: it lets go of it then
	}
}

// workloads looks up how the workloads of a release stand.
func (r *rolloutLoop) workloads(rollout *fleetv1.Rollout, release *firmwarev1.Release) []waves.Workload {
	list := make([]waves.Workload, len(release.Spec.Workloads))
	for i := range list {
		list[i] = r.workload(rollout, &release.Spec.Workloads[i])
	}
	return list
}

func (r *rolloutLoop) workload(rollout *fleetv1.Rollout, of *firmwarev1.Workload) waves.Workload {
	w := waves.Workload{Workload: *of}
	app := r.app(of.Kind, of.Namespace, of.Name)
	if app == nil || app.Meta.DeletionTimestamp != nil {
		w.Trouble = "there is none"
		return w
	}
	w.Look(app)
	var daemons *daemonPlan
	if of.Kind == "DaemonSet" {
		daemons = r.daemons(of)
		w.Pods = int32(len(daemons.reachable()))
	}
	if w.Hold != nil && w.Hold.UID != string(rollout.UID) {
		other, ok := store.Get[fleetv1.Rollout](r.c.reader, "", w.Hold.Rollout)
		if w.Hold.Rollout != rollout.Name && (!ok || string(other.UID) != w.Hold.UID) {
			r.loop.add(key(rollouts, "", w.Hold.Rollout)) // nobody stands for it any more
		}
		return w
	}
	if w.Hold == nil || !w.Present {
		return w
	}
	switch of.Kind {
	case "DaemonSet":
		r.lookAtDaemons(&w, daemons)
	case "StatefulSet":
		r.lookAtOrdinals(&w, of)
	default:
		r.lookAtReplicas(&w, of)
	}
	return w
}

// lookAtReplicas counts the pods of a deployment that have its newest template.
func (r *rolloutLoop) lookAtReplicas(w *waves.Workload, of *firmwarev1.Workload) {
	d, ok := store.Get[appsv1.Deployment](r.c.reader, of.Namespace, of.Name)
	if !ok {
		return
	}
	for _, set := range store.ListBy[appsv1.ReplicaSet](r.c.reader, store.OwnerIndex, string(d.UID)) {
		if !sameTemplate(&set.Spec.Template, &d.Spec.Template) {
			continue
		}
		w.Updated += available(set)
		for _, pod := range store.ListBy[corev1.Pod](r.c.reader, store.OwnerIndex, string(set.UID)) {
			noteFailure(w, pod)
		}
	}
	for _, c := range d.Status.Conditions {
		w.Stuck = w.Stuck || c.Type == appsv1.DeploymentProgressing && c.Reason == reasonDeadline && d.Status.ObservedGeneration >= d.Generation
	}
}

// daemons is how a daemon set stands; there is nothing of one that is gone.
func (r *rolloutLoop) daemons(of *firmwarev1.Workload) *daemonPlan {
	d, ok := store.Get[appsv1.DaemonSet](r.c.reader, of.Namespace, of.Name)
	if !ok {
		return &daemonPlan{}
	}
	return newDaemonPlan(d, hashOf(revisionOf(r.c.reader, d, &d.Spec.Template)), store.List[corev1.Node](r.c.reader, ""),
		store.ListBy[corev1.Pod](r.c.reader, store.OwnerIndex, string(d.UID)), r.c.now())
}

// lookAtDaemons counts the pods of a daemon set that have its newest template. Devices that cannot be reached are no part of a wave: they hear of the release
// when they are back.
func (r *rolloutLoop) lookAtDaemons(w *waves.Workload, plan *daemonPlan) {
	for _, at := range plan.reachable() {
		for _, pod := range at.newer {
			r.lookAtPod(w, pod, plan.available)
		}
	}
}

// lookAtOrdinals counts the pods of a stateful set that have its newest template.
func (r *rolloutLoop) lookAtOrdinals(w *waves.Workload, of *firmwarev1.Workload) {
	s, ok := store.Get[appsv1.StatefulSet](r.c.reader, of.Namespace, of.Name)
	if !ok {
		return
	}
	update := revisionOf(r.c.reader, s, &s.Spec.Template)
	if update == nil {
		return // its controller has not seen the template yet
	}
	plan := newOrdinalPlan(s, "", update.Name, store.ListBy[corev1.Pod](r.c.reader, store.OwnerIndex, string(s.UID)), r.c.now())
	for _, pod := range plan.slots {
		if pod != nil && pod.DeletionTimestamp == nil && isOf(pod, update.Name) {
			r.lookAtPod(w, pod, plan.available)
		}
	}
}

// podDeadline is how long a pod of a daemon set or stateful set may take to become ready before waves take it for one that does not, which is the
// usual progress deadline of a deployment.
const podDeadline = 10 * time.Minute

// lookAtPod counts a pod that has the newest template.
func (r *rolloutLoop) lookAtPod(w *waves.Workload, pod *corev1.Pod, available func(*corev1.Pod) bool) {
	noteFailure(w, pod)
	if available(pod) {
		w.Updated++
	}
	if _, ready := readySince(pod); ready {
		return
	}
	left := podDeadline - r.c.now().Sub(pod.CreationTimestamp.Time)
	if left <= 0 {
		w.Stuck = true
	} else if w.Again == 0 || left < w.Again {
		w.Again = left
	}
}

func noteFailure(w *waves.Workload, pod *corev1.Pod) {
	if why := whyFailing(pod); why != "" {
		w.Failures = append(w.Failures, fmt.Sprintf("pod %s/%s (%s)", pod.Namespace, pod.Name, why))
	}
}

// hopeless are the reasons for which a container waits that do not go away by waiting. An image that cannot be fetched is not among
// them: at the edge that says more of the link than of the release. The deployment's own deadline judges it.
var hopeless = []string{ //nolint:gochecknoglobals // a constant that Go has no form for
	"CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "InvalidImageName", "ErrImageNeverPull",
}

// whyFailing says why a pod does not run, in a word; nothing if it does or still may.
func whyFailing(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return ""
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch waiting := c.State.Waiting; {
		case waiting != nil && slices.Contains(hopeless, waiting.Reason):
			return waiting.Reason
		case c.RestartCount >= tooOften:
			return fmt.Sprintf("restarted %d times", c.RestartCount)
		}
	}
	return ""
}

// tellWorkloads writes what a decision says of workloads.
func (r *rolloutLoop) tellWorkloads(ctx context.Context, rollout *fleetv1.Rollout, d *waves.Decision) error {
	var failures []error
	for _, let := range d.Let {
		failures = append(failures, r.writeWorkload(ctx, &let.Workload, func(app *waves.App, hold *fleetv1.Hold) *fleetv1.Hold {
			images := waves.Images(&app.Template.Spec, let.Workload.Images)
			switch {
			case hold == nil:
				hold = &fleetv1.Hold{Rollout: rollout.Name, UID: string(rollout.UID), Former: images}
				waves.SetImages(&app.Template.Spec, let.Workload.Images)
			case hold.UID != string(rollout.UID) || !slices.Equal(images, let.Workload.Images):
				return hold // it is not ours, or not as we left it: the next decision sees to it
			}
			return &fleetv1.Hold{Rollout: hold.Rollout, UID: hold.UID, Pods: let.Pods, Former: hold.Former}
		}))
	}
	for i := range d.Free {
		failures = append(failures, r.writeWorkload(ctx, &d.Free[i], func(_ *waves.App, hold *fleetv1.Hold) *fleetv1.Hold {
			if hold != nil && hold.UID != string(rollout.UID) {
				return hold
			}
			return nil
		}))
	}
	for i := range d.Restore {
		failures = append(failures, r.writeWorkload(ctx, &d.Restore[i], restoreImages(string(rollout.UID))))
	}
	return errors.Join(failures...)
}

// restoreImages gives a workload that the rollout holds its former images back.
func restoreImages(uid string) func(*waves.App, *fleetv1.Hold) *fleetv1.Hold {
	return func(app *waves.App, hold *fleetv1.Hold) *fleetv1.Hold {
		if hold == nil || hold.UID != uid {
			return hold
		}
		waves.SetImages(&app.Template.Spec, hold.Former)
		return nil
	}
}

// writeWorkload changes a workload together with its hold.
func (r *rolloutLoop) writeWorkload(
	ctx context.Context, w *firmwarev1.Workload, change func(*waves.App, *fleetv1.Hold) *fleetv1.Hold,
) error {
	_, err := r.c.client.Modify(ctx, key(appResources[w.Kind], w.Namespace, w.Name), "", func(object api.Object) error {
		app := waves.AppOf(object)
		hold, err := fleetv1.ReadHold(app.Meta.Annotations)
		if err != nil {
			return err
		}
		before := ptr.Deref(hold, fleetv1.Hold{})
		hold = change(app, hold)
		switch {
		case hold == nil && before.UID == "", hold != nil && hold.String() == before.String():
			return errKeep
		case hold == nil:
			delete(app.Meta.Annotations, fleetv1.HoldAnnotation)
		default:
			metav1.SetMetaDataAnnotation(app.Meta, fleetv1.HoldAnnotation, hold.String())
		}
		return nil
	})
	if err == nil || errors.Is(err, errKeep) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("write %s %s/%s: %w", w.Kind, w.Namespace, w.Name, err)
}

// releaseWorkloads gives workloads that a rollout which is gone has held their former images back. The present rollout of its name, if there is
// one, keeps its own.
func (r *rolloutLoop) releaseWorkloads(ctx context.Context, name, present string) error {
	var failures []error
	for kind, resource := range appResources {
		items, _ := r.c.reader.List(resource, "")
		for _, item := range items {
			object, _ := r.c.reader.Object(item)
			app := waves.AppOf(object)
			if app == nil {
				continue
			}
			hold, err := fleetv1.ReadHold(app.Meta.Annotations)
			if err != nil || hold == nil || hold.Rollout != name || hold.UID == present {
				continue
			}
			w := &firmwarev1.Workload{Kind: kind, Namespace: app.Meta.Namespace, Name: app.Meta.Name}
			failures = append(failures, r.writeWorkload(ctx, w, restoreImages(hold.UID)))
		}
	}
	return errors.Join(failures...)
}
