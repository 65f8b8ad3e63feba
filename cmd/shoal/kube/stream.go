package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Server is the URL of the API server.
func (c *Client) Server() string { return c.server }

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Stream makes one request whose body, of the given size, or whose answer is too large for memory, and too slow for a limit on
// its time as a whole. The caller closes the answer's body. A refusal of the API is the *apierrors.StatusError that the server sent.
func (c *Client) Stream(ctx context.Context, method, path string, body io.Reader, size int64) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.ContentLength = size
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set("Expect", "100-continue") // a refusal should not wait for all of it
	}
	unlimited := *c.http
	unlimited.Timeout = 0
	response, err := unlimited.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the API server does not answer: %w", err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return nil, refusal(response.Status, data)
}
