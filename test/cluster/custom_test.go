package cluster

import (
	"fmt"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api/definition"
)

// gadget is an object of the kind that TestCustomResourcesSurvive defines.
type gadget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Size int `json:"size,omitempty"`
	} `json:"spec"`
}

// TestCustomResourcesSurvive defines a kind in a cluster of three and finds its object at every server, after a restart of all of them,
// and after the restore of a snapshot that is older than the end of the definition.
func TestCustomResourcesSurvive(t *testing.T) {
	c := start(t, 3, 0)
	const definitions, gadgets = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/example.com/v1/namespaces/default/gadgets"
	d := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "gadgets.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "gadgets", Kind: "Gadget"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {
						Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
							"size": {Type: "integer", Default: &apiextensionsv1.JSON{Raw: []byte("3")}},
						},
					}},
				}},
			}},
		},
	}
	c.do("POST", definitions, d, nil)
	c.eventually("the kind is established", func() error {
		var now apiextensionsv1.CustomResourceDefinition
		c.do("GET", definitions+"/"+d.Name, nil, &now)
		if !definition.Holds(&now, apiextensionsv1.Established) {
			return fmt.Errorf("conditions: %v", now.Status.Conditions)
		}
		return nil
	})
	made := &gadget{TypeMeta: metav1.TypeMeta{APIVersion: "example.com/v1", Kind: "Gadget"}, ObjectMeta: metav1.ObjectMeta{Name: "g"}}
	everywhere := func() {
		t.Helper()
		for _, m := range c.fleet.Members() {
			c.use(m)
			c.eventually(m.Name+" serves it", func() error {
				var g gadget
				if err := c.kube.Do(c.Context(), "GET", gadgets+"/g", nil, &g); err != nil {
					return err
				}
				if g.Spec.Size != 3 || g.UID != made.UID {
					return fmt.Errorf("it is %v", g)
				}
				return nil
			})
		}
	}
	c.useFollower()
	c.do("POST", gadgets, made, made)
	everywhere()
	var names []string
	for _, m := range c.fleet.Members() {
		names = append(names, m.Name)
	}
	c.stopAll(names...)
	c.startAll(names...)
	everywhere()
	saved := c.saveSnapshot()
	c.do("DELETE", definitions+"/"+d.Name, nil, nil)
	c.eventually("the kind is gone", func() error {
		var g gadget
		if err := c.kube.Do(c.Context(), "GET", gadgets+"/g", nil, &g); err == nil {
			return fmt.Errorf("its object is there: %v", g)
		}
		return nil
	})
	if _, err := c.restoreSnapshot(saved); err != nil {
		t.Fatal(err)
	}
	everywhere()
}
