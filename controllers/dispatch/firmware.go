package dispatch

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/store"
)

// writeFirmware takes what a device says of its firmware. The object comes with the first report and goes with the node.
func (d *Dispatcher) writeFirmware(ctx context.Context, name string, value []byte) error {
	var reported firmwarev1.DeviceFirmware
	if err := reported.Unmarshal(value); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	key := store.Key{Resource: firmwares, Name: name}
	write := func() error {
		return d.modify(ctx, key, "status", func(object api.Object) error {
			object.(*firmwarev1.DeviceFirmware).Status = reported.Status
			return nil
		})
	}
	err := write()
	if !apierrors.IsNotFound(err) {
		return err
	}
	node, ok := store.Get[corev1.Node](d.reader, "", name)
	if !ok {
		return fmt.Errorf("the node is not registered yet: %w", errForeign)
	}
	made := &firmwarev1.DeviceFirmware{ObjectMeta: metav1.ObjectMeta{
		Name:            name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}},
	}}
	if _, err := d.client.Create(ctx, made); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return write()
}
