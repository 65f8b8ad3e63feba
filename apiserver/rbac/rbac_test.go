package rbac_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/bootstrap"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/rbac"
	"github.com/shoal-edge/shoal/store"
)

type bed struct {
	*testing.T
	store *store.Store
	free  *store.Client // as the controllers write
	guard *store.Client // as users write
	index *rbac.Index
}

func newBed(t *testing.T, objects ...api.Object) *bed {
	b := &bed{T: t, store: store.New(store.Config{Kinds: api.Kinds(), History: 64})}
	b.index = rbac.NewIndex(b.store)
	cfg := store.ClientConfig{Durable: b.store, Propose: store.NewLocal(b.store)}
	b.free = store.NewClient(cfg)
	cfg.Admit = []store.Admitter{rbac.NoEscalation(b.index, b.index)}
	b.guard = store.NewClient(cfg)
	b.create(objects...)
	return b
}

func (b *bed) create(objects ...api.Object) {
	b.Helper()
	for _, o := range objects {
		if _, err := b.free.Create(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}

// rule reads "verb,verb group/resource,resource name,name", with the core group left out, or "verb /path".
func rule(text string) rbacv1.PolicyRule {
	words := strings.Fields(text)
	r := rbacv1.PolicyRule{Verbs: strings.Split(words[0], ",")}
	if strings.HasPrefix(words[1], "/") {
		r.NonResourceURLs = strings.Split(words[1], ",")
		return r
	}
	group, resources, ok := strings.Cut(words[1], ":")
	if !ok {
		group, resources = "", words[1]
	}
	r.APIGroups, r.Resources = strings.Split(group, ","), strings.Split(resources, ",")
	if len(words) > 2 {
		r.ResourceNames = strings.Split(words[2], ",")
	}
	return r
}

func rules(texts []string) []rbacv1.PolicyRule {
	var all []rbacv1.PolicyRule
	for _, t := range texts {
		all = append(all, rule(t))
	}
	return all
}

func clusterRole(name string, texts ...string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules(texts)}
}

func role(namespace, name string, texts ...string) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules(texts)}
}

// subjects reads "User:name", "Group:name" or "ServiceAccount:namespace/name".
func subjects(texts ...string) []rbacv1.Subject {
	var all []rbacv1.Subject
	for _, t := range texts {
		kind, name, _ := strings.Cut(t, ":")
		s := rbacv1.Subject{Kind: kind, Name: name}
		if kind == rbacv1.ServiceAccountKind {
			s.Namespace, s.Name, _ = strings.Cut(name, "/")
		}
		all = append(all, s)
	}
	return all
}

func bindCluster(name, role string, who ...string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects(who...),
		RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role},
	}
}

func bind(namespace, name, kind, role string, who ...string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subjects: subjects(who...),
		RoleRef: rbacv1.RoleRef{Kind: kind, Name: role},
	}
}

func user(name string, groups ...string) *access.User {
	return &access.User{Name: name, Groups: groups}
}

// ask reads "verb [group:]resource[/sub] [namespace]/[name]", or "verb /path".
func ask(u *access.User, text string) *access.Attributes {
	words := strings.Fields(text)
	a := &access.Attributes{User: u, Verb: words[0]}
	if strings.HasPrefix(words[1], "/") {
		a.Path = words[1]
		return a
	}
	group, resource, ok := strings.Cut(words[1], ":")
	if !ok {
		group, resource = "", words[1]
	}
	a.Group = group
	a.Resource, a.Sub, _ = strings.Cut(resource, "/")
	if len(words) > 2 {
		a.Namespace, a.Name, _ = strings.Cut(words[2], "/")
	}
	return a
}

func (b *bed) may(u *access.User, text string) bool {
	allowed, _ := b.index.Authorize(context.Background(), ask(u, text))
	return allowed
}

