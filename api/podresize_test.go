package api

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestResizeChangesResourcesOnly(t *testing.T) {
	kind := ByResource("pods")
	limits := func(cpu string) corev1.ResourceRequirements {
		list := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("64Mi")}
		return corev1.ResourceRequirements{Requests: list, Limits: list}
	}
	older := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", ResourceVersion: "1", UID: "u", Generation: 1},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1", Resources: limits("100m")}}},
	}
	kind.Default(older)
	kind.PrepareCreate(older)
	resize := func(change func(*corev1.Pod)) (*corev1.Pod, string) {
		newer := older.DeepCopy()
		change(newer)
		part := kind.Parts["resize"]
		part.Prepare(newer, older)
		return newer, part.Validate(newer, older).ToAggregate().Error()
	}
	newer := older.DeepCopy()
	newer.Spec.Containers[0].Resources, newer.Spec.Containers[0].Image, newer.Labels = limits("200m"), "i:2", map[string]string{"a": "b"}
	part := kind.Parts["resize"]
	part.Prepare(newer, older)
	if errs := part.Validate(newer, older); len(errs) > 0 {
		t.Fatal(errs)
	}
	if c := newer.Spec.Containers[0]; c.Resources.Requests.Cpu().String() != "200m" || c.Image != "i:1" || newer.Labels != nil || newer.Generation != 2 {
		t.Errorf("%+v, labels %v, generation %d", c, newer.Labels, newer.Generation)
	}
	for _, c := range []struct {
		change func(*corev1.Pod)
		want   string
	}{
		{func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("300m"), "memory": resource.MustParse("64Mi")}
		}, "Pod QOS Class may not change as a result of resizing"},
		{func(p *corev1.Pod) { p.Spec.Containers[0].Name = "other" }, "containers may not be renamed or reordered on resize"},
	} {
		if _, text := resize(c.change); !strings.Contains(text, c.want) {
			t.Errorf("%s\nwant %s", text, c.want)
		}
	}
}
