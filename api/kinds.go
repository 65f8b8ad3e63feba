package api

import (
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// table is the kinds and the three ways to find one. It is built once, when first asked for, and never changed.
type table struct {
	kinds      []*Kind
	byResource map[string]*Kind
	byGVK      map[schema.GroupVersionKind]*Kind
	byType     map[reflect.Type]*Kind
}

var served = sync.OnceValue(func() *table {
	t := &table{
		kinds: []*Kind{
			configMaps(), events(), namespaces(), nodes(), pods(), secrets(), serviceAccounts(),
			deployments(), replicaSets(),
			leases(),
			clusterRoleBindings(), clusterRoles(), roleBindings(), roles(),
		},
		byResource: map[string]*Kind{},
		byGVK:      map[schema.GroupVersionKind]*Kind{},
		byType:     map[reflect.Type]*Kind{},
	}
	for _, k := range t.kinds {
		t.byResource[k.GroupResource()] = k
		t.byGVK[k.GVK] = k
		t.byType[reflect.TypeOf(k.New())] = k
	}
	return t
})

// Kinds returns every served kind, by group and then by name.
func Kinds() []*Kind { return served().kinds }

// ByResource finds a kind by its store key, such as "pods" or "deployments.apps". Nil: not served.
func ByResource(groupResource string) *Kind { return served().byResource[groupResource] }

// ByGVK finds a kind by group, version and kind. Nil: not served.
func ByGVK(gvk schema.GroupVersionKind) *Kind { return served().byGVK[gvk] }

// KindFor finds the kind of an object by its Go type. Nil: not served.
func KindFor(obj Object) *Kind { return served().byType[reflect.TypeOf(obj)] }

// crud are the verbs that a kind has unless its file says otherwise.
func crud() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}
