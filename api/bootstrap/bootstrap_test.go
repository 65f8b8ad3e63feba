package bootstrap

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
)

// TestPolicyIsUpstreams compares the table with what upstream's own tests say that a cluster of the same version has.
func TestPolicyIsUpstreams(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(module)), "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata")
	have := map[string]api.Object{}
	for _, o := range Policy() {
		have[api.KindFor(o).Resource+" "+o.GetNamespace()+"/"+o.GetName()] = o
	}
	compared := 0
	for _, file := range []string{
		"cluster-roles.yaml", "cluster-role-bindings.yaml", "namespace-roles.yaml", "namespace-role-bindings.yaml",
	} {
		for _, want := range readList(t, filepath.Join(dir, file)) {
			name := api.KindFor(want).Resource + " " + want.GetNamespace() + "/" + want.GetName()
			got := have[name]
			if strings.HasPrefix(want.GetName(), "system:controller:") {
				if got != nil {
					t.Errorf("%s is of a controller that shoal does not have", name)
				}
				continue
			}
			compared++
			delete(have, name)
			if diff := cmp.Diff(sorted(want), sorted(got), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s:\n%s", name, diff)
			}
		}
	}
	delete(have, "clusterroles /system:aggregated-metrics-reader") // of metrics-server, whose work the API server does itself
	if compared != 51 || len(have) > 0 {
		t.Errorf("%d objects are as upstream's, and these are not there: %v", compared, have)
	}
}

func readList(t *testing.T, path string) []api.Object {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := yaml.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	var all []api.Object
	for _, raw := range list.Items {
		var meta metav1.TypeMeta
		if err := json.Unmarshal(raw, &meta); err != nil {
			t.Fatal(err)
		}
		obj := api.ByGVK(rbacv1.SchemeGroupVersion.WithKind(meta.Kind)).New()
		if err := json.Unmarshal(raw, obj); err != nil {
			t.Fatal(err)
		}
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		all = append(all, obj)
	}
	return all
}

// sorted is an object with its lists in one order.
func sorted(o api.Object) api.Object {
	var rules []rbacv1.PolicyRule
	switch o := o.(type) {
	case *rbacv1.ClusterRole:
		rules = o.Rules
	case *rbacv1.Role:
		rules = o.Rules
	}
	for i := range rules {
		for _, list := range [][]string{rules[i].Verbs, rules[i].APIGroups, rules[i].Resources, rules[i].NonResourceURLs, rules[i].ResourceNames} {
			slices.Sort(list)
		}
	}
	return o
}

func TestPolicyIsValid(t *testing.T) {
	for _, o := range Policy() {
		if errs := api.KindFor(o).Validate(o); len(errs) > 0 {
			t.Errorf("%s: %v", o.GetName(), errs)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"  get core pods\n", "clusterrole\n", "clusterrole a\n  get core\n", "thing a\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
