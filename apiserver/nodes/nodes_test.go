package nodes_test

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/nodes"
	"github.com/shoal-edge/shoal/store"
)

type bed struct {
	*testing.T
	store *store.Store
	free  *store.Client // as the controllers write
	guard *store.Client // as devices write
	nodes *nodes.Authorizer
}

func newBed(t *testing.T) *bed {
	b := &bed{T: t, store: store.New(store.Config{Kinds: api.Kinds()})}
	local := store.New(store.Config{Kinds: api.Kinds(), FirstRevision: 1 << 32})
	cfg := store.ClientConfig{
		Durable: b.store, Propose: store.NewLocal(b.store),
		Volatile: func() (*store.Store, store.Proposer, error) { return local, store.NewLocal(local), nil },
	}
	b.free = store.NewClient(cfg)
	cfg.Admit = []store.Admitter{nodes.Guard()}
	b.guard = store.NewClient(cfg)
	b.nodes = nodes.New(b.store)
	b.create(pod("mine", "pi-1"))
	b.create(pod("theirs", "pi-2"))
	for _, name := range []string{"pi-1", "pi-2"} {
		b.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return b
}

func (b *bed) create(o api.Object) api.Object {
	b.Helper()
	made, err := b.free.Create(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return made
}

// pod is one on a node that uses objects that begin with its name.
func pod(name, node string) *corev1.Pod {
	from := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name + "-" + n} }
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: name + "-bot", ImagePullSecrets: []corev1.LocalObjectReference{from("pull")},
			Containers: []corev1.Container{{
				Name: "c", Image: "i", EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: from("env")}}},
			}},
			Volumes: []corev1.Volume{
				{Name: "a", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name + "-files"}}},
				{Name: "b", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: from("settings")}}},
				{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-data"}}},
				{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault", Audience: "vault"}},
				}}}},
			},
		},
	}
}

func device(name string) *access.User {
	return &access.User{Name: "system:node:" + name, Groups: []string{access.Nodes, access.Authenticated}}
}

