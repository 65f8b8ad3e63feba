package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/shoal-edge/shoal/agent"
	"github.com/shoal-edge/shoal/pki"
)

// maxTokenAnswer bounds the answer to a TokenRequest, in bytes.
const maxTokenAnswer = 64 << 10

// tokenAsker asks the API, as the device that it is on, for the tokens of the device's pods.
type tokenAsker struct {
	servers   func() []string
	transport *http.Transport
}

func newTokenAsker(id *pki.Identity, servers func() []string) *tokenAsker {
	return &tokenAsker{servers: servers, transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return id.Dial(ctx, address, "http/1.1")
		},
		IdleConnTimeout:       10 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
	}}
}

func (t *tokenAsker) close() error {
	t.transport.CloseIdleConnections()
	return nil
}

// ask asks one server after the other until one answers. It is an agent.TokenSource.
func (t *tokenAsker) ask(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = errors.New("no server is known")
	for _, server := range t.servers() {
		if err = t.askOne(ctx, server, namespace, account, body, r); err == nil || errors.Is(err, agent.ErrTokenRefused) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (t *tokenAsker) askOne(ctx context.Context, server, namespace, account string, body []byte, r *authenticationv1.TokenRequest) error {
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", url.PathEscape(namespace), url.PathEscape(account))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Client{Transport: t.transport}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxTokenAnswer))
	switch {
	case err != nil:
		return err
	case answer.StatusCode == http.StatusCreated:
		return json.Unmarshal(data, r)
	case answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", agent.ErrTokenRefused, answer.Status)
	}
	return fmt.Errorf("%s: %s", server, answer.Status)
}
