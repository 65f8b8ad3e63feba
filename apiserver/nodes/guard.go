package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	kubeletapis "k8s.io/kubelet/pkg/apis"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// Guard refuses what a device writes of others, and of itself what would let it draw pods or rights to it. The words are upstream's.
func Guard() store.Admitter {
	checks := map[string]func(node string, a *store.Admission) error{
		"pods": guardPod, "nodes": guardNode, "leases.coordination.k8s.io": guardName, "csinodes.storage.k8s.io": guardName,
	}
	return store.AdmitFunc(func(ctx context.Context, a *store.Admission) error {
		user := access.FromContext(ctx)
		if user == nil {
			return errors.New("no user on context")
		}
		node, ok := user.Node()
		check := checks[a.Kind.GroupResource()]
		if !ok || check == nil {
			return nil
		}
		return check(node, a)
	})
}

func nameOf(a *store.Admission) string { return one(a).GetName() }

func one(a *store.Admission) api.Object {
	if a.Object != nil {
		return a.Object
	}
	return a.Old
}

// guardName lets a device write what has its name.
func guardName(node string, a *store.Admission) error {
	if nameOf(a) != node {
		return fmt.Errorf("can only access %s with the same name as the requesting node", a.Kind.Resource)
	}
	return nil
}

func guardPod(node string, a *store.Admission) error {
	older, _ := a.Old.(*corev1.Pod)
	switch {
	case a.Operation == store.OpDelete && older.Spec.NodeName != node:
		return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node)
	case a.Operation == store.OpDelete:
		return nil
	case a.Operation == store.OpUpdate && a.Subresource == "status":
		if older.Spec.NodeName != node {
			return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
		}
		if !labels.Equals(older.Labels, a.Object.GetLabels()) {
			return fmt.Errorf("node %q cannot update labels through pod status", node)
		}
		return nil
	}
	return fmt.Errorf("unexpected operation %q, node %q can only delete its pods and update their status", a.Operation, node)
}

func guardNode(node string, a *store.Admission) error {
	if name := nameOf(a); name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, name)
	}
	if a.Operation == store.OpDelete {
		return fmt.Errorf("node %q is not allowed to delete itself", node)
	}
	newer, older := a.Object.(*corev1.Node), &corev1.Node{}
	if a.Old != nil {
		older = a.Old.(*corev1.Node)
		if !equality.Semantic.DeepEqual(newer.Spec.Taints, older.Spec.Taints) {
			return fmt.Errorf("node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(newer.OwnerReferences, older.OwnerReferences) {
			return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
		}
	}
	if newer.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(newer.Spec.ConfigSource, older.Spec.ConfigSource) {
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node)
	}
	if bad := forbiddenLabels(newer.Labels, older.Labels); len(bad) > 0 {
		return fmt.Errorf("node %q is not allowed to set or modify the following labels: %s", node, strings.Join(bad, ", "))
	}
	return nil
}

// forbiddenLabels lists the labels that differ and that a device may not choose: those of Kubernetes that are not for kubelets, and
// those that are there to keep pods away from devices.
func forbiddenLabels(newer, older map[string]string) []string {
	var bad []string
	check := func(key string) {
		prefix, _, _ := strings.Cut(key, "/")
		if !strings.Contains(key, "/") {
			return
		}
		kubernetes := within(prefix, "kubernetes.io") || within(prefix, "k8s.io")
		if within(prefix, corev1.LabelNamespaceNodeRestriction) || kubernetes && !kubeletapis.IsKubeletLabel(key) {
			bad = append(bad, key)
		}
	}
	for key, value := range newer {
		if had, ok := older[key]; !ok || had != value {
			check(key)
		}
	}
	for key := range older {
		if _, ok := newer[key]; !ok {
			check(key)
		}
	}
	slices.Sort(bad)
	return bad
}

func within(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

// GuardToken refuses a device a token that is not bound to one of its pods, or is for an audience that the pod does not name.
func (z *Authorizer) GuardToken(node, namespace, account string, r *authenticationv1.TokenRequest) error {
	refuse := func(why string) error {
		return apierrors.NewForbidden(corev1.Resource("serviceaccounts"), account, errors.New(why))
	}
	ref := r.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return refuse("node requested token not bound to a pod")
	case ref.UID == "":
		return refuse("node requested token with a pod binding without a uid")
	case len(r.Spec.Audiences) > 1:
		return refuse("node may only request 0 or 1 audiences")
	}
	pod, ok := store.Get[corev1.Pod](z.reader, namespace, ref.Name)
	switch {
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("pods"), ref.Name)
	case pod.UID != ref.UID:
		return refuse(fmt.Sprintf("the UID in the bound object reference (%s) does not match the UID in record. "+
			"The object might have been deleted and then recreated", ref.UID))
	case pod.Spec.NodeName != node:
		return refuse("node requested token bound to a pod scheduled on a different node")
	}
	audience := strings.Join(r.Spec.Audiences, "")
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience {
				return nil
			}
		}
	}
	return refuse(fmt.Sprintf("system:node:%s is not authorized to request tokens for audience %q", node, audience))
}
