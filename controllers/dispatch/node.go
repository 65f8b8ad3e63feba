package dispatch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/devices"
	"github.com/shoal-edge/shoal/store"
)

const (
	// LabelsAnnotation lists the labels of a node that its device has set, so that they go when the device drops them.
	LabelsAnnotation = "shoal.dev/device-labels"
	// reservedLabels are for administrators: a device may not attract pods by them.
	reservedLabels = "node-restriction.kubernetes.io"
)

// writeNode takes the device's labels and status. The spec (pod network, taints, cordon) is not the device's to change.
func (d *Dispatcher) writeNode(ctx context.Context, name string, value []byte) error {
	var reported corev1.Node
	if err := reported.Unmarshal(value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if reported.Name != "" && reported.Name != name {
		return errForeign
	}
	labels := allowed(reported.Labels)
	key := store.Key{Resource: nodes, Name: name}
	err := d.modify(ctx, key, "", func(object api.Object) error {
		node := object.(*corev1.Node)
		relabelled := mergeLabels(node, labels)
		if !mergeDevices(node, reported.Annotations[devices.Annotation]) && !relabelled {
			return errNothing
		}
		return nil
	})
	if apierrors.IsNotFound(err) {
		err = d.createNode(ctx, name, labels, reported.Annotations[devices.Annotation])
	}
	if err != nil {
		return err
	}
	return d.modify(ctx, key, "status", func(object api.Object) error {
		node := object.(*corev1.Node)
		node.Status = mergeNodeStatus(node.Status, reported.Status)
		return nil
	})
}

func (d *Dispatcher) createNode(ctx context.Context, name string, labels map[string]string, hardware string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	mergeLabels(node, labels)
	mergeDevices(node, hardware)
	if _, err := d.client.Create(ctx, node); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func allowed(labels map[string]string) map[string]string {
	kept := maps.Clone(labels)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		domain, _, _ := strings.Cut(key, "/")
		return domain == reservedLabels || strings.HasSuffix(domain, "."+reservedLabels)
	})
	return kept
}

// mergeLabels sets the device's labels, drops those that it has dropped, and reports whether that changed anything.
func mergeLabels(node *corev1.Node, labels map[string]string) bool {
	changed := false
	for _, key := range strings.Split(node.Annotations[LabelsAnnotation], ",") {
		if _, still := labels[key]; key != "" && !still {
			delete(node.Labels, key)
			changed = true
		}
	}
	if node.Labels == nil {
		node.Labels = make(map[string]string)
	}
	for key, value := range labels {
		if have, ok := node.Labels[key]; !ok || have != value {
			node.Labels[key] = value
			changed = true
		}
	}
	if list := strings.Join(slices.Sorted(maps.Keys(labels)), ","); list != node.Annotations[LabelsAnnotation] {
		if node.Annotations == nil {
			node.Annotations = make(map[string]string)
		}
		node.Annotations[LabelsAnnotation] = list
		changed = true
	}
	return changed
}

// mergeDevices sets the list of the device's hardware and reports whether that changed anything. One that is longer than a device
// may send is none.
func mergeDevices(node *corev1.Node, list string) bool {
	if len(list) > devices.MaxAnnotation {
		list = ""
	}
	if node.Annotations[devices.Annotation] == list {
		return false
	}
	if list == "" {
		delete(node.Annotations, devices.Annotation)
		return true
	}
	if node.Annotations == nil {
		node.Annotations = make(map[string]string)
	}
	node.Annotations[devices.Annotation] = list
	return true
}

// mergeNodeStatus is the device's status with the conditions that others have added.
func mergeNodeStatus(stored, reported corev1.NodeStatus) corev1.NodeStatus {
	conditions := slices.Clone(stored.Conditions)
	for _, c := range reported.Conditions {
		at := slices.IndexFunc(conditions, func(have corev1.NodeCondition) bool { return have.Type == c.Type })
		if at < 0 {
			conditions = append(conditions, c)
		} else {
			conditions[at] = c
		}
	}
	merged := reported
	merged.Conditions = conditions
	return merged
}
