package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/api/definition"
	"github.com/shoal-edge/shoal/store"
)

func defined(plural, kind string, short ...string) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind, ShortNames: short},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}},
			}},
		},
	}
}

func (c *cluster) definition(name string) *apiextensionsv1.CustomResourceDefinition {
	d, ok := store.Get[apiextensionsv1.CustomResourceDefinition](c.durable, "", name)
	if !ok {
		c.Fatalf("%s is gone", name)
	}
	return d
}

// instance makes an object of a defined kind.
func (c *cluster) instance(resource, namespace, name string, edit func(*custom.Object)) *custom.Object {
	c.Helper()
	kind := c.durable.Kind(resource)
	if kind == nil {
		c.Fatalf("%s is not served", resource)
	}
	o := kind.New().(*custom.Object)
	o.Namespace, o.Name = namespace, name
	if edit != nil {
		edit(o)
	}
	return c.create(o).(*custom.Object)
}

func TestDefinitionsAreEstablished(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		c.create(defined("widgets", "Widget", "wd"))
		c.settle()
		d := c.definition("widgets.example.com")
		if !definition.Holds(d, apiextensionsv1.NamesAccepted) || !definition.Holds(d, apiextensionsv1.Established) {
			t.Fatalf("conditions: %+v", d.Status.Conditions)
		}
		if names := d.Status.AcceptedNames; names.ListKind != "WidgetList" || names.Singular != "widget" || names.ShortNames[0] != "wd" {
			t.Errorf("names: %+v", names)
		}
		c.create(defined("gadgets", "Widget", "wd"))
		c.settle()
		rival := c.definition("gadgets.example.com")
		if definition.Holds(rival, apiextensionsv1.Established) || c.durable.Kind("gadgets.example.com") != nil {
			t.Error("two kinds have one name")
		}
		if got := definition.Condition(rival, apiextensionsv1.NamesAccepted); got.Reason != "ListKindConflict" || got.Message != `"WidgetList" is already in use` {
			t.Errorf("refused: %+v", got)
		}
		c.delete(key(definitions, "", "widgets.example.com"))
		c.settle()
		if !definition.Holds(c.definition("gadgets.example.com"), apiextensionsv1.Established) {
			t.Error("the names that became free were not taken")
		}
	})
}

func TestDefinitionsEndAfterTheirObjects(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		c.create(defined("widgets", "Widget"))
		c.settle()
		c.instance("widgets.example.com", "default", "plain", nil)
		held := c.instance("widgets.example.com", "default", "held", func(o *custom.Object) { o.Finalizers = []string{"example.com/hold"} })
		c.delete(key(definitions, "", "widgets.example.com"))
		c.settle()
		if n := c.durable.Len("widgets.example.com"); n != 1 {
			t.Fatalf("%d objects are left, want the one that is held back", n)
		}
		if got := definition.Condition(c.definition("widgets.example.com"), apiextensionsv1.Terminating); got.Reason != "InstanceDeletionInProgress" {
			t.Errorf("terminating: %+v", got)
		}
		c.modify(store.KeyOf(c.durable, held), "", func(o api.Object) { o.SetFinalizers(nil) })
		c.settle()
		if c.exists(key(definitions, "", "widgets.example.com")) || c.durable.Len("widgets.example.com") != 0 {
			t.Error("something is left")
		}
	})
}

func TestDefinedKindsHaveOwnersAndNamespaces(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		c.create(defined("widgets", "Widget"))
		c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		c.settle()
		owner := c.instance("widgets.example.com", "default", "owner", nil)
		ref := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "owner", UID: owner.UID}
		c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owned", OwnerReferences: []metav1.OwnerReference{ref}}})
		c.instance("widgets.example.com", "default", "owned", func(o *custom.Object) { o.OwnerReferences = []metav1.OwnerReference{ref} })
		c.instance("widgets.example.com", "shop", "inside", nil)
		c.settle()
		if !c.exists(key(configMaps, "default", "owned")) || c.durable.Len("widgets.example.com") != 3 {
			t.Fatal("objects whose owner is there were deleted")
		}
		c.stepDown()
		c.lead() // the next leader knows all that is there, and follows it
		c.settle()
		c.delete(key("widgets.example.com", "default", "owner"))
		c.delete(key(namespaces, "", "shop"))
		c.after(time.Minute)
		if c.exists(key(configMaps, "default", "owned")) || c.durable.Len("widgets.example.com") != 0 || c.exists(key(namespaces, "", "shop")) {
			t.Error("something is left of the owner or the namespace")
		}
	})
}
