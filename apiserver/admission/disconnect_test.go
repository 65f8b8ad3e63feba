package admission_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/apiserver/admission"
)

func TestDisconnect(t *testing.T) {
	b := newBed(t, admission.Config{})
	says := func(text string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{fleetv1.DisconnectAnnotation: text} }
	}
	n := 0
	for text, ok := range map[string]bool{
		"keep": true, "replace": true, "stop-after=10m": true, "stop-after=10s": true, "stop-after=168h": true,
		"": false, "Keep": false, "stop": false, "stop-after": false, "stop-after=": false, "stop-after=9s": false, "stop-after=169h": false,
		"stop-after=-10m": false, "stop-after=600": false,
	} {
		n++
		_, err := b.create(pod(fmt.Sprint("p", n), says(text)))
		switch {
		case ok && err != nil:
			t.Errorf("%q: %v", text, err)
		case !ok && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be keep, replace or stop-after=DURATION")):
			t.Errorf("%q: %v", text, err)
		}
	}
	p := b.pod(pod("fixed", says("stop-after=10m")))
	for _, text := range []string{"keep", "stop-after=20m", ""} {
		changed := p.DeepCopy()
		if changed.Annotations[fleetv1.DisconnectAnnotation] = text; text == "" {
			changed.Annotations = nil
		}
		if _, err := b.update(changed); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "may not change while the pod is there") {
			t.Errorf("changed to %q: %v", text, err)
		}
	}
	other := p.DeepCopy()
	other.Annotations["other"] = "x"
	if _, err := b.update(other); err != nil {
		t.Error(err)
	}
}