func TestAuthorize(t *testing.T) {
	b := newBed(
		t,
		clusterRole("all", "* *:*", "* /*"),
		clusterRole("reader", "get,list apps:deployments", "get pods,pods/log", "get /livez,/api/*"),
		clusterRole("scaler", "update *:*/scale"),
		clusterRole("one", "get,update configmaps settings"),
		role("web", "secrets", "get secrets"),
		bindCluster("masters", "all", "Group:ops"),
		bindCluster("jane", "reader", "User:jane"),
		bindCluster("scale", "scaler", "User:jane"),
		bindCluster("lost", "nowhere", "User:joe"),
		bind("web", "one", "ClusterRole", "one", "ServiceAccount:web/bot", "ServiceAccount:shop/bot"),
		bind("web", "secrets", "Role", "secrets", "User:jane"),
		bind("shop", "secrets", "Role", "secrets", "User:jane"),
	)
	jane, joe := user("jane"), user("joe")
	bot, shopBot := user("system:serviceaccount:web:bot"), user("system:serviceaccount:shop:bot")
	for _, c := range []struct {
		who  *access.User
		what string
		want bool
	}{
		{user("root", "ops"), "delete nodes /n", true},
		{user("root", "ops"), "post /anything", true},
		{user("ops"), "get nodes /n", false}, // a user is not the group of his name
		{user("joe", "jane"), "get pods web/p", false},
		{jane, "get apps:deployments web/d", true},
		{jane, "list apps:deployments web", true},
		{jane, "list apps:deployments", true},
		{jane, "get deployments web/d", false}, // another group
		{jane, "update apps:deployments web/d", false},
		{jane, "get apps:deployments/status web/d", false},
		{jane, "get pods/log web/p", true},
		{jane, "get pods/exec web/p", false},
		{jane, "update apps:deployments/scale web/d", true},
		{jane, "update example.com:boats/scale web/d", true},
		{jane, "update example.com:boats web/d", false},
		{jane, "get /livez", true},
		{jane, "get /livez/ping", false},
		{jane, "get /api/v1", true},
		{jane, "get /apis", false},
		{jane, "post /livez", false},
		{jane, "get secrets web/s", true},
		{jane, "get secrets /s", false},
		{jane, "get secrets shop/s", false}, // the role of another namespace
		{bot, "get configmaps web/settings", true},
		{bot, "get configmaps web/other", false},
		{bot, "list configmaps web", false}, // a list has no name
		{bot, "get configmaps shop/settings", false},
		{shopBot, "update configmaps web/settings", true},
		{joe, "get pods web/p", false},
	} {
		if got := b.may(c.who, c.what); got != c.want {
			t.Errorf("%s may %s: %v", c.who.Name, c.what, got)
		}
	}

	for want, a := range map[string]*access.Attributes{
		`RBAC: allowed by ClusterRoleBinding "masters" of ClusterRole "all" to Group "ops"`:       ask(user("root", "ops"), "get nodes /n"),
		`RBAC: allowed by RoleBinding "secrets/web" of Role "secrets" to User "jane"`:             ask(jane, "get secrets web/s"),
		`RBAC: allowed by RoleBinding "one/web" of ClusterRole "one" to ServiceAccount "bot/web"`: ask(bot, "get configmaps web/settings"),
		`RBAC: clusterrole.rbac.authorization.k8s.io "nowhere" not found`:                         ask(joe, "get pods web/p"),
		`RBAC: role.rbac.authorization.k8s.io "secrets" not found`:                                ask(jane, "get secrets shop/s"),
		``: ask(bot, "get pods web/p"),
	} {
		if _, got := b.index.Authorize(t.Context(), a); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestIndexFollows changes roles and bindings in every way, often enough that the history forgets some, and compares the index with
// a fresh one.
func TestIndexFollows(t *testing.T) {
	b := newBed(t)
	jane := user("jane", "crew")
	check := func(step string, want bool) {
		t.Helper()
		if got := b.may(jane, "get pods web/p"); got != want {
			t.Errorf("%s: %v", step, got)
		}
		fresh, _ := rbac.NewIndex(b.store).Authorize(t.Context(), ask(jane, "get pods web/p"))
		if fresh != want {
			t.Errorf("%s, by a fresh index: %v", step, fresh)
		}
	}
	modify := func(o api.Object, change func(api.Object)) {
		t.Helper()
		_, err := b.free.Modify(t.Context(), store.KeyOf(b.store, o), "", func(o api.Object) error { change(o); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	remove := func(o api.Object) {
		t.Helper()
		if _, err := b.free.Delete(t.Context(), store.KeyOf(b.store, o), nil); err != nil {
			t.Fatal(err)
		}
	}
	check("nothing", false)
	reader, readers := clusterRole("reader", "get pods"), bind("web", "readers", "ClusterRole", "reader", "User:jane", "Group:crew")
	b.create(readers)
	check("a binding without its role", false)
	b.create(reader)
	check("both", true)
	modify(readers, func(o api.Object) { o.(*rbacv1.RoleBinding).Subjects = subjects("Group:crew") })
	check("by the group only", true)
	modify(readers, func(o api.Object) { o.(*rbacv1.RoleBinding).Subjects = nil })
	check("nobody", false)
	modify(readers, func(o api.Object) { o.(*rbacv1.RoleBinding).Subjects = subjects("User:jane") })
	modify(reader, func(o api.Object) { o.(*rbacv1.ClusterRole).Rules = rules([]string{"get nodes"}) })
	check("another rule", false)
	for i := range 200 { // more than the history holds
		modify(reader, func(o api.Object) { o.SetLabels(map[string]string{"n": fmt.Sprint(i)}) })
	}
	modify(reader, func(o api.Object) { o.(*rbacv1.ClusterRole).Rules = rules([]string{"get pods"}) })
	check("after a gap", true)
	for i := range 200 {
		modify(readers, func(o api.Object) { o.SetLabels(map[string]string{"n": fmt.Sprint(i)}) })
	}
	remove(readers)
	check("removed", false)
	b.create(readers)
	remove(reader)
	check("the role is removed", false)
}

func TestNoEscalation(t *testing.T) {
	b := newBed(
		t,
		clusterRole("holder", "get,list pods", "get /metrics"),
		clusterRole("escalator", "escalate rbac.authorization.k8s.io:clusterroles"),
		clusterRole("binder", "bind rbac.authorization.k8s.io:clusterroles strong"),
		clusterRole("strong", "* *:*", "* /*"),
		clusterRole("weak", "get pods"),
		role("web", "local", "get secrets"),
		bindCluster("holder", "holder", "User:jane"),
		bindCluster("escalator", "escalator", "User:eve"),
		bind("web", "binder", "ClusterRole", "binder", "User:bob"),
		bindCluster("strong", "strong", "User:root"),
		bind("web", "local", "Role", "local", "User:jane"),
	)
	jane, eve, bob, root := user("jane", "crew"), user("eve"), user("bob"), user("root")
	gathering := clusterRole("g")
	gathering.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}
	for name, c := range map[string]struct {
		who  *access.User
		what api.Object
		want string // part of the refusal; empty: allowed
	}{
		"what one holds":         {jane, clusterRole("x", "get,list pods", "get /metrics"), ""},
		"a part of it":           {jane, clusterRole("x", "list pods some"), ""},
		"more":                   {jane, clusterRole("x", "get,list,delete pods,nodes"), `clusterroles.rbac.authorization.k8s.io "x" is forbidden: user "jane" (groups=["crew"]) is attempting to grant RBAC permissions not currently held:` + "\n" + `{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list" "delete"]}` + "\n" + `{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}`},
		"everything":             {jane, clusterRole("x", "* *:*"), `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		"a path":                 {jane, clusterRole("x", "get /metrics,/logs"), `{NonResourceURLs:["/logs"], Verbs:["get"]}`},
		"local rights, here":     {jane, role("web", "x", "get secrets"), ""},
		"local rights, there":    {jane, role("shop", "x", "get secrets"), "not currently held"},
		"local rights, globally": {jane, clusterRole("x", "get secrets"), "not currently held"},
		"escalate":               {eve, clusterRole("x", "* *:*"), ""},
		"escalate, other kind":   {eve, role("web", "x", "get pods"), "not currently held"},
		"aggregation":            {jane, gathering, "must have cluster-admin privileges to use the aggregationRule"},
		"aggregation by all":     {root, gathering, ""},
		"bind what one holds":    {jane, bindCluster("x", "weak", "User:z"), ""},
		"bind more":              {jane, bindCluster("x", "strong", "User:z"), `clusterrolebindings.rbac.authorization.k8s.io "x" is forbidden: user "jane"`},
		"bind by the verb":       {bob, bind("web", "x", "ClusterRole", "strong", "User:z"), ""},
		"bind, another role":     {bob, bind("web", "x", "ClusterRole", "weak", "User:z"), "not currently held"},
		"bind, another place":    {bob, bind("shop", "x", "ClusterRole", "strong", "User:z"), "not currently held"},
		"bind, the cluster":      {bob, bindCluster("x", "strong", "User:z"), "not currently held"},
		"bind what is not there": {jane, bindCluster("x", "nowhere", "User:z"), `clusterroles.rbac.authorization.k8s.io "nowhere" not found`},
		"bind locally":           {jane, bind("web", "x", "Role", "local", "User:z"), ""},
		"masters":                {user("m", access.Masters), clusterRole("x", "* *:*"), ""},
		"nobody":                 {nil, clusterRole("x"), "no user on context"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if c.who != nil {
				ctx = access.WithUser(ctx, c.who)
			}
			_, err := b.guard.Create(ctx, c.what, store.DryRun)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEscalationByUpdate(t *testing.T) {
	b := newBed(
		t,
		clusterRole("holder", "get pods"), bindCluster("holder", "holder", "User:jane"),
		clusterRole("big", "* *:*"), bindCluster("big", "big", "User:root"),
	)
	as := access.WithUser(t.Context(), user("jane"))
	modify := func(resource, name string, change func(api.Object)) error {
		_, err := b.guard.Modify(as, store.Key{Resource: resource + ".rbac.authorization.k8s.io", Name: name}, "",
			func(o api.Object) error { change(o); return nil })
		return err
	}
	// Whoever may update a role that is more than he holds may not even label it, but the garbage collector's fields go.
	if err := modify("clusterroles", "big", func(o api.Object) { o.SetLabels(map[string]string{"a": "b"}) }); err == nil {
		t.Error("a strong role was written by a weak user")
	}
	if err := modify("clusterroles", "big", func(o api.Object) { o.SetFinalizers([]string{"example.com/x"}) }); err != nil {
		t.Error(err)
	}
	if err := modify("clusterroles", "holder", func(o api.Object) {
		r := o.(*rbacv1.ClusterRole)
		r.Rules = append(r.Rules, rule("get secrets"))
	}); err == nil || !strings.Contains(err.Error(), "secrets") {
		t.Error(err)
	}
	if err := modify("clusterrolebindings", "big", func(o api.Object) {
		o.(*rbacv1.ClusterRoleBinding).Subjects = subjects("User:jane")
	}); err == nil {
		t.Error("jane bound herself")
	}
	if err := modify("clusterrolebindings", "holder", func(o api.Object) {
		o.(*rbacv1.ClusterRoleBinding).Subjects = subjects("User:jane", "User:joe")
	}); err != nil {
		t.Error(err)
	}
}

// TestDefaultPolicy asks of the default roles what people expect of them.
func TestDefaultPolicy(t *testing.T) {
	b := newBed(t, bootstrap.Policy()...)
	b.create(bind("web", "v", "ClusterRole", "system:aggregate-to-view", "User:viewer"), bind("web", "e", "ClusterRole", "system:aggregate-to-edit", "User:editor"))
	known, unknown := user("joe", access.Authenticated), user(access.Anonymous, access.Unauthenticated)
	viewer, editor := user("viewer", access.Authenticated), user("editor", access.Authenticated)
	node := user("system:node:n1", access.Nodes, access.Authenticated)
	account := user("system:serviceaccount:web:bot", access.ServiceAccounts, access.Authenticated)
	for _, c := range []struct {
		who  *access.User
		what string
		want bool
	}{
		{user("root", access.Masters), "delete secrets web/s", true},
		{known, "get /api/v1", true},
		{known, "get /openapi/v3", true},
		{known, "get /version", true},
		{known, "get /metrics", false},
		{known, "create authorization.k8s.io:selfsubjectaccessreviews", true},
		{known, "create authorization.k8s.io:subjectaccessreviews", false},
		{known, "create authentication.k8s.io:selfsubjectreviews", true},
		{known, "get pods web/p", false},
		{unknown, "get /version", true},
		{unknown, "get /api", false},
		{viewer, "list apps:deployments web", true},
		{viewer, "get secrets web/s", false},
		{viewer, "list pods", false},
		{viewer, "create pods web", false},
		{editor, "create pods web", true},
		{editor, "create serviceaccounts/token web/bot", true},
		{editor, "create rbac.authorization.k8s.io:rolebindings web", false},
		{node, "get secrets web/s", false}, // the role system:node is bound to nobody
		{account, "get /openid/v1/jwks", true},
		{known, "get /openid/v1/jwks", false},
		{user("m", "system:monitoring"), "get /metrics", true},
	} {
		if got := b.may(c.who, c.what); got != c.want {
			t.Errorf("%s may %s: %v", c.who.Name, c.what, got)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	s := store.New(store.Config{Kinds: api.Kinds()})
	c := store.NewClient(store.ClientConfig{Durable: s, Propose: store.NewLocal(s)})
	for _, o := range bootstrap.Policy() {
		if _, err := c.Create(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		binding := bind(fmt.Sprintf("ns-%d", i%50), fmt.Sprintf("b-%d", i), "ClusterRole", "system:aggregate-to-view", fmt.Sprintf("User:u-%d", i))
		binding.UID = types.UID(fmt.Sprint(i))
		if _, err := c.Create(b.Context(), binding); err != nil {
			b.Fatal(err)
		}
	}
	x := rbac.NewIndex(s)
	a := ask(user("u-7", access.Authenticated), "list apps:replicasets/status ns-7")
	b.ReportAllocs()
	for b.Loop() {
		if ok, _ := x.Authorize(b.Context(), a); !ok {
			b.Fatal("refused")
		}
	}
}
