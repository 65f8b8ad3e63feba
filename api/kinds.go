package api

import (
	"reflect"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/capabilities"
)

// table is the kinds and the ways to find one. It is built once, when first asked for, and never changed.
type table struct {
	kinds      []*Kind // each in its stored version
	further    []*Kind // those that are served in another version too, in that version
	byResource map[string]*Kind
	byGVK      map[schema.GroupVersionKind]*Kind
	byGVR      map[schema.GroupVersionResource]*Kind
	byType     map[reflect.Type]*Kind
}

var served = sync.OnceValue(func() *table {
	// Upstream's validation has one switch of its own, which all distributions set: who may run privileged containers is the business
	// of the pod security standards.
	capabilities.Setup(true, 0)
	event, autoscaler := events(), horizontalPodAutoscalers()
	t := &table{
		kinds: []*Kind{
			configMaps(), endpoints(), event, limitRanges(), namespaces(), nodes(), persistentVolumeClaims(), persistentVolumes(),
			podTemplates(), pods(), replicationControllers(), resourceQuotas(), secrets(), serviceAccounts(), services(),
			mutatingAdmissionPolicies(), mutatingAdmissionPolicyBindings(), mutatingWebhookConfigurations(), validatingAdmissionPolicies(), validatingAdmissionPolicyBindings(),
			validatingWebhookConfigurations(),
			customResourceDefinitions(),
			controllerRevisions(), daemonSets(), deployments(), replicaSets(), statefulSets(),
			autoscaler,
			cronJobs(), jobs(),
			certificateSigningRequests(), clusterTrustBundles(), podCertificateRequests(),
			leases(),
			endpointSlices(),
			deviceFirmwares(), releases(),
			rollouts(),
			ingressClasses(), ingresses(), ipAddresses(), networkPolicies(), serviceCIDRs(),
			runtimeClasses(),
			podDisruptionBudgets(),
			clusterRoleBindings(), clusterRoles(), roleBindings(), roles(),
			priorityClasses(),
			csiDrivers(), csiNodes(), csiStorageCapacities(), storageClasses(), volumeAttachments(), volumeAttributesClasses(),
		},
		further:    []*Kind{eventsV1(event), horizontalPodAutoscalersV1(autoscaler)},
		byResource: map[string]*Kind{},
		byGVK:      map[schema.GroupVersionKind]*Kind{},
		byGVR:      map[schema.GroupVersionResource]*Kind{},
		byType:     map[reflect.Type]*Kind{},
	}
	for _, k := range t.kinds {
		t.byResource[k.GroupResource()] = k
	}
	for _, k := range slices.Concat(t.kinds, t.further) {
		t.byGVK[k.GVK] = k
		t.byGVR[k.GVR()] = k
		t.byType[reflect.TypeOf(k.New())] = k
	}
	return t
})

// Kinds returns every kind in the version that is stored, by group and then by name.
func Kinds() []*Kind { return served().kinds }

// Served returns every kind in each of the versions that it is served in.
func Served() []*Kind { return slices.Concat(served().kinds, served().further) }

// ByResource finds a stored kind by its store key, such as "pods" or "deployments.apps". Nil: not served.
func ByResource(groupResource string) *Kind { return served().byResource[groupResource] }

// ByGVR finds a kind, in the version asked for, by group, version and plural. Nil: not served.
func ByGVR(gvr schema.GroupVersionResource) *Kind { return served().byGVR[gvr] }

// ByGVK finds a kind, in the version asked for, by group, version and kind. Nil: not served.
func ByGVK(gvk schema.GroupVersionKind) *Kind { return served().byGVK[gvk] }

// KindFor finds the kind of an object by its Go type. Nil: not served.
func KindFor(obj Object) *Kind { return served().byType[reflect.TypeOf(obj)] }

// crud are the verbs that a kind has unless its file says otherwise.
func crud() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}
