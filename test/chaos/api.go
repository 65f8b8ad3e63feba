package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const configMaps = "/api/v1/namespaces/" + namespace + "/configmaps"

// thing is what the tests read and write of an object.
type thing struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Metadata   struct {
		Name            string            `json:"name,omitempty"`
		ResourceVersion string            `json:"resourceVersion,omitempty"`
		Labels          map[string]string `json:"labels,omitempty"`
		Annotations     map[string]string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Data map[string]string `json:"data,omitempty"`
	// Of a Status.
	Reason string `json:"reason,omitempty"`
	Code   int    `json:"code,omitempty"`
}

type list struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Items []thing `json:"items"`
}

// labelPhase is what selectors look at; it follows from the value, so that a write moves the object in and out of them.
const labelPhase = "phase"

// labelRun is the part of a key before the first dash: the episode.
const labelRun = "run"

// configMap is a test's object: its value, and filler for who needs size.
func configMap(key, value string, filler int) thing {
	t := thing{APIVersion: "v1", Kind: "ConfigMap", Data: map[string]string{"value": value}}
	t.Metadata.Name = key
	run, _, _ := strings.Cut(key, "-")
	t.Metadata.Labels = map[string]string{labelPhase: phaseOf(value), labelRun: run}
	if filler > 0 {
		t.Data["filler"] = string(bytes.Repeat([]byte{'x'}, filler))
	}
	return t
}

// phaseOf is a or b, by the last letter of the value. Objects of others have no value and no phase.
func phaseOf(value string) string {
	switch {
	case value == "":
		return ""
	case value[len(value)-1]%2 == 0:
		return "a"
	}
	return "b"
}

func (t *thing) revision() uint64 {
	n, err := strconv.ParseUint(t.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// api speaks to one server over connections of its own.
type api struct {
	http *http.Client
	base string
}

func newAPI(s *Server, settings *tls.Config) *api {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &api{
		base: "https://" + net.JoinHostPort(s.Address, apiPort),
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig: settings, DialContext: dialer.DialContext, TLSHandshakeTimeout: 2 * time.Second, MaxIdleConnsPerHost: 2,
		}},
	}
}

// again makes connections of its own to the same server.
func (a *api) again() *api {
	return &api{base: a.base, http: &http.Client{Transport: a.http.Transport.(*http.Transport).Clone()}}
}

// do makes one request. An error says that there is no answer; otherwise it is the code and, for a refusal, the reason.
func (a *api) do(ctx context.Context, method, path string, in, out any) (code int, reason string, err error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return 0, "", err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := a.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return 0, "", err
	}
	if answer.StatusCode >= 300 {
		var status thing
		if err := json.Unmarshal(data, &status); err != nil {
			return 0, "", fmt.Errorf("%s: %.100s", answer.Status, data)
		}
		return answer.StatusCode, status.Reason, nil
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			return 0, "", fmt.Errorf("decode the answer: %w", err)
		}
	}
	return answer.StatusCode, "", nil
}

// neverSent reports whether a request failed before it left.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (a *api) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return data, err
}

func (a *api) metrics(ctx context.Context) (string, error) {
	text, err := a.get(ctx, "/metrics")
	return string(text), err
}

// state is a server's own view of what it holds.
type state struct {
	Leader   bool
	Revision uint64
	Objects  int
	SHA256   string
}

func (a *api) state(ctx context.Context) (st state, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	text, err := a.get(ctx, "/shoal/v1/state")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(text, &st)
}

func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return "?" + values.Encode()
}
