package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// remains is what is left in a namespace that ends: objects by resource, and finalizers that hold them.
type remains struct{ resources, finalizers map[string]int }

// tell writes down in the namespace's conditions what its end waits for, in Kubernetes' words
// (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/).
func (n *namespaceLoop) tell(ctx context.Context, namespace *corev1.Namespace, left remains, failure error) error {
	conditions := n.endConditions(namespace.Status.Conditions, left, failure)
	if apiequality.Semantic.DeepEqual(conditions, namespace.Status.Conditions) {
		return nil
	}
	_, err := n.c.client.Modify(ctx, key(namespaces, "", namespace.Name), "status", func(object api.Object) error {
		if object.GetUID() != namespace.UID {
			return errKeep
		}
		object.(*corev1.Namespace).Status.Conditions = conditions
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, errKeep) {
		return fmt.Errorf("write the conditions: %w", err)
	}
	return nil
}

// endConditions are all conditions of a namespace that ends: each says what is amiss, or that nothing is.
func (n *namespaceLoop) endConditions(before []corev1.NamespaceCondition, left remains, failure error) []corev1.NamespaceCondition {
	amiss := map[corev1.NamespaceConditionType][2]string{}
	if failure != nil {
		amiss[corev1.NamespaceDeletionContentFailure] = [2]string{
			"ContentDeletionFailed", fmt.Sprintf("Failed to delete all resource types, 1 remaining: %v", failure),
		}
	}
	if len(left.resources) > 0 {
		amiss[corev1.NamespaceContentRemaining] = [2]string{"SomeResourcesRemain", "Some resources are remaining: " +
			counts(left.resources, func(resource string, n int) string {
				if !strings.Contains(resource, ".") {
					resource += "."
				}
				return fmt.Sprintf("%s has %d resource instances", resource, n)
			})}
	}
	if len(left.finalizers) > 0 {
		amiss[corev1.NamespaceFinalizersRemaining] = [2]string{
			"SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: " +
				counts(left.finalizers, func(finalizer string, n int) string { return fmt.Sprintf("%s in %d resource instances", finalizer, n) }),
		}
	}
	now, conditions := metav1.NewTime(n.c.now()), slices.Clone(before)
	for _, fine := range []struct {
		of              corev1.NamespaceConditionType
		reason, message string
	}{
		{corev1.NamespaceDeletionDiscoveryFailure, "ResourcesDiscovered", "All resources successfully discovered"},
		{corev1.NamespaceDeletionGVParsingFailure, "ParsedGroupVersions", "All legacy kube types successfully parsed"},
		{corev1.NamespaceDeletionContentFailure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"},
		{corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed"},
		{corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished"},
	} {
		c := corev1.NamespaceCondition{
			Type: fine.of, Status: corev1.ConditionFalse, Reason: fine.reason, Message: fine.message, LastTransitionTime: now,
		}
		if wrong, ok := amiss[fine.of]; ok {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, wrong[0], wrong[1]
		}
		conditions = withNamespaceCondition(conditions, c)
	}
	return conditions
}

// withNamespaceCondition puts a condition in the place of the one of its type, whose time it keeps while the status is the same.
func withNamespaceCondition(all []corev1.NamespaceCondition, c corev1.NamespaceCondition) []corev1.NamespaceCondition {
	i := slices.IndexFunc(all, func(o corev1.NamespaceCondition) bool { return o.Type == c.Type })
	if i < 0 {
		return append(all, c)
	}
	if all[i].Status == c.Status {
		c.LastTransitionTime = all[i].LastTransitionTime
	}
	all[i] = c
	return all
}

// counts lists what there is how much of, in the order of the names.
func counts(of map[string]int, phrase func(string, int) string) string {
	var phrases []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		phrases = append(phrases, phrase(name, of[name]))
	}
	return strings.Join(phrases, ", ")
}