func TestAuthorize(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		what   string // "verb [group:]resource[/sub] [namespace]/[name] [field selector]"
		want   bool
		reason string
	}{
		{"get secrets web/mine-files", true, ""},
		{"watch secrets web/mine-env", true, ""},
		{"list secrets web/mine-pull", true, ""},
		{"get secrets web/theirs-files", false, "no relationship found between node 'pi-1' and this object"},
		{"get secrets shop/mine-files", false, "no relationship"},
		{"list secrets web/", false, "No Object name found"},
		{"list secrets", false, "can only read namespaced object of this type"},
		{"update secrets web/mine-files", false, "can only get resources"},
		{"get configmaps web/mine-settings", true, ""},
		{"get configmaps web/theirs-settings", false, "no relationship"},
		{"get configmaps web/mine-files", false, "no relationship"}, // a Secret's name
		{"get persistentvolumeclaims web/mine-data", true, ""},
		{"list persistentvolumeclaims web/mine-data", false, ""},
		{"get persistentvolumes /v", false, ""},
		{"get serviceaccounts web/mine-bot", true, ""},
		{"create serviceaccounts/token web/mine-bot", true, ""},
		{"create serviceaccounts/token web/theirs-bot", false, "no relationship"},
		{"create serviceaccounts web/x", false, ""},
		{"get pods web/mine", true, ""},
		{"get pods web/theirs", false, "no relationship"},
		{"list pods", false, "can only list/watch pods with spec.nodeName field selector"},
		{"list pods / spec.nodeName=pi-1", true, ""},
		{"watch pods / spec.nodeName=pi-1,status.phase!=Failed", true, ""},
		{"list pods / spec.nodeName=pi-2", false, "can only list/watch pods"},
		{"list pods / spec.nodeName!=pi-1", false, "can only list/watch pods"},
		{"update pods/status web/mine", true, ""},
		{"create pods/eviction web/mine", true, ""},
		{"delete pods web/mine", true, ""},
		{"create pods web/", false, ""},
		{"update pods web/mine", false, ""},
		{"get pods/log web/mine", false, ""},
		{"create pods/exec web/mine", false, ""},
		{"create pods/binding web/mine", false, ""},
		{"get nodes /pi-1", true, ""},
		{"patch nodes/status /pi-1", true, ""},
		{"get nodes /pi-2", false, "node 'pi-1' cannot read 'pi-2', only its own Node object"},
		{"list nodes", false, "node 'pi-1' cannot read all nodes, only its own Node object"},
		{"delete nodes /pi-1", false, ""},
		{"patch nodes/status /pi-2", false, "only its own Node object"},
		{"update coordination.k8s.io:leases kube-node-lease/pi-1", true, ""},
		{"create coordination.k8s.io:leases kube-node-lease/", true, ""},
		{"update coordination.k8s.io:leases kube-node-lease/pi-2", false, "can only access leases with the same name"},
		{"list coordination.k8s.io:leases kube-node-lease/", false, ""},
		{"get coordination.k8s.io:leases kube-system/pi-1", false, `can only access leases in the "kube-node-lease" system namespace`},
		{"list services", true, ""},
		{"create events web/", true, ""},
		{"create authentication.k8s.io:tokenreviews", true, ""},
		{"get apps:deployments web/d", false, ""},
		{"create rbac.authorization.k8s.io:clusterrolebindings", false, ""},
		{"get resource.k8s.io:resourceclaims web/x", false, ""},
		{"get /metrics", false, ""},
	} {
		words := append(strings.Fields(c.what), "", "")
		a := &access.Attributes{User: device("pi-1"), Verb: words[0]}
		if strings.HasPrefix(words[1], "/") {
			a.Path = words[1]
		} else {
			group, resource, ok := strings.Cut(words[1], ":")
			if !ok {
				group, resource = "", words[1]
			}
			a.Group = group
			a.Resource, a.Sub, _ = strings.Cut(resource, "/")
			a.Namespace, a.Name, _ = strings.Cut(words[2], "/")
			a.Fields = words[3]
		}
		got, reason := b.nodes.Authorize(t.Context(), "pi-1", a)
		if got != c.want || !got && !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %v %q", c.what, got, reason)
		}
	}
}

