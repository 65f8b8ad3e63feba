package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/shoal-edge/shoal/apiserver/reach"
	"github.com/shoal-edge/shoal/store"
)

// serveProxy passes any HTTP request on to a port of a pod, or of one behind a service, or to the HTTP API of a node's device. All are reached
// through the device's own link.
func (s *Server) serveProxy(w http.ResponseWriter, req *request) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(req.name)
	if !ok {
		return errBadRequest("invalid %s request %q", strings.ToLower(req.kind.GVK.Kind), req.name)
	}
	if s.cfg.DialDevice == nil {
		return errInternal("this server cannot reach devices")
	}
	if req.path == "" && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		return s.toFolder(w, req)
	}
	if err := s.admitConnection(req, name); err != nil {
		return err
	}
	key := req.key()
	key.Name = name
	if req.kind.Resource == "nodes" {
		if _, ok := s.cfg.Client.Reader().Get(key); !ok {
			return apierrors.NewNotFound(req.groupResource(), name)
		}
		return s.proxy(w, req, "http", "device", func(ctx context.Context) (net.Conn, error) { return s.cfg.DialDevice(ctx, name) })
	}
	to, err := s.proxied(req, key, scheme, port)
	if err != nil {
		return err
	}
	if scheme == "" {
		scheme = "http"
	}
	host := net.JoinHostPort(to.Address, strconv.Itoa(int(to.Number)))
	dialer := reach.Dialer(s.cfg.DialDevice)
	return s.proxy(w, req, scheme, host, func(ctx context.Context) (net.Conn, error) { return dialer.Dial(ctx, to) })
}

// proxied is the port that is meant: of a pod, or of one behind a service.
func (s *Server) proxied(req *request, key store.Key, scheme, port string) (reach.Port, error) {
	reader := s.cfg.Client.Reader()
	if req.kind.Resource == "services" {
		service, ok := store.Get[corev1.Service](reader, key.Namespace, key.Name)
		if !ok {
			return reach.Port{}, apierrors.NewNotFound(req.groupResource(), key.Name)
		}
		to, err := reach.Behind(reader, service, port)
		if err != nil {
			return reach.Port{}, &settledError{apierrors.NewServiceUnavailable(err.Error())}
		}
		return to, nil
	}
	pod, ok := store.Get[corev1.Pod](reader, key.Namespace, key.Name)
	switch {
	case !ok:
		return reach.Port{}, apierrors.NewNotFound(req.groupResource(), key.Name)
	case pod.Spec.NodeName == "" || pod.Status.PodIP == "":
		return reach.Port{}, errBadRequest("address not allowed")
	}
	number, err := proxyPort(pod, scheme, port)
	return reach.Port{Node: pod.Spec.NodeName, Namespace: pod.Namespace, Name: pod.Name, Address: pod.Status.PodIP, Number: number}, err
}

// toFolder sends a client to where relative links of the page lead back here.
func (s *Server) toFolder(w http.ResponseWriter, req *request) error {
	to := req.URL.EscapedPath() + "/"
	if req.URL.RawQuery != "" {
		to += "?" + req.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
	return nil
}

// proxyPort is the port that is meant: the named one, the first that the pod tells of, or the scheme's own.
func proxyPort(pod *corev1.Pod, scheme, port string) (uint16, error) {
	if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
		return uint16(number), nil
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if port == "" || port == p.Name {
				return uint16(p.ContainerPort), nil
			}
		}
	}
	switch {
	case port != "":
		return 0, errBadRequest("pod %s has no port %q", pod.Name, port)
	case scheme == "https":
		return 443, nil
	}
	return 80, nil
}

// proxy passes the request on over a connection of its own.
func (s *Server) proxy(w http.ResponseWriter, req *request, scheme, host string, dial func(context.Context) (net.Conn, error)) error {
	var failure error
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			// As upstream does: who the pod is, its device's link has told.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetXForwarded()
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = scheme, host, host
			p.Out.URL.RawPath = req.path
			p.Out.URL.Path, _ = url.PathUnescape(req.path) // it was parsed before
			dropUser(p.Out.Header)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failure = err },
	}
	proxy.ServeHTTP(w, req.Request)
	if failure != nil {
		return &settledError{apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", cause(failure)))}
	}
	return nil
}

// cause is what the device said: around it is how far the HTTP client had come when it heard of it, which is a matter of chance.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}
