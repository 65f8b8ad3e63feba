package controllers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// revise keeps the history of a daemon set's templates, by which kubectl rollout undo goes, and returns the hash of the present one.
func (d *daemonSetLoop) revise(ctx context.Context, ds *appsv1.DaemonSet, owned []*corev1.Pod) (hash string, err error) {
	data, err := templatePatch(&ds.Spec.Template)
	if err != nil {
		return "", err
	}
	all := store.ListBy[appsv1.ControllerRevision](d.c.reader, store.OwnerIndex, string(ds.UID))
	slices.SortFunc(all, func(a, b *appsv1.ControllerRevision) int { return cmp.Compare(a.Revision, b.Revision) })
	newest := int64(0)
	if len(all) > 0 {
		newest = all[len(all)-1].Revision
	}
	at := slices.IndexFunc(all, func(r *appsv1.ControllerRevision) bool { return bytes.Equal(r.Data.Raw, data) })
	if at < 0 {
		return d.addRevision(ctx, ds, data, newest+1)
	}
	current := all[at]
	hash = current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	if current.Revision < newest { // somebody went back to it
		_, err = d.c.client.Modify(ctx, store.KeyOf(d.c.reader, current), "", func(object api.Object) error {
			object.(*appsv1.ControllerRevision).Revision = newest + 1
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("write a revision: %w", err)
		}
	}
	return hash, d.forget(ctx, ds, slices.Delete(all, at, at+1), owned)
}

// revisionOf is the hash of a template that a daemon set has or had; empty if its history does not know it.
func revisionOf(reader store.Reader, ds *appsv1.DaemonSet, t *corev1.PodTemplateSpec) string {
	data, err := templatePatch(t)
	if err != nil {
		return ""
	}
	for _, r := range store.ListBy[appsv1.ControllerRevision](reader, store.OwnerIndex, string(ds.UID)) {
		if bytes.Equal(r.Data.Raw, data) {
			return r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		}
	}
	return ""
}

// templatePatch is a template as a revision keeps it: as the strategic merge patch that brings it back.
func templatePatch(t *corev1.PodTemplateSpec) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var template map[string]any
	if err := json.Unmarshal(data, &template); err != nil {
		return nil, err
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

func (d *daemonSetLoop) addRevision(ctx context.Context, ds *appsv1.DaemonSet, data []byte, number int64) (string, error) {
	hash, err := templateHash(&ds.Spec.Template, ds.Status.CollisionCount)
	if err != nil {
		return "", err
	}
	_, err = d.c.client.Create(ctx, &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: ds.Name + "-" + hash, Namespace: ds.Namespace, Annotations: ds.Annotations,
			Labels:          withLabel(ds.Spec.Template.Labels, appsv1.DefaultDaemonSetUniqueLabelKey, hash),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	})
	if !apierrors.IsAlreadyExists(err) {
		return hash, err
	}
	// Another template has the same hash, or a daemon set of this name left the revision behind.
	_, err = d.c.client.Modify(ctx, key(daemonSets, ds.Namespace, ds.Name), "status", func(object api.Object) error {
		s := &object.(*appsv1.DaemonSet).Status
		s.CollisionCount = ptr.To(ptr.Deref(s.CollisionCount, 0) + 1)
		return nil
	})
	if err == nil {
		err = fmt.Errorf("the name %s-%s is taken: another one is tried", ds.Name, hash)
	}
	return "", err
}

// forget deletes the oldest revisions beyond the limit that no pod is made of.
func (d *daemonSetLoop) forget(ctx context.Context, ds *appsv1.DaemonSet, older []*appsv1.ControllerRevision, owned []*corev1.Pod) error {
	older = slices.DeleteFunc(older, func(r *appsv1.ControllerRevision) bool {
		hash := r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		return slices.ContainsFunc(owned, func(pod *corev1.Pod) bool { return isOf(pod, hash) })
	})
	surplus := len(older) - int(ptr.Deref(ds.Spec.RevisionHistoryLimit, 10))
	for _, r := range older[:max(0, surplus)] {
		_, err := d.c.client.Delete(ctx, store.KeyOf(d.c.reader, r), metav1.NewPreconditionDeleteOptions(string(r.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete a revision: %w", err)
		}
	}
	return nil
}
