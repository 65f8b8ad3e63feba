package access_test

import (
	"testing"

	"github.com/shoal-edge/shoal/apiserver/access"
)

func TestForbiddenSpeaksLikeUpstream(t *testing.T) {
	jane := &access.User{Name: "jane"}
	for want, a := range map[string]access.Attributes{
		`pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "web"`: {
			User: jane, Verb: "list", Resource: "pods", Namespace: "web",
		},
		`deployments.apps "d" is forbidden: User "jane" cannot update resource "deployments/scale" in API group "apps" in the namespace "web"`: {
			User: jane, Verb: "update", Group: "apps", Resource: "deployments", Sub: "scale", Namespace: "web", Name: "d",
		},
		`nodes "n" is forbidden: User "jane" cannot get resource "nodes" in API group "" at the cluster scope`: {
			User: jane, Verb: "get", Resource: "nodes", Name: "n",
		},
		`forbidden: User "jane" cannot get path "/&lt;x&gt;"`: {User: jane, Verb: "get", Path: "/<x>"},
	} {
		if got := access.Forbidden(&a, "").Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	err := access.Forbidden(&access.Attributes{User: jane, Verb: "get", Path: "/x"}, "because")
	if want := `forbidden: User "jane" cannot get path "/x": because`; err.Error() != want {
		t.Errorf("got %s", err)
	}
}

func TestAccounts(t *testing.T) {
	if ns, name, ok := access.SplitAccount(access.AccountUser("web", "bot")); !ok || ns != "web" || name != "bot" {
		t.Error(ns, name, ok)
	}
	for _, bad := range []string{"", "web:bot", "system:serviceaccount:web", "system:serviceaccount::bot", "system:serviceaccount:a:b:c"} {
		if _, _, ok := access.SplitAccount(bad); ok {
			t.Errorf("%q is no account", bad)
		}
	}
	node := &access.User{Name: "system:node:pi-1"}
	if _, ok := node.Node(); ok {
		t.Error("without the group it is no device")
	}
	node.Groups = []string{access.Nodes}
	if name, ok := node.Node(); !ok || name != "pi-1" {
		t.Error(name, ok)
	}
}
