package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// parallel is how many of a device's writes go to the log at once, which commits them together.
const parallel = 8

// errForeign says that a device reported what is not its own.
var errForeign = errors.New("it is not the device's own")

// Report implements transport.Owner. A device writes its own node and the status of its own pods. What is wrong with one
// item is logged and does not hold up the others; what is wrong with the store is an error, and the device reports again.
func (d *Dispatcher) Report(ctx context.Context, name string, _ bool, items []transport.Item) error {
	// The node first: pods are validated and shown against it.
	items = slices.Clone(items)
	slices.SortStableFunc(items, func(a, b transport.Item) int { return rank(a.Key) - rank(b.Key) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, item := range items {
		if rank(item.Key) == 0 {
			if err := d.write(ctx, name, item); err != nil {
				return errors.Join(err, group.Wait())
			}
			continue
		}
		group.Go(func() error { return d.write(ctx, name, item) })
	}
	return group.Wait()
}

func rank(key string) int {
	if key == "node" {
		return 0
	}
	return 1
}

// write writes one item. It returns the errors that pass only.
func (d *Dispatcher) write(ctx context.Context, name string, item transport.Item) error {
	kind, rest, _ := strings.Cut(item.Key, "/")
	var err error
	switch {
	case item.Key == "node" && !item.Deleted:
		err = d.writeNode(ctx, name, item.Value)
	case item.Key == firmwareKey && !item.Deleted:
		err = d.writeFirmware(ctx, name, item.Value)
	case kind == pods:
		err = d.writePod(ctx, name, rest, item)
	case kind == reclaims && item.Deleted:
		err = d.removeVolume(ctx, name, rest)
	case item.Key == transport.ContactKey: // that it has come is all that it says
	case kind == events && !item.Deleted:
		err = d.writeEvent(ctx, name, item.Value)
	default:
		err = fmt.Errorf("unknown key: %w", errForeign)
	}
	switch {
	case err == nil || apierrors.IsNotFound(err):
		return nil
	case ctx.Err() != nil || passes(err):
		return fmt.Errorf("dispatch: write %s of %s: %w", item.Key, name, err)
	}
	d.logger.Warn("dropped a report", "device", name, "key", item.Key, "reason", err)
	return nil
}

// passes reports whether an error is the store's and may pass, not the item's.
func passes(err error) bool {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code >= http.StatusInternalServerError {
		return true // no leader, no quorum, no room on the disk
	}
	return apierrors.IsConflict(err) || apierrors.IsTooManyRequests(err)
}

// errNothing stops a Modify that has nothing to write.
var errNothing = errors.New("nothing to write")

// modify edits an object; an edit that returns errNothing is fine.
func (d *Dispatcher) modify(ctx context.Context, key store.Key, sub string, edit func(api.Object) error) error {
	if _, err := d.client.Modify(ctx, key, sub, edit); err != nil && !errors.Is(err, errNothing) {
		return err
	}
	return nil
}

// writePod takes a pod's status, or that the pod is gone from the device; rest is <namespace>/<name>/<uid>.
func (d *Dispatcher) writePod(ctx context.Context, name, rest string, item transport.Item) error {
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return fmt.Errorf("malformed key: %w", errForeign)
	}
	key, uid := store.Key{Resource: pods, Namespace: parts[0], Name: parts[1]}, types.UID(parts[2])
	stored, ok := store.Get[corev1.Pod](d.reader, key.Namespace, key.Name)
	if (!ok || stored.UID != uid) && !item.Deleted {
		static, err := staticPod(name, key, uid, item.Value)
		if err != nil {
			return err
		}
		if static != nil {
			return d.writeMirror(ctx, name, stored, static)
		}
	}
	if ok && isMirror(stored, name, uid) && item.Deleted {
		return d.removeMirror(ctx, stored)
	}
	if !ok || stored.UID != uid {
		return nil // it has gone, or another one has its name by now
	}
	if stored.Spec.NodeName != name {
		return errForeign
	}
	if item.Deleted {
		return d.removePod(ctx, stored)
	}
	var reported corev1.Pod
	if err := reported.Unmarshal(item.Value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return d.modify(ctx, key, "status", func(object api.Object) error {
		pod := object.(*corev1.Pod)
		if pod.UID != uid || pod.Spec.NodeName != name || (ended(pod.Status.Phase) && !ended(reported.Status.Phase)) {
			return errNothing
		}
		pod.Status = mergePodStatus(pod.Status, reported.Status)
		return nil
	})
}

func ended(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// mergePodStatus is the device's status with what others have written beside it.
func mergePodStatus(stored, reported corev1.PodStatus) corev1.PodStatus {
	conditions := slices.DeleteFunc(slices.Clone(stored.Conditions), func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodResizeInProgress // the device's own, and over when it does not tell of it
	})
	for _, c := range reported.Conditions {
		at := slices.IndexFunc(conditions, func(have corev1.PodCondition) bool { return have.Type == c.Type })
		if at < 0 {
			conditions = append(conditions, c)
		} else {
			conditions[at] = c
		}
	}
	merged := reported
	merged.Conditions = conditions
	merged.QOSClass = stored.QOSClass
	merged.NominatedNodeName = stored.NominatedNodeName
	if merged.StartTime == nil {
		merged.StartTime = stored.StartTime
	}
	return merged
}

// removePod removes a pod that was told to end and has.
func (d *Dispatcher) removePod(ctx context.Context, pod *corev1.Pod) error {
	if pod.DeletionTimestamp == nil {
		return errors.New("the device says that the pod is gone, but nobody has deleted it")
	}
	now := int64(0)
	_, err := d.client.Delete(ctx, store.KeyOf(d.reader, pod), &metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsConflict(err) {
		return nil // another pod has its name by now
	}
	return err
}
