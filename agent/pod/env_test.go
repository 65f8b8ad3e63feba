package pod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type source struct{}

func (source) ConfigMap(_, name string) *corev1.ConfigMap {
	if name != "c" {
		return nil
	}
	return &corev1.ConfigMap{Data: map[string]string{"A": "from-map", "B": "b"}}
}

func (source) Secret(_, name string) *corev1.Secret {
	if name != "s" {
		return nil
	}
	return &corev1.Secret{Data: map[string][]byte{"K": []byte("hidden")}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnv(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"app": "web"}}}
	c := &corev1.Container{
		EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}},
		Env: []corev1.EnvVar{
			{Name: "A", Value: "1"},
			{Name: "B", Value: "$(A)-$(P_B)-$(NONE)-$$(A)"},
			{Name: "A", Value: "2"},
			{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "K"}}},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "LABEL", ValueFrom: field("metadata.labels['app']")},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "requests.memory", Divisor: resource.MustParse("1Mi")}}},
		},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"memory": resource.MustParse("1500Ki")}},
	}
	f := Facts{
		PodIPs: []string{"10.0.0.1", "fd00::1"}, Allocatable: corev1.ResourceList{"cpu": resource.MustParse("3500m")}, Server: "[fd00::9]:6443",
	}
	got, err := Env(p, c, source{}, f)
	if err != nil {
		t.Fatal(err)
	}
	want := []Var{
		{"KUBERNETES_SERVICE_HOST", "fd00::9"},
		{"KUBERNETES_SERVICE_PORT", "6443"},
		{"KUBERNETES_SERVICE_PORT_HTTPS", "6443"},
		{"P_A", "from-map"},
		{"P_B", "b"},
		{"A", "2"},
		{"B", "1-b-$(NONE)-$(A)"},
		{"S", "hidden"},
		{"IP", "10.0.0.1"},
		{"LABEL", "web"},
		{"CPU", "4"},
		{"MEM", "2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"-a", "2", "$(X)"}, Expand([]string{"-a", "$(A)", "$(X)"}, got)); diff != "" {
		t.Error(diff)
	}
}

func TestEnvMissing(t *testing.T) {
	yes := true
	ref := &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k"}
	c := &corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: ref}}}}
	if _, err := Env(&corev1.Pod{}, c, source{}, Facts{}); err == nil || !strings.Contains(err.Error(), `configmap "none" not found`) {
		t.Errorf("got %v", err)
	}
	ref.Optional = &yes
	if got, err := Env(&corev1.Pod{}, c, source{}, Facts{}); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}
