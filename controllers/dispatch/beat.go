package dispatch

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

const (
	// beatEvery is how often a device's lease is renewed at most, however much it says.
	beatEvery = time.Second
	// leaseSeconds is what the lease says of its duration; the node's health is judged by the configured grace.
	leaseSeconds = int32(40)
	beatTimeout  = time.Second
)

// Heard implements transport.Owner: it renews the device's Lease, in the leader's memory.
func (d *Dispatcher) Heard(name string) {
	now := d.now()
	d.mu.Lock()
	due := now.Sub(d.beats[name]).Abs() >= beatEvery
	if due {
		d.beats[name] = now
	}
	d.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), beatTimeout)
	defer cancel()
	if err := d.renew(ctx, name, metav1.NewMicroTime(now)); err != nil {
		d.logger.Debug("cannot renew a lease", "node", name, "error", err)
	}
}

func (d *Dispatcher) renew(ctx context.Context, name string, now metav1.MicroTime) error {
	key := store.Key{Resource: leases, Namespace: corev1.NamespaceNodeLease, Name: name}
	_, err := d.client.Modify(ctx, key, "", func(object api.Object) error {
		object.(*coordinationv1.Lease).Spec.RenewTime = &now
		return nil
	})
	if !apierrors.IsNotFound(err) {
		return err
	}
	duration := leaseSeconds
	_, err = d.client.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &duration, RenewTime: &now},
	})
	return err
}

// writeEvent takes an event that a device tells about itself or one of its pods.
func (d *Dispatcher) writeEvent(ctx context.Context, name string, value []byte) error {
	var event corev1.Event
	if err := event.Unmarshal(value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	about := event.InvolvedObject
	switch about.Kind {
	case "Node":
		if about.Name != name {
			return errForeign
		}
	case "Pod":
		pod, ok := store.Get[corev1.Pod](d.reader, about.Namespace, about.Name)
		if !ok {
			return nil // its last words come too late
		}
		if pod.Spec.NodeName != name {
			return errForeign
		}
	default:
		return errForeign
	}
	event.ResourceVersion, event.UID = "", ""
	_, err := d.client.Create(ctx, &event)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	key := store.Key{Resource: events, Namespace: event.Namespace, Name: event.Name}
	return d.modify(ctx, key, "", func(object api.Object) error {
		stored := object.(*corev1.Event)
		if stored.InvolvedObject.UID != about.UID || event.Count <= stored.Count {
			return errNothing
		}
		stored.Count, stored.LastTimestamp, stored.Message, stored.Series = event.Count, event.LastTimestamp, event.Message, event.Series
		return nil
	})
}
