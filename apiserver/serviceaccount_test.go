package apiserver_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
)

// accountBed is a store whose pods get accounts, with the account "default" and the given ones.
func accountBed(t *testing.T, accounts ...*corev1.ServiceAccount) *store.Client {
	t.Helper()
	s := store.New(store.Config{Kinds: api.Kinds()})
	c := store.NewClient(store.ClientConfig{Durable: s, Propose: store.NewLocal(s), Admit: accountsOnly()})
	for _, a := range append(accounts, account("default")) {
		if _, err := c.Create(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// accountsOnly is the plugin for accounts alone.
func accountsOnly() []store.Admitter {
	return slices.DeleteFunc(admission.New(admission.Config{}), func(p admission.Plugin) bool { return p.Name != "ServiceAccount" }).Admit()
}

func account(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func TestPodsGetTheirAccount(t *testing.T) {
	bot := account("bot")
	bot.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	c := accountBed(t, bot)
	made := func(change func(*corev1.Pod)) corev1.PodSpec {
		t.Helper()
		p := podOn("p", "")
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i"}}
		change(p)
		o, err := c.Create(t.Context(), p, store.DryRun)
		if err != nil {
			t.Fatal(err)
		}
		return o.(*corev1.Pod).Spec
	}
	s := made(func(*corev1.Pod) {})
	if s.ServiceAccountName != "default" || s.DeprecatedServiceAccount != "default" || len(s.ImagePullSecrets) != 0 {
		t.Errorf("%q", s.ServiceAccountName)
	}
	want := []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](3607), Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
		}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
		}}},
	}
	if len(s.Volumes) != 1 || !strings.HasPrefix(s.Volumes[0].Name, "kube-api-access-") || *s.Volumes[0].Projected.DefaultMode != 0o644 {
		t.Fatalf("%+v", s.Volumes)
	}
	if diff := cmp.Diff(want, s.Volumes[0].Projected.Sources); diff != "" {
		t.Error(diff)
	}
	mount := []corev1.VolumeMount{{Name: s.Volumes[0].Name, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
	if diff := cmp.Diff([][]corev1.VolumeMount{mount, mount}, [][]corev1.VolumeMount{s.InitContainers[0].VolumeMounts, s.Containers[0].VolumeMounts}); diff != "" {
		t.Error(diff)
	}
	if s := made(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "bot" }); len(s.ImagePullSecrets) != 1 || s.ServiceAccountName != "bot" {
		t.Errorf("%+v", s.ImagePullSecrets)
	}
	if s := made(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = ptr.To(false) }); len(s.Volumes) != 0 {
		t.Errorf("%+v", s.Volumes)
	}
	own := []corev1.VolumeMount{{Name: "mine", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
	if s := made(func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "mine", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts, p.Spec.InitContainers[0].VolumeMounts = own, own
	}); len(s.Volumes) != 1 || len(s.Containers[0].VolumeMounts) != 1 {
		t.Errorf("%+v", s.Volumes)
	}
	again := made(func(p *corev1.Pod) { s.DeepCopyInto(&p.Spec) }) // a copy of a pod that has it all
	if diff := cmp.Diff(s, again); diff != "" {
		t.Error(diff)
	}
}

func TestPodsWithoutAnAccount(t *testing.T) {
	strict := account("strict")
	strict.Annotations = map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}
	strict.Secrets = []corev1.ObjectReference{{Name: "mine"}}
	quiet := account("quiet")
	quiet.AutomountServiceAccountToken = ptr.To(false)
	c := accountBed(t, strict, quiet)
	with := func(account, secret string) error {
		p := podOn("p", "")
		p.Spec.ServiceAccountName = account
		if secret != "" {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
		}
		_, err := c.Create(t.Context(), p, store.DryRun)
		return err
	}
	if err := with("nobody", ""); err == nil || !strings.Contains(err.Error(), `pods "p" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found`) {
		t.Error(err)
	}
	if err := with("strict", "mine"); err != nil {
		t.Error(err)
	}
	if err := with("strict", "other"); err == nil || !strings.Contains(err.Error(), `service account strict does not reference that secret`) {
		t.Error(err)
	}
	p := podOn("p", "")
	p.Spec.ServiceAccountName = "quiet"
	if o, err := c.Create(t.Context(), p, store.DryRun); err != nil || len(o.(*corev1.Pod).Spec.Volumes) != 0 {
		t.Error(err)
	}
}

// TestANewNamespaceIsFilledSoon makes a pod before the namespace has its account.
func TestANewNamespaceIsFilledSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.New(store.Config{Kinds: api.Kinds()})
		c := store.NewClient(store.ClientConfig{Durable: s, Propose: store.NewLocal(s), Admit: accountsOnly()})
		user := access.WithUser(t.Context(), &access.User{Name: "jane"})
		create := func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			_, err := c.Create(ctx, podOn("p", ""), store.DryRun)
			return time.Since(began), err
		}
		if took, err := create(t.Context()); err == nil || took != 0 {
			t.Errorf("a controller waited %s: %v", took, err)
		}
		if took, err := create(user); err == nil || took < time.Second {
			t.Errorf("a user waited %s only: %v", took, err)
		}
		go func() {
			time.Sleep(300 * time.Millisecond)
			if _, err := c.Create(t.Context(), account("default")); err != nil {
				t.Error(err)
			}
		}()
		if took, err := create(user); err != nil || took > 350*time.Millisecond {
			t.Errorf("%s: %v", took, err)
		}
	})
}
