package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxBody bounds what of an answer is read.
const maxBody = 10 << 10

// Target is what a check asks.
type Target struct {
	IP    string
	Ports []corev1.ContainerPort
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string) (output []byte, exitCode int32, err error)
}

// Check makes the one check that h describes.
func (t Target) Check(ctx context.Context, h corev1.ProbeHandler) error {
	switch {
	case h.HTTPGet != nil:
		return t.HTTP(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		return t.tcp(ctx, h.TCPSocket)
	case h.Exec != nil:
		return t.exec(ctx, h.Exec.Command)
	case h.GRPC != nil:
		return t.grpc(ctx, h.GRPC)
	}
	return fmt.Errorf("%w: it has no handler", ErrUnknown)
}

// HTTP asks once; answers from 200 to 399 are good.
func (t Target) HTTP(ctx context.Context, get *corev1.HTTPGetAction) error {
	port, err := t.port(get.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	path, err := url.Parse(get.Path)
	if err != nil {
		path = &url.URL{Path: get.Path}
	}
	path.Scheme, path.Host = scheme, net.JoinHostPort(first(get.Host, t.IP), port)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, path.String(), nil)
	if err != nil {
		return err
	}
	q.Header.Set("User-Agent", "kube-probe/1.37")
	q.Header.Set("Accept", "*/*")
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			q.Host = h.Value
			continue
		}
		q.Header.Set(h.Name, h.Value)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // as kubelet: a probe asks for health, not for identity
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: sameHost}
	reply, err := client.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxBody))
	if err != nil && len(body) == 0 {
		return err
	}
	if reply.StatusCode < 200 || reply.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", reply.StatusCode)
	}
	return nil
}

// sameHost follows redirects on one host; one to elsewhere is an answer and good as it is.
func sameHost(q *http.Request, via []*http.Request) error {
	if q.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func (t Target) tcp(ctx context.Context, a *corev1.TCPSocketAction) error {
	port, err := t.port(a.Port)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(first(a.Host, t.IP), port))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (t Target) exec(ctx context.Context, command []string) error {
	output, code, err := t.Exec(ctx, command)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("command exited with code %d: %.256s", code, output)
	}
	return nil
}

func (t Target) grpc(ctx context.Context, a *corev1.GRPCAction) error {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(t.IP, strconv.Itoa(int(a.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.37"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	q := &grpc_health_v1.HealthCheckRequest{}
	if a.Service != nil {
		q.Service = *a.Service
	}
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, q)
	if err != nil {
		return err
	}
	if reply.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", reply.Status)
	}
	return nil
}

func (t Target) port(p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, known := range t.Ports {
		if known.Name == p.StrVal {
			return strconv.Itoa(int(known.ContainerPort)), nil
		}
	}
	if _, err := strconv.ParseUint(p.StrVal, 10, 16); err == nil {
		return p.StrVal, nil
	}
	return "", fmt.Errorf("the container has no port named %q", p.StrVal)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