func TestGuard(t *testing.T) {
	b := newBed(t)
	ctx := access.WithUser(t.Context(), device("pi-1"))
	key := func(o api.Object) store.Key { return store.KeyOf(b.store, o) }
	modify := func(o api.Object, sub string, change func(api.Object)) error {
		_, err := b.guard.Modify(ctx, key(o), sub, func(o api.Object) error { change(o); return nil }, store.DryRun)
		return err
	}
	mine, theirs := pod("mine", "pi-1"), pod("theirs", "pi-2")
	own, other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-1"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-2"}}
	running := func(o api.Object) { o.(*corev1.Pod).Status.Phase = corev1.PodRunning }
	ready := func(o api.Object) {
		o.(*corev1.Node).Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	}
	label := func(name string) func(api.Object) {
		return func(o api.Object) { o.SetLabels(map[string]string{name: "x"}) }
	}
	lease := func(name string) error {
		_, err := b.guard.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}}, store.DryRun)
		return err
	}
	remove := func(o api.Object) error {
		_, err := b.guard.Delete(ctx, key(o), &metav1.DeleteOptions{DryRun: []string{"All"}})
		return err
	}
	create := func(o api.Object) error {
		_, err := b.guard.Create(ctx, o, store.DryRun)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"status of its pod":    {modify(mine, "status", running), ""},
		"status of another":    {modify(theirs, "status", running), `node "pi-1" can only update pod status for pods with spec.nodeName set to itself`},
		"labels by the status": {modify(mine, "status", label("a")), `node "pi-1" cannot update labels through pod status`},
		"its pod":              {modify(mine, "", label("a")), `can only delete its pods and update their status`},
		"delete its pod":       {remove(mine), ""},
		"delete another":       {remove(theirs), `node "pi-1" can only delete pods with spec.nodeName set to itself`},
		"a new pod":            {create(pod("new", "pi-1")), "can only delete its pods"},
		"its status":           {modify(own, "status", ready), ""},
		"another's status":     {modify(other, "status", ready), `node "pi-1" is not allowed to modify node "pi-2"`},
		"its label":            {modify(own, "", label("color")), ""},
		"its topology":         {modify(own, "", label("topology.kubernetes.io/zone")), ""},
		"a role":               {modify(own, "", label("node-role.kubernetes.io/server")), "is not allowed to set or modify the following labels: node-role.kubernetes.io/server"},
		"a restriction":        {modify(own, "", label("safe.node-restriction.kubernetes.io/x")), "safe.node-restriction.kubernetes.io/x"},
		"a label of somebody":  {modify(own, "", label("mykubernetes.io/x")), ""},
		"a taint":              {modify(own, "", func(o api.Object) { o.(*corev1.Node).Spec.Taints = []corev1.Taint{{Key: "a", Effect: "NoSchedule"}} }), `node "pi-1" is not allowed to modify taints`},
		"an owner": {modify(own, "", func(o api.Object) {
			o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "x", UID: "1"}})
		}), "ownerReferences"},
		"itself":                  {remove(own), "not allowed to delete itself"},
		"another new node":        {create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-9"}}), `not allowed to modify node "pi-9"`},
		"its lease":               {lease("pi-1"), ""},
		"another's lease":         {lease("pi-2"), "can only access leases with the same name as the requesting node"},
		"something else entirely": {create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "c"}}), ""}, // roles decide that
	} {
		if c.want == "" && c.err != nil || c.want != "" && (c.err == nil || !strings.Contains(c.err.Error(), c.want)) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if _, err := b.guard.Modify(access.WithUser(t.Context(), &access.User{Name: "jane"}), key(other), "", func(o api.Object) error {
		label("node-role.kubernetes.io/server")(o)
		return nil
	}); err != nil {
		t.Errorf("a person is no device: %v", err)
	}
	if err := func() error { _, err := b.guard.Create(t.Context(), pod("x", ""), store.DryRun); return err }(); err == nil {
		t.Error("nobody wrote")
	}
}

func TestGuardToken(t *testing.T) {
	b := newBed(t)
	mine, _ := store.Get[corev1.Pod](b.store, "web", "mine")
	theirs, _ := store.Get[corev1.Pod](b.store, "web", "theirs")
	request := func(p *corev1.Pod, audiences ...string) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: audiences, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID},
		}}
	}
	without := func(change func(*authenticationv1.BoundObjectReference)) *authenticationv1.TokenRequest {
		r := request(mine)
		change(r.Spec.BoundObjectRef)
		return r
	}
	for name, c := range map[string]struct {
		request *authenticationv1.TokenRequest
		want    string
	}{
		"its pod":        {request(mine), ""},
		"its pod, vault": {request(mine, "vault"), ""},
		"unbound":        {&authenticationv1.TokenRequest{}, "node requested token not bound to a pod"},
		"to a node":      {without(func(r *authenticationv1.BoundObjectReference) { r.Kind = "Node" }), "not bound to a pod"},
		"no uid":         {without(func(r *authenticationv1.BoundObjectReference) { r.UID = "" }), "without a uid"},
		"another uid":    {without(func(r *authenticationv1.BoundObjectReference) { r.UID = "x" }), "does not match the UID in record"},
		"no pod":         {without(func(r *authenticationv1.BoundObjectReference) { r.Name = "x" }), "not found"},
		"another's pod":  {request(theirs), "scheduled on a different node"},
		"two audiences":  {request(mine, "vault", ""), "node may only request 0 or 1 audiences"},
		"an audience":    {request(mine, "bank"), `not authorized to request tokens for audience "bank"`},
	} {
		err := b.nodes.GuardToken("pi-1", "web", "mine-bot", c.request)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
