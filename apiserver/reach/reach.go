// Package reach connects to ports of pods, and to Services by way of a pod behind them, through the links of the devices on which they run.
// It needs no pod network and no routes to the addresses of Services.
package reach

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-edge/shoal/apiserver/streaming"
	"github.com/shoal-edge/shoal/store"
)

// Dialer opens a tunnel to a device's HTTP API.
type Dialer func(ctx context.Context, node string) (net.Conn, error)

// ErrNoDevices is the error of a server that has no links.
var ErrNoDevices = errors.New("this server cannot reach devices")

// Pod connects to a port of a pod.
func (d Dialer) Pod(ctx context.Context, pod *corev1.Pod, port uint16) (net.Conn, error) {
	if d == nil {
		return nil, ErrNoDevices
	}
	backend := &streaming.Backend{
		Dial:   func(ctx context.Context) (net.Conn, error) { return d(ctx, pod.Spec.NodeName) },
		Target: (&url.URL{Path: fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name)}).String(),
	}
	return backend.DialPort(ctx, port)
}

// Behind finds a ready pod behind a Service, any of several, and the number that one of the Service's ports has there. The port is a number,
// a name, or empty for the one without a name. What it says is upstream's wording.
func Behind(reader store.Reader, service *corev1.Service, port string) (*corev1.Pod, uint16, error) {
	target, err := targetOf(service, port)
	if err != nil {
		return nil, 0, err
	}
	if len(service.Spec.Selector) == 0 {
		return nil, 0, fmt.Errorf("service %q selects no pods", service.Name)
	}
	var ready []*corev1.Pod
	chosen := labels.SelectorFromSet(service.Spec.Selector)
	for _, pod := range store.List[corev1.Pod](reader, service.Namespace) {
		if chosen.Matches(labels.Set(pod.Labels)) && pod.DeletionTimestamp == nil && pod.Spec.NodeName != "" && isReady(pod) {
			ready = append(ready, pod)
		}
	}
	if len(ready) == 0 {
		return nil, 0, fmt.Errorf("no endpoints available for service %q", service.Name)
	}
	pod := ready[rand.IntN(len(ready))]
	number, ok := portOf(pod, target)
	if !ok {
		return nil, 0, fmt.Errorf("pod %s has no port %q", pod.Name, target.String())
	}
	return pod, number, nil
}

// targetOf is where in its pods a port of a Service leads.
func targetOf(service *corev1.Service, port string) (intstr.IntOrString, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	for _, p := range service.Spec.Ports {
		if err == nil && uint64(p.Port) == number || err != nil && p.Name == port {
			if p.TargetPort == (intstr.IntOrString{}) {
				return intstr.FromInt32(p.Port), nil
			}
			return p.TargetPort, nil
		}
	}
	return intstr.IntOrString{}, fmt.Errorf("no service port %s found for service %q", strconv.Quote(port), service.Name)
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// portOf is the number of a Service's target port at a pod.
func portOf(pod *corev1.Pod, target intstr.IntOrString) (uint16, bool) {
	if target.Type == intstr.Int {
		return uint16(target.IntVal), target.IntVal > 0
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == target.StrVal {
				return uint16(port.ContainerPort), true
			}
		}
	}
	return 0, false
}
