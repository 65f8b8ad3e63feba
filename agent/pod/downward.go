package pod

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are what pods may ask about where they run.
type Facts struct {
	NodeName, HostIP string
	PodIPs           []string
	// Allocatable is what a container without a limit is told as its limit.
	Allocatable corev1.ResourceList
	// Server is the host:port at which containers reach the API, empty if none is known.
	Server string
}

// Field is the value of a downward-API field of the pod.
func Field(p *corev1.Pod, path string, f Facts) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return lines(p.Labels), nil
	case "metadata.annotations":
		return lines(p.Annotations), nil
	case "spec.nodeName":
		return f.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return f.HostIP, nil
	case "status.podIP":
		return strings.Join(f.PodIPs[:min(1, len(f.PodIPs))], ""), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", path)
}

func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

func lines(m map[string]string) string {
	out := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(out, "\n")
}

// Resource is the value of a downward-API resource field of a container, rounded up to its divisor.
func Resource(c *corev1.Container, ref *corev1.ResourceFieldSelector, f Facts) (string, error) {
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || kind != "limits" && kind != "requests" {
		return "", fmt.Errorf("unsupported container resource: %s", ref.Resource)
	}
	q := c.Resources.Requests[corev1.ResourceName(name)]
	if kind == "limits" {
		var limited bool
		if q, limited = c.Resources.Limits[corev1.ResourceName(name)]; !limited {
			q = f.Allocatable[corev1.ResourceName(name)]
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return ceil(q.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(q.Value(), divisor.Value()), nil
}

func ceil(a, b int64) string {
	if b <= 0 {
		b = 1
	}
	return strconv.FormatInt((a+b-1)/b, 10)
}
