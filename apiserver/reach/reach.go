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
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/apiserver/streaming"
	"github.com/shoal-edge/shoal/store"
)

// Port is a port of a pod, and where the pod is.
type Port struct {
	Node            string
	Namespace, Name string
	Address         string // of the pod
	Number          uint16
}

// Dialer opens a tunnel to a device's HTTP API.
type Dialer func(ctx context.Context, node string) (net.Conn, error)

// ErrNoDevices is the error of a server that has no links.
var ErrNoDevices = errors.New("this server cannot reach devices")

// Dial connects to a port.
func (d Dialer) Dial(ctx context.Context, p Port) (net.Conn, error) {
	if d == nil {
		return nil, ErrNoDevices
	}
	backend := &streaming.Backend{
		Dial:   func(ctx context.Context) (net.Conn, error) { return d(ctx, p.Node) },
		Target: (&url.URL{Path: fmt.Sprintf("/portForward/%s/%s", p.Namespace, p.Name)}).String(),
	}
	return backend.DialPort(ctx, p.Number)
}

// Behind finds where one of a Service's ports leads: to a pod that its EndpointSlices say is ready, any of several. The port is a number,
// a name, or empty for the one without a name. The errors are upstream's wording.
func Behind(reader store.Reader, service *corev1.Service, port string) (Port, error) {
	name, err := portName(service, port)
	if err != nil {
		return Port{}, err
	}
	var ready []Port
	for _, slice := range store.List[discoveryv1.EndpointSlice](reader, service.Namespace) {
		if slice.Labels[discoveryv1.LabelServiceName] != service.Name {
			continue
		}
		for _, p := range slice.Ports {
			if ptr.Deref(p.Name, "") == name && p.Port != nil {
				ready = append(ready, readyIn(slice, uint16(*p.Port))...)
			}
		}
	}
	if len(ready) == 0 {
		return Port{}, fmt.Errorf("no endpoints available for service %q", service.Name)
	}
	return ready[rand.IntN(len(ready))], nil
}

// readyIn are the pods of a slice that take connections. What is no pod has no device.
func readyIn(slice *discoveryv1.EndpointSlice, number uint16) (all []Port) {
	for _, e := range slice.Endpoints {
		pod := e.TargetRef
		if !ptr.Deref(e.Conditions.Ready, true) || pod == nil || pod.Kind != "Pod" || e.NodeName == nil || len(e.Addresses) == 0 {
			continue
		}
		all = append(all, Port{Node: *e.NodeName, Namespace: pod.Namespace, Name: pod.Name, Address: e.Addresses[0], Number: number})
	}
	return all
}

// portName is the name of a Service's port that is called by its number or its name.
func portName(service *corev1.Service, port string) (string, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	for _, p := range service.Spec.Ports {
		if err == nil && uint64(p.Port) == number || err != nil && p.Name == port {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("no service port %s found for service %q", strconv.Quote(port), service.Name)
}
