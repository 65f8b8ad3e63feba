package admission

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

// namespaceLifecycle refuses to create anything in a namespace that is missing or ends, and to delete the namespaces that
// the cluster needs. The durable store is where namespaces live.
func namespaceLifecycle() Plugin {
	return Plugin{Name: "NamespaceLifecycle", Admit: func(_ context.Context, a *store.Admission) error {
		switch {
		case a.Operation == store.OpDelete && a.Kind.Resource == "namespaces" && a.Kind.GVK.Group == "":
			if needed(a.Old.GetName()) {
				return apierrors.NewForbidden(a.Kind.GVR().GroupResource(), a.Old.GetName(),
					fmt.Errorf("this namespace may not be deleted"))
			}
		case a.Operation == store.OpCreate && a.Kind.Namespaced:
			return mayCreateIn(a)
		}
		return nil
	}}
}

// needed are the namespaces that always exist, or are about to: a cluster makes them when it starts.
func needed(name string) bool {
	return slices.Contains([]string{
		metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease,
	}, name)
}

func mayCreateIn(a *store.Admission) error {
	name := a.Object.GetNamespace()
	namespace, ok := store.Get[corev1.Namespace](a.Reader, "", name)
	switch {
	case !ok && needed(name):
		return nil
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	case namespace.DeletionTimestamp == nil && namespace.Status.Phase != corev1.NamespaceTerminating:
		return nil
	}
	err := apierrors.NewForbidden(a.Kind.GVR().GroupResource(), a.Object.GetName(),
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", name))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", name),
		Field:   "metadata.namespace",
	})
	return err
}
