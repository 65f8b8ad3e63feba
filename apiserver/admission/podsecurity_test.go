package admission_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
)

func namespace(name string, labels ...string) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
	}
	return n
}

func in(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Namespace = name } }

func onHost(p *corev1.Pod) { p.Spec.HostNetwork = true }

const (
	restrictedDetail = `allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), ` +
		`unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), ` +
		`runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), ` +
		`seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`
)

func TestPodSecurityEnforces(t *testing.T) {
	b := newBed(t, admission.Config{}, namespace("baseline", "enforce", "baseline", "enforce-version", "v1.30"), namespace("open"))
	b.refused(pod("p", in("baseline"), onHost), `violates PodSecurity "baseline:v1.30": host namespaces (hostNetwork=true)`)
	if got := b.heard.notes["pod-security.kubernetes.io/enforce-policy"]; got != "baseline:v1.30" {
		t.Errorf("noted %q", got)
	}
	b.add(pod("p", in("baseline")), pod("p", in("open"), onHost))

	// An update of what the standards are not about passes, whatever the labels say by now.
	have, _ := store.Get[corev1.Pod](b.client.Reader(), "baseline", "p")
	n, _ := store.Get[corev1.Namespace](b.client.Reader(), "", "baseline")
	n.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if _, err := b.update(n); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`existing pods in namespace "baseline" violate the new PodSecurity enforce level "restricted:v1.30"`,
		`p: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile`,
	}
	if diff := cmp.Diff(want, b.heard.warnings); diff != "" {
		t.Error(diff)
	}
	have.Labels = map[string]string{"a": "b"}
	updated, err := b.update(have)
	if err != nil {
		t.Fatal(err)
	}
	updated.(*corev1.Pod).Spec.Containers[0].Image = "i:2"
	if _, err := b.update(updated); !apierrors.IsForbidden(err) {
		t.Errorf("a new image: %v", err)
	}
}

func TestPodSecurityWarnsAndNotes(t *testing.T) {
	b := newBed(t, admission.Config{}, namespace("w", "warn", "restricted", "audit", "baseline"))
	b.pod(pod("p", in("w"), onHost))
	host := `host namespaces (hostNetwork=true), `
	if diff := cmp.Diff([]string{`would violate PodSecurity "restricted:latest": ` + host + restrictedDetail}, b.heard.warnings); diff != "" {
		t.Error(diff)
	}
	if got := b.heard.notes["pod-security.kubernetes.io/audit-violations"]; got != `would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)` {
		t.Errorf("noted %q", got)
	}
	labels := map[string]string{"a": "b"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "w"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("").Spec},
	}}
	if _, err := b.create(d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`would violate PodSecurity "restricted:latest": ` + restrictedDetail}, b.heard.warnings); diff != "" {
		t.Error(diff)
	}
}

func TestPodSecurityLabelsAreChecked(t *testing.T) {
	b := newBed(t, admission.Config{})
	_, err := b.create(namespace("n", "enforce", "strict", "warn-version", "1.30"))
	want := `Namespace "n" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, ` +
		`baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "1.30": must be "latest" or "v1.x"]`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestPodSecurityExemptions(t *testing.T) {
	defaults, err := admission.ParsePodSecurity(map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, admission.Config{PodSecurity: admission.PodSecurityConfig{
		Defaults: defaults, Namespaces: []string{"system"}, Users: []string{"ann"},
	}})
	b.refused(pod("p", onHost), `violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	ctx := access.WithUser(t.Context(), &access.User{Name: "ann"})
	if _, err := b.client.Create(ctx, pod("p", onHost)); err != nil {
		t.Errorf("an exempt user: %v", err)
	}
	b.add(namespace("system", "enforce", "restricted"))
	want := []string{`namespace "system" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored`}
	if diff := cmp.Diff(want, b.heard.warnings); diff != "" {
		t.Error(diff)
	}
	b.pod(pod("p", in("system"), func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	}))
}
