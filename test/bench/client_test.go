package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/test/site"
)

const configMaps = "/api/v1/namespaces/default/configmaps"

// conn is a client with one connection that it keeps. It does little itself, since it shares the machine with what is measured.
type conn struct {
	net.Conn
	in  *bufio.Reader
	out bytes.Buffer
}

func dial(ctx context.Context, address string, settings *tls.Config) (*conn, error) {
	d := tls.Dialer{Config: settings}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, in: bufio.NewReader(c)}, nil
}

// dial makes the connections of so many clients, at the given servers in turn.
func (c *cluster) dial(b *testing.B, at []*site.Member, clients int) []*conn {
	b.Helper()
	conns := make([]*conn, clients)
	var dialling errgroup.Group
	dialling.SetLimit(64)
	for i := range conns {
		dialling.Go(func() (err error) {
			conns[i], err = dial(b.Context(), at[i%len(at)].Address, c.tls)
			return err
		})
	}
	if err := dialling.Wait(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}

// watch begins a watch and returns its events, line by line.
func (c *conn) watch(path string) (*bufio.Reader, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: shoal\r\n\r\n", path); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return bufio.NewReaderSize(answer.Body, 1<<10), nil
}

// post makes an object.
func (c *conn) post(path, media string, body []byte) error {
	return c.send(http.MethodPost, path, media, body, http.StatusCreated)
}

// send sends a request and reads the answer to its end.
func (c *conn) send(method, path, accept string, body []byte, want int) error {
	c.out.Reset()
	fmt.Fprintf(&c.out, "%s %s HTTP/1.1\r\nHost: shoal\r\nContent-Type: %s\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n", method, path, accept, accept, len(body))
	c.out.Write(body)
	if _, err := c.Write(c.out.Bytes()); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// media are the forms in which an object can be sent, and how to write one of a name with so many bytes of data.
var media = []struct {
	name, contentType string
	encode            func(name string, size int) ([]byte, error)
}{
	{"json", "application/json", func(name string, size int) ([]byte, error) {
		return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"value":%q}}`, name, strings.Repeat("x", size)), nil
	}},
	{"protobuf", runtime.ContentTypeProtobuf, func(name string, size int) ([]byte, error) {
		raw, err := (&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"value": strings.Repeat("x", size)}}).Marshal()
		if err != nil {
			return nil, err
		}
		body, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Raw: raw}).Marshal()
		return append([]byte("k8s\x00"), body...), err
	}},
}
