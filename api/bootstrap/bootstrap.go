// Package bootstrap owns the objects that every cluster starts with: the default roles and their bindings. They are Kubernetes'
// own, as a table that a person can read at one go.
package bootstrap

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// Each object is a line at the margin; the rules of a role are the indented lines below it. Lists have commas.
//
//	clusterrole NAME [aggregate-to-ROLE] [gathers:ROLE]
//	role NAMESPACE/NAME
//	  VERBS GROUPS RESOURCES [NAMES]
//	  VERBS url PATHS
//	clusterrolebinding NAME ROLEKIND/NAME [user:NAME | group:NAME | account:NAMESPACE/NAME]...
//	rolebinding NAMESPACE/NAME ...
//
// The group "core" is the empty one; the verbs "read" and "write" are those of the words below.
//
//go:embed policy.txt
var policy string

const (
	aggregateLabel = "rbac.authorization.k8s.io/"
	defaultsLabel  = "kubernetes.io/bootstrapping"
	defaultsValue  = "rbac-defaults"
)

func verbs(word string) []string {
	var all []string
	for verb := range strings.SplitSeq(word, ",") {
		switch verb {
		case "read":
			all = append(all, "get", "list", "watch")
		case "write":
			all = append(all, "create", "delete", "deletecollection", "patch", "update")
		default:
			all = append(all, verb)
		}
	}
	slices.Sort(all)
	return all
}

// Policy returns the default roles and bindings, as the caller's own.
func Policy() []api.Object {
	objects, err := parse(policy)
	if err != nil {
		panic(fmt.Errorf("bootstrap: the embedded policy: %w", err)) // it is the same on every machine: a test parses it
	}
	return objects
}

// NodeRules returns the rules of the role system:node: what a device needs, of any device's.
func NodeRules() []rbacv1.PolicyRule {
	for _, object := range Policy() {
		if role, ok := object.(*rbacv1.ClusterRole); ok && role.Name == "system:node" {
			return role.Rules
		}
	}
	panic("bootstrap: the embedded policy has no role system:node")
}

func parse(text string) ([]api.Object, error) {
	var objects []api.Object
	var rules *[]rbacv1.PolicyRule // of the last role
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, " ") && (rules == nil || len(words) < 3):
			return nil, fmt.Errorf("not a rule: %q", line)
		case strings.HasPrefix(line, " "):
			*rules = append(*rules, rule(words))
			continue
		case len(words) < 2:
			return nil, fmt.Errorf("an object without a name: %q", line)
		}
		namespace, name, namespaced := strings.Cut(words[1], "/")
		if !namespaced {
			namespace, name = "", words[1]
		}
		meta := metav1.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels:      map[string]string{defaultsLabel: defaultsValue},
			Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
		}
		switch words[0] {
		case "clusterrole":
			r := &rbacv1.ClusterRole{ObjectMeta: meta}
			aggregate(r, words[2:])
			objects, rules = append(objects, r), &r.Rules
		case "role":
			r := &rbacv1.Role{ObjectMeta: meta}
			objects, rules = append(objects, r), &r.Rules
		case "clusterrolebinding":
			objects = append(objects, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: roleRef(words[2]), Subjects: subjects(words[3:])})
		case "rolebinding":
			objects = append(objects, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: roleRef(words[2]), Subjects: subjects(words[3:])})
		default:
			return nil, fmt.Errorf("unknown kind: %q", line)
		}
	}
	for _, o := range objects {
		if k := api.KindFor(o); k.Default != nil {
			k.Default(o)
		}
	}
	return objects, nil
}

func rule(words []string) rbacv1.PolicyRule {
	list := func(word string) []string { return strings.Split(word, ",") }
	r := rbacv1.PolicyRule{Verbs: verbs(words[0])}
	if words[1] == "url" {
		r.NonResourceURLs = list(words[2])
		return r
	}
	r.APIGroups, r.Resources = list(words[1]), list(words[2])
	for i, group := range r.APIGroups {
		if group == "core" {
			r.APIGroups[i] = ""
		}
	}
	if len(words) > 3 {
		r.ResourceNames = list(words[3])
	}
	return r
}

func aggregate(r *rbacv1.ClusterRole, words []string) {
	for _, word := range words {
		if of, ok := strings.CutPrefix(word, "gathers:"); ok {
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{aggregateLabel + "aggregate-to-" + of: "true"}},
			}}
			continue
		}
		r.Labels[aggregateLabel+word] = "true"
	}
}

func roleRef(word string) rbacv1.RoleRef {
	kind, name, _ := strings.Cut(word, "/")
	return rbacv1.RoleRef{
		APIGroup: rbacv1.GroupName, Name: name,
		Kind: map[string]string{"clusterrole": "ClusterRole", "role": "Role"}[kind],
	}
}

func subjects(words []string) []rbacv1.Subject {
	var all []rbacv1.Subject
	for _, word := range words {
		kind, name, _ := strings.Cut(word, ":")
		s := rbacv1.Subject{Kind: map[string]string{"user": rbacv1.UserKind, "group": rbacv1.GroupKind, "account": rbacv1.ServiceAccountKind}[kind], Name: name}
		if s.Kind == rbacv1.ServiceAccountKind {
			s.Namespace, s.Name, _ = strings.Cut(name, "/")
		}
		all = append(all, s)
	}
	return all
}
