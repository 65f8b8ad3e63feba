package agent

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

func newIdle(t *testing.T, change func(*Config)) *Agent {
	t.Helper()
	c := Config{NodeName: "pi-1", DataDir: t.TempDir(), Address: "192.0.2.1", Runtime: fake.New(fake.Config{})}
	if change != nil {
		change(&c)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// What isolates a pod from the device is given or refused, never left out.
func TestIsolationIsNeverLeftOut(t *testing.T) {
	a := newIdle(t, nil)
	no, strict := false, corev1.SupplementalGroupsPolicyStrict
	for what, change := range map[string]func(*corev1.Pod){
		"hostUsers": func(p *corev1.Pod) { p.Spec.HostUsers = &no },
		"supplementalGroupsPolicy": func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroupsPolicy: &strict}
		},
	} {
		if _, err := a.sandboxConfig(newPod("web", change), 0); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	enabled := corev1.RecursiveReadOnlyEnabled
	p := newPod("web", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: &enabled}}
	})
	if _, err := a.volumes.Mounts(p, &p.Spec.Containers[0], nil); err == nil || !strings.Contains(err.Error(), "recursiveReadOnly") {
		t.Errorf("recursiveReadOnly: %v", err)
	}
}

func TestProfiles(t *testing.T) {
	name := "shoal-web"
	local := &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	unconfined := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	for _, tc := range []struct {
		byDefault bool
		pod       *corev1.PodSecurityContext
		container *corev1.SecurityContext
		seccomp   criapi.SecurityProfile_ProfileType
		appArmor  string
		level     string
	}{
		{false, nil, nil, criapi.SecurityProfile_Unconfined, "", ""},
		{true, nil, nil, criapi.SecurityProfile_RuntimeDefault, "", ""},
		{true, &corev1.PodSecurityContext{SeccompProfile: unconfined}, nil, criapi.SecurityProfile_Unconfined, "", ""},
		{false, &corev1.PodSecurityContext{AppArmorProfile: local}, &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0"}}, criapi.SecurityProfile_Unconfined, name, "s0"},
	} {
		a := newIdle(t, func(c *Config) { c.SeccompDefault = tc.byDefault })
		p := newPod("web", func(p *corev1.Pod) {
			p.Spec.SecurityContext, p.Spec.Containers[0].SecurityContext = tc.pod, tc.container
		})
		got, err := a.containerSecurity(p, &p.Spec.Containers[0], runtime.Image{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Seccomp.ProfileType != tc.seccomp || got.Apparmor.GetLocalhostRef() != tc.appArmor || got.SelinuxOptions.GetLevel() != tc.level {
			t.Errorf("%+v: %+v", tc, got)
		}
	}
}
