// Package api owns the kinds that shoal serves: one table with, for each kind, its names, its state class, its defaults,
// its validation, the fields that can be selected and the columns that are printed. Built-in kinds are the types of
// k8s.io/api; defaults and validation are upstream's own functions.
//
// The package is pure: it reads no clock, no network and no store.
package api

import (
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is any object that shoal stores: a Kubernetes object that knows its Protobuf form.
type Object interface {
	runtime.Object
	metav1.Object
	Marshal() ([]byte, error)
	Unmarshal(data []byte) error
}

// Class says where the state of a kind lives.
type Class int

const (
	// Durable objects go through the replicated log; resourceVersion is the log index.
	Durable Class = iota
	// Volatile objects live in the leader's memory and have a revision sequence of their own.
	Volatile
)

// Column is one column of a kind's Table form, as kubectl prints it.
type Column struct {
	Name        string
	Type        string // OpenAPI type: string, integer, boolean, date
	Format      string // OpenAPI format, such as "name"
	Description string
	Wide        bool // shown with -o wide only
}

// Part is what an update by way of a subresource may change, and how that is checked.
type Part struct {
	Prepare  func(newer, older Object)
	Validate func(newer, older Object) field.ErrorList
}

// Kind is all that shoal knows of one served kind. A new kind is one new file with one such value, and a line in kinds.go.
type Kind struct {
	GVK          schema.GroupVersionKind
	Resource     string // lower-case plural, as in a URL
	Singular     string
	ShortNames   []string
	Categories   []string
	Namespaced   bool
	Verbs        []string
	Subresources []string // "status", "scale", "binding", "eviction", "log", "exec", "portforward"

	// CreateOnUpdate: an update of an absent object creates it. NeedsRevision: an update must carry a resourceVersion.
	CreateOnUpdate bool
	NeedsRevision  bool

	// Sensitive objects are encrypted before they are stored: what identifies one and ties it to others stays readable, its
	// labels, annotations and content do not. Such a kind is durable and has no Index.
	Sensitive bool

	// OrphanByDefault: a deletion that says nothing of the dependents leaves them behind.
	OrphanByDefault bool

	// Class tells where an object of this kind in the given namespace lives. Nil means Durable.
	Class func(namespace string) Class

	New     func() Object
	NewList func() runtime.Object

	// Stored is the kind in the version that is kept, if this is a further version of it, and ToStored and FromStored convert
	// to that version and from it. Default fills in an object of this version; what follows it sees objects as they are stored.
	// Nil: this version is the stored one. It may have FromStored all the same, if objects may be stored in the version that was before.
	Stored     *Kind
	ToStored   func(Object) (Object, error)
	FromStored func(Object) (Object, error)

	// Identify writes into a new object who asked for it. Nil: nothing.
	Identify func(o Object, asked authenticationv1.UserInfo)

	// Restore puts back, into an object that was read from the store, what its Protobuf form leaves out. Nil: nothing.
	Restore func(Object)

	// Default fills in what upstream fills in. Nil: nothing.
	Default func(Object)
	// Validate checks a new object; ValidateUpdate and ValidateStatus check a change of its body or of its status.
	Validate       func(Object) field.ErrorList
	ValidateUpdate func(newer, older Object) field.ErrorList
	ValidateStatus func(newer, older Object) field.ErrorList

	// PrepareCreate drops what a client may not set (status) and starts the generation. PrepareUpdate keeps the older
	// status and counts the generation up when the spec changes. PrepareStatus keeps everything but the status.
	PrepareCreate func(Object)
	PrepareUpdate func(newer, older Object)
	PrepareStatus func(newer, older Object)
	// Settle derives, from what admission made of a new object, what follows from it. Nil: nothing.
	Settle func(Object)

	// Parts are the subresources besides status that write a part of the object, such as "approval".
	Parts map[string]Part

	// PrepareDelete edits an object that is deleted for the first time, such as to hold it back. Nil: nothing.
	PrepareDelete func(o Object, now time.Time)

	// Warn returns what a client that creates (older is nil) or updates an object should know of it. Nil: nothing.
	Warn func(newer, older Object) []string

	// Fields are the field-selector values beyond metadata.name and metadata.namespace, such as spec.nodeName.
	Fields func(Object) map[string]string

	// Index returns the values under which the store finds this object by index name, such as "node" for a pod.
	// Every kind has the index "owner" (the UID of the controlling owner) without asking.
	Index func(Object) map[string]string

	Columns []Column
	// Row returns one cell for each column; now is what ages are counted from.
	Row func(o Object, now time.Time) []any
}

// Storage is the kind in the version that is stored.
func (k *Kind) Storage() *Kind {
	if k.Stored != nil {
		return k.Stored
	}
	return k
}

// GroupResource is the kind's name in the API: "pods", "deployments.apps". Of the stored version it is the key in the store.
func (k *Kind) GroupResource() string {
	return schema.GroupResource{Group: k.GVK.Group, Resource: k.Resource}.String()
}

// GVR is the kind's group, version and plural.
func (k *Kind) GVR() schema.GroupVersionResource {
	return k.GVK.GroupVersion().WithResource(k.Resource)
}

// ClassOf is the state class of an object of this kind in the given namespace.
func (k *Kind) ClassOf(namespace string) Class {
	if k.Class == nil {
		return Durable
	}
	return k.Class(namespace)
}

// HasSubresource reports whether the kind serves the named subresource.
func (k *Kind) HasSubresource(name string) bool {
	return slices.Contains(k.Subresources, name)
}
