package controllers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
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

// history is that of the templates of a daemon set or stateful set, by which kubectl rollout undo goes.
type history struct {
	owner    api.Object
	template *corev1.PodTemplateSpec
	limit    *int32
	// collisions is the counter in the owner's status, and count adds one to it.
	collisions *int32
	count      func(api.Object)
	// used reports whether a pod is made of a revision.
	used func(*appsv1.ControllerRevision) bool
}

// revise notes the present template in a history, and returns its revision.
func (c *Controllers) revise(ctx context.Context, h *history) (*appsv1.ControllerRevision, error) {
	data, err := templatePatch(h.template)
	if err != nil {
		return nil, err
	}
	all := store.ListBy[appsv1.ControllerRevision](c.reader, store.OwnerIndex, string(h.owner.GetUID()))
	slices.SortFunc(all, func(a, b *appsv1.ControllerRevision) int { return cmp.Compare(a.Revision, b.Revision) })
	newest := int64(0)
	if len(all) > 0 {
		newest = all[len(all)-1].Revision
	}
	at := slices.IndexFunc(all, func(r *appsv1.ControllerRevision) bool { return bytes.Equal(r.Data.Raw, data) })
	if at < 0 {
		return c.addRevision(ctx, h, data, newest+1)
	}
	current := all[at]
	if current.Revision < newest { // somebody went back to it
		_, err = c.client.Modify(ctx, store.KeyOf(c.reader, current), "", func(object api.Object) error {
			object.(*appsv1.ControllerRevision).Revision = newest + 1
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("write a revision: %w", err)
		}
	}
	return current, c.forget(ctx, h, slices.Delete(all, at, at+1))
}

// revisionOf finds a template in the history of an owner; nil if it is not there.
func revisionOf(reader store.Reader, owner api.Object, t *corev1.PodTemplateSpec) *appsv1.ControllerRevision {
	data, err := templatePatch(t)
	if err != nil {
		return nil
	}
	for _, r := range store.ListBy[appsv1.ControllerRevision](reader, store.OwnerIndex, string(owner.GetUID())) {
		if bytes.Equal(r.Data.Raw, data) {
			return r
		}
	}
	return nil
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

// templateOf is the template that a revision keeps.
func templateOf(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var kept struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	if err := json.Unmarshal(r.Data.Raw, &kept); err != nil {
		return nil, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	return &kept.Spec.Template, nil
}

// hashOf is what tells a revision's pods from others; empty for none.
func hashOf(r *appsv1.ControllerRevision) string {
	if r == nil {
		return ""
	}
	return r.Labels[appsv1.ControllerRevisionHashLabelKey]
}

func (c *Controllers) addRevision(ctx context.Context, h *history, data []byte, number int64) (*appsv1.ControllerRevision, error) {
	hash, err := templateHash(h.template, h.collisions)
	if err != nil {
		return nil, err
	}
	made, err := c.client.Create(ctx, &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: h.owner.GetName() + "-" + hash, Namespace: h.owner.GetNamespace(), Annotations: maps.Clone(h.owner.GetAnnotations()),
			Labels:          withLabel(h.template.Labels, appsv1.ControllerRevisionHashLabelKey, hash),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(h.owner, api.KindFor(h.owner).GVK)},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	})
	switch {
	case err == nil:
		return made.(*appsv1.ControllerRevision), nil
	case !apierrors.IsAlreadyExists(err):
		return nil, err
	}
	// Another template has the same hash, or an owner of this name left the revision behind.
	_, err = c.client.Modify(ctx, store.KeyOf(c.reader, h.owner), "status", func(object api.Object) error {
		h.count(object)
		return nil
	})
	if err == nil {
		err = fmt.Errorf("the name %s-%s is taken: another one is tried", h.owner.GetName(), hash)
	}
	return nil, err
}

// forget deletes the oldest revisions beyond the limit that no pod is made of.
func (c *Controllers) forget(ctx context.Context, h *history, older []*appsv1.ControllerRevision) error {
	older = slices.DeleteFunc(older, h.used)
	surplus := len(older) - int(ptr.Deref(h.limit, 10))
	for _, r := range older[:max(0, surplus)] {
		_, err := c.client.Delete(ctx, store.KeyOf(c.reader, r), metav1.NewPreconditionDeleteOptions(string(r.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete a revision: %w", err)
		}
	}
	return nil
}

func oneMore(count **int32) { *count = ptr.To(ptr.Deref(*count, 0) + 1) }

// isOf reports whether a pod was made of the revision with a hash.
func isOf(pod *corev1.Pod, hash string) bool {
	return hash != "" && pod.Labels[appsv1.ControllerRevisionHashLabelKey] == hash
}

func anyOf(pods []*corev1.Pod, hash string) bool {
	return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return isOf(pod, hash) })
}
