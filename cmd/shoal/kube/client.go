// Package kube owns shoal's own small client of the API: enough for the commands, which read a kubeconfig and make a few
// JSON requests. Anything larger is kubectl's work.
package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 32 << 20

// config is the part of a kubeconfig (client.config.k8s.io/v1) that the client reads.
type config struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Server string `json:"server"`
			CAData []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			CertData []byte `json:"client-certificate-data"`
			KeyData  []byte `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

// Client talks to one API server.
type Client struct {
	server string
	caHash string
	http   *http.Client

	settings *tls.Config
}

// CAHash is the hexadecimal SHA-256 of the cluster's CA certificate, as join tokens carry it.
func (c *Client) CAHash() string { return c.caHash }

// TLS is how the client proves who it is, for a caller with connections of its own.
func (c *Client) TLS() *tls.Config { return c.settings.Clone() }

// Load reads the kubeconfig at path and returns a client for its current context.
func Load(path string) (*Client, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w; name one with --kubeconfig or KUBECONFIG", err)
	}
	var c config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("kubeconfig: %s: %w", path, err)
	}
	client, err := c.client()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %s: %w", path, err)
	}
	return client, nil
}

func (c *config) client() (*Client, error) {
	var clusterName, userName string
	for _, x := range c.Contexts {
		if x.Name == c.CurrentContext {
			clusterName, userName = x.Context.Cluster, x.Context.User
		}
	}
	if clusterName == "" {
		return nil, fmt.Errorf("there is no context %q", c.CurrentContext)
	}
	client := &Client{}
	settings := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
	for _, x := range c.Clusters {
		if x.Name == clusterName {
			client.server = x.Cluster.Server
			settings.RootCAs.AppendCertsFromPEM(x.Cluster.CAData)
			if block, _ := pem.Decode(x.Cluster.CAData); block != nil {
				sum := sha256.Sum256(block.Bytes)
				client.caHash = hex.EncodeToString(sum[:])
			}
		}
	}
	for _, x := range c.Users {
		if x.Name != userName {
			continue
		}
		pair, err := tls.X509KeyPair(x.User.CertData, x.User.KeyData)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", userName, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	if client.server == "" {
		return nil, fmt.Errorf("there is no cluster %q", clusterName)
	}
	client.settings = settings
	client.http = &http.Client{
		Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second},
		Timeout:   30 * time.Second,
	}
	return client, nil
}

// Do makes one request with in as JSON (nil: no body) and decodes the answer into out (nil: dropped). A refusal of the API is
// the *apierrors.StatusError that the server sent.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("the API server does not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return refusal(response.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func refusal(status string, body []byte) error {
	var s metav1.Status
	if err := json.Unmarshal(body, &s); err == nil && s.Message != "" {
		return &apierrors.StatusError{ErrStatus: s}
	}
	return errors.New(status)
}
