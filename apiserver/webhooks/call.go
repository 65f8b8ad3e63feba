package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/apiserver/reach"
	"github.com/shoal-edge/shoal/store"
)

const (
	// usualTimeout is how long a webhook has that does not say.
	usualTimeout = 10 * time.Second
	// maxAnswer bounds an answer: a patch may replace an object, whose JSON is larger than what is stored.
	maxAnswer = 6 << 20
	// maxClients bounds how many webhooks' connections are kept.
	maxClients = 64
)

// call sends the question and reads the answer.
func (c *Caller) call(ctx context.Context, r *matching.Request, h *hook, question *admissionv1.AdmissionReview) (answer *admissionv1.AdmissionReview, err error) {
	timeout := usualTimeout
	if h.TimeoutSeconds != nil {
		timeout = time.Duration(*h.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	defer func() {
		rejected := err != nil || answer.Response != nil && !answer.Response.Allowed
		c.calls.WithLabelValues(h.Name, h.typeName(), string(r.Operation), strconv.FormatBool(rejected)).Observe(time.Since(began).Seconds())
	}()

	to, client, err := c.client(r.Reader, &h.ClientConfig)
	if err != nil {
		return nil, err
	}
	answer = &admissionv1.AdmissionReview{}
	return answer, post(ctx, client, to, timeout, question, answer)
}

// post sends a question, and says how long the answer may take, and reads the answer.
func post(ctx context.Context, client *http.Client, to *url.URL, timeout time.Duration, question, answer any) error {
	query := to.Query()
	query.Set("timeout", timeout.String())
	to.RawQuery = query.Encode()
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	reply, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("failed to call webhook: %w", err)
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("failed to call webhook: %w", err)
	case len(data) > maxAnswer:
		return fmt.Errorf("failed to call webhook: its answer is larger than %d bytes", maxAnswer)
	case reply.StatusCode != http.StatusOK:
		return fmt.Errorf("failed to call webhook: it answered %s: %s", reply.Status, beginning(data))
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("failed to call webhook: its answer: %w", err)
	}
	return nil
}

// beginning is as much of an answer as fits into an error.
func beginning(data []byte) string {
	const longest = 256
	return strings.ToValidUTF8(strings.TrimSpace(string(data[:min(len(data), longest)])), "")
}

// client finds where a webhook is, and a client that keeps connections to it.
func (c *Caller) client(reader store.Reader, to *admissionregistrationv1.WebhookClientConfig) (*url.URL, *http.Client, error) {
	if to.URL != nil {
		at, err := url.Parse(*to.URL)
		if err != nil {
			return nil, nil, err
		}
		client, err := c.clients.get(to.CABundle, at.Hostname(), at.Host, (&net.Dialer{}).DialContext)
		return at, client, err
	}
	service := *to.Service
	port := ptr.Deref(service.Port, 443)
	host := service.Name + "." + service.Namespace + ".svc"
	at := &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}
	path, query, _ := strings.Cut(ptr.Deref(service.Path, "/"), "?")
	at.Path, at.RawQuery = path, query
	client, err := c.clients.get(to.CABundle, host, at.Host, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.dialService(ctx, reader, service.Namespace, service.Name, port)
	})
	return at, client, err
}

// clients are clients by the webhooks that they call.
type clients struct {
	mu sync.Mutex
	by map[clientKey]*http.Client
}

type clientKey struct{ ca, address string }

func (c *clients) get(
	ca []byte, name, address string, dial func(ctx context.Context, network, address string) (net.Conn, error),
) (*http.Client, error) {
	var roots *x509.CertPool // nil: those of the system
	if len(ca) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return nil, errors.New("unable to load root certificates: the caBundle has none")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := clientKey{string(ca), address}
	if client := c.by[key]; client != nil {
		return client, nil
	}
	if len(c.by) >= maxClients || c.by == nil {
		for _, old := range c.by {
			old.CloseIdleConnections()
		}
		c.by = map[clientKey]*http.Client{}
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: usualTimeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.by[key] = client
	return client, nil
}

// dialService connects to a port of a Service: to one of its pods, through that pod's device's own link.
func (c *Caller) dialService(ctx context.Context, reader store.Reader, namespace, name string, port int32) (net.Conn, error) {
	service, ok := store.Get[corev1.Service](reader, namespace, name)
	if !ok {
		return nil, fmt.Errorf("service %q not found", name)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(service.Spec.ExternalName, strconv.Itoa(int(port))))
	}
	at, err := reach.Behind(reader, service, strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	return c.cfg.DialDevice.Dial(ctx, at)
}
