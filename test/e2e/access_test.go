package e2e

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/test/need"
)

// accessBed is a server in this process, and the real kubectl.
type accessBed struct {
	*testing.T
	kubectl, kubeconfig, home string
	env                       []string
}

func newAccessBed(t *testing.T) *accessBed {
	t.Helper()
	kubectl := need.Built(t, "../..", "kubectl")
	f, err := fleet.New(fleet.Config{Dir: t.TempDir(), Servers: 1, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.Start(ctx); err != nil {
		t.Fatal(err)
	}
	b := &accessBed{T: t, kubectl: kubectl, kubeconfig: f.Kubeconfig(), home: t.TempDir()}
	for { // until the default roles are there
		if out, _ := b.run("auth", "can-i", "get", "pods", "--as=jane", "--as-group=view"); strings.HasPrefix(out, "no") {
			if _, err := b.run("get", "clusterrolebinding", "system:basic-user", "system:discovery"); err == nil {
				return b
			}
		}
		if ctx.Err() != nil {
			t.Fatal("the cluster has no default roles")
		}
	}
}

func (b *accessBed) run(args ...string) (string, error) {
	out, err := b.command(args...).CombinedOutput()
	return string(out), err
}

// want runs kubectl, and what it prints must have all of these parts.
func (b *accessBed) want(args string, parts ...string) string {
	b.Helper()
	out, _ := b.run(strings.Fields(args)...)
	for _, part := range parts {
		if !strings.Contains(out, part) {
			b.Errorf("kubectl %s: %q is not in\n%s", args, part, out)
		}
	}
	return out
}

// TestAccess drives everything that kubectl knows about access.
func TestAccess(t *testing.T) {
	b := newAccessBed(t)
	b.want("auth whoami", "shoal-admin", "system:masters")
	b.want("create namespace shop", "created")
	b.want("create serviceaccount bot -n shop", "created")
	b.want("create role reader --verb=get,list,watch --resource=pods,deployments.apps -n shop", "created")
	b.want("create rolebinding reader --role=reader --serviceaccount=shop:bot --user=jane -n shop", "created")
	b.want("create clusterrole scaler --verb=update,patch --resource=deployments/scale", "created")
	b.want("create clusterrolebinding scalers --clusterrole=scaler --group=crew", "created")

	b.want("auth can-i list pods --as=jane -n shop", "yes")
	b.want("auth can-i list pods --as=jane -n default", "no")
	b.want("auth can-i update deployments --subresource=scale --as=jane --as-group=crew", "yes")
	b.want("auth can-i get /version --as=jane", "yes")
	b.want("auth can-i get /metrics --as=jane", "no")
	b.want("auth can-i --list --as=jane -n shop", "pods", "deployments.apps", "[get list watch]", "selfsubjectaccessreviews.authorization.k8s.io", "[/api/*]")
	b.want("auth whoami --as=jane --as-group=crew --as-uid=42", "jane", "crew", "42", "system:authenticated")
	b.want("get pods -n shop --as=jane", "No resources found")
	b.want("get secrets -n shop --as=jane", `Error from server (Forbidden): secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "shop"`)
	b.want("create role more --verb=delete --resource=pods -n shop --as=jane", `cannot create resource "roles" in API group "rbac.authorization.k8s.io"`)
	b.want("get pods --as=jane --as-group=system:masters", "No resources found") // an administrator may act as anybody

	b.want("get rolebinding -n shop -o wide", "NAME", "ROLE", "USERS", "Role/reader", "jane", "shop/bot")
	b.want("get clusterroles", "NAME", "CREATED AT", "cluster-admin", "view")
	b.want("describe clusterrole view", "deployments.apps", "[get list watch]")
	b.want("explain rolebinding.subjects", "Subject")

	manifest := filepath.Join(b.home, "rbac.yaml")
	text := "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: shop}\n" +
		"rules: [{apiGroups: [''], resources: [services], verbs: [get]}]\n"
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want("auth reconcile -f "+manifest, "reconciled", "missing rules added")
	b.want("auth can-i get services --as=system:serviceaccount:shop:bot -n shop", "yes")

	// The token alone: without the administrator's certificate.
	token := strings.TrimSpace(b.want("create token bot -n shop --duration=10m"))
	server := strings.TrimSpace(b.want("config view --minify -o jsonpath={.clusters[0].cluster.server}"))
	ca := filepath.Join(b.home, "ca.crt")
	data := b.want("get configmap kube-root-ca.crt -n shop -o jsonpath={.data.ca\\.crt}", "BEGIN CERTIFICATE")
	if err := os.WriteFile(ca, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	b.kubeconfig = filepath.Join(b.home, "none")
	as := " --server=" + server + " --certificate-authority=" + ca + " --token="
	b.want("auth whoami"+as+token, "system:serviceaccount:shop:bot", "system:serviceaccounts:shop", "authentication.kubernetes.io/credential-id")
	b.want("get pods -n shop"+as+token, "No resources found")
	b.want("get pods -n default"+as+token, `User "system:serviceaccount:shop:bot" cannot list resource "pods"`)
	b.want("get --raw /openid/v1/jwks"+as+token, `"kty":"EC"`)
	b.want("get pods -n shop"+as+token[:len(token)-2], "You must be logged in to the server")
	b.want("version --output=json"+as+"x", "You must be logged in to the server")
}
