package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/apiserver/streaming"
)

// serveStream passes logs, exec, attach and port-forward on to the HTTP API of the pod's device, through the device's own
// link, and from then on moves bytes only.
func (s *Server) serveStream(w http.ResponseWriter, req *request) error {
	switch {
	case req.verb != "get" && (req.verb != "create" || req.sub == "log"):
		return errMethod(req)
	case req.sub != "log" && req.Header.Get("Upgrade") == "":
		return errBadRequest("Upgrade request required")
	}
	obj, err := s.read(req, "")
	if err != nil {
		return err
	}
	pod := obj.(*corev1.Pod)
	path, err := devicePath(req, pod)
	if err != nil {
		return err
	}
	if err := s.admitConnection(req, req.name); err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		if req.sub == "log" {
			s.begin(w, req, http.StatusOK, "text/plain")
			return nil
		}
		return errBadRequest("pod %s does not have a host assigned", pod.Name)
	}
	if streaming.IsWebSocket(req.Request) {
		return s.overWebSocket(w, req, pod.Spec.NodeName, path)
	}
	return s.toDevice(w, req, pod.Spec.NodeName, path)
}

// overWebSocket answers a client that speaks WebSocket, for a device that does not.
func (s *Server) overWebSocket(w http.ResponseWriter, req *request, node, path string) error {
	if s.cfg.DialDevice == nil {
		return errInternal("this server cannot reach devices")
	}
	return streaming.Serve(w, req.Request, req.sub, &streaming.Backend{
		Dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := s.cfg.DialDevice(ctx, node)
			if err != nil {
				return nil, errDial(node, err)
			}
			return conn, nil
		},
		Target: (&url.URL{Path: path, RawQuery: req.URL.RawQuery}).String(),
	})
}

// errDial is not "service unavailable": this one is not cured by another leader, and must not be tried again and again.
func errDial(node string, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("error dialing device %q: %w", node, err))
}

// devicePath is the path of a stream on the device.
func devicePath(req *request, pod *corev1.Pod) (string, error) {
	if req.sub == "portforward" {
		return fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name), nil
	}
	container, err := containerOf(pod, req.query.Get("container"))
	if err != nil {
		return "", err
	}
	verb := req.sub
	if verb == "log" {
		verb = "containerLogs"
	}
	return fmt.Sprintf("/%s/%s/%s/%s", verb, pod.Namespace, pod.Name, container), nil
}

// containerOf is the container that is meant: the named one, or the only one.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var init, main []string
	for _, c := range pod.Spec.InitContainers {
		init = append(init, c.Name)
	}
	for _, c := range pod.Spec.Containers {
		main = append(main, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		main = append(main, c.Name)
	}
	all := append(init, main...)
	switch {
	case name != "" && !slices.Contains(all, name):
		return "", errBadRequest("container %s is not valid for pod %s", name, pod.Name)
	case name != "":
		return name, nil
	case len(pod.Spec.Containers) == 1:
		return pod.Spec.Containers[0].Name, nil
	}
	return "", errBadRequest("a container name must be specified for pod %s, choose one of: %s", pod.Name, all)
}

// toDevice proxies the request to the device over a tunnel of its own.
func (s *Server) toDevice(w http.ResponseWriter, req *request, node, path string) error {
	if s.cfg.DialDevice == nil {
		return errInternal("this server cannot reach devices")
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	var failure error
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport: &http.Transport{
			DisableKeepAlives:  true,
			DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return s.cfg.DialDevice(ctx, node)
			},
		},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "device", "device"
			p.Out.URL.Path, p.Out.URL.RawPath = path, ""
			dropUser(p.Out.Header) // the device hears from the server, not from the user
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failure = err },
	}
	proxy.ServeHTTP(w, req.WithContext(ctx))
	if failure != nil {
		return errDial(node, failure)
	}
	return nil
}
