package mqtt_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/mqtt"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestSuiteMosquitto has the servers and the devices meet at Mosquitto, configured as configs/mosquitto says.
func TestSuiteMosquitto(t *testing.T) {
	need.Command(t, "mosquitto")
	transporttest.RunOverTCP(t, func(t *testing.T) transporttest.Lab { return &mosquittoLab{lab: newLab(t)} })
}

type mosquittoLab struct{ *lab }

func (l *mosquittoLab) Listen(t *testing.T, name string, a transport.Acceptor) string {
	t.Helper()
	id, address, kill := startMosquitto(t, l.lab, name)
	joined := make(chan struct{}, 8)
	server := l.server(id, a)
	l.Run(t, address, kill, func(ctx context.Context) error {
		return server.Join(ctx, mqtt.RemoteConfig{
			Address: address, Principal: id.Leaf().Subject.CommonName, Acceptor: a, Joined: func() { joined <- struct{}{} },
			Dial: func(ctx context.Context, address string) (net.Conn, error) {
				return id.Dial(ctx, address, pki.ProtoMQTT)
			},
		})
	})
	select {
	case <-joined:
	case <-time.After(20 * time.Second):
		t.Fatal("the server did not join Mosquitto")
	}
	return address
}

// startMosquitto starts one with the documented configuration, its paths and port moved.
func startMosquitto(t *testing.T, l *lab, name string) (id *pki.Identity, address string, kill func()) {
	t.Helper()
	path := need.Command(t, "mosquitto")
	dir := t.TempDir()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := l.CA.IssueServer(name, key.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.SavePair(dir, "shoal", cert, key); err != nil {
		t.Fatal(err)
	}
	if id, err = pki.NewIdentity(l.CA.CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	write := func(file, from string, replace ...string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("../../configs/mosquitto", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.NewReplacer(replace...).Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mosquitto.conf", "mosquitto.conf", "/etc/mosquitto/", dir+"/", "listener 8883", fmt.Sprintf("listener %s 127.0.0.1\nuser root", port))
	write("shoal.acl", "acl", "server:pi-1", "server:"+name)
	if err := os.WriteFile(filepath.Join(dir, "shoal-ca.crt"), l.CA.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, "-c", filepath.Join(dir, "mosquitto.conf"))
	var output strings.Builder
	command.Stderr, command.Stdout = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	address = net.JoinHostPort("127.0.0.1", port)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("Mosquitto does not start: %v", err)
		}
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	return id, address, kill
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestTopics has a device that was taken over try what is not its own, at the embedded broker and at Mosquitto: it hears nothing
// of the others, cannot speak for them or for a server, and cannot call itself by another's name.
func TestTopics(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		l := newLab(t)
		evil := newClient(t, l.Node(t, "evil"), l.Listen(t, "server", transport.NewGate()))
		evil.attack()
		for _, why := range []mqtt.Refusal{mqtt.RefusedTopic, mqtt.RefusedName} {
			if l.refusals(why) == 0 {
				t.Errorf("nothing was counted as refused for its %s", why)
			}
		}
		if _, err := evil.connect("system:node:good"); err == nil {
			t.Error("a device was let in under another's name")
		}
	})
	t.Run("mosquitto", func(t *testing.T) {
		l := newLab(t)
		id, address, _ := startMosquitto(t, l, "server")
		good, server := newClient(t, l.Node(t, "good"), address), newClient(t, id, address)
		good.subscribe("shoal/system:node:good/d")
		server.subscribe("shoal/+/u")
		evil := newClient(t, l.Node(t, "evil"), address)
		evil.attack()
		// What is allowed comes after what was tried, and nothing comes before it.
		server.publish("shoal/system:node:good/d", "to the good one")
		good.hears("to the good one")
		good.publish("shoal/system:node:good/u", "to the server")
		server.hears("to the server")
		// Mosquitto takes the connection, under the name in the certificate: the good one is not thrown out.
		evil.connect("system:node:good")
		server.publish("shoal/system:node:good/d", "still there")
		good.hears("still there")
	})
}

// client is a plain MQTT client with a certificate.
type client struct {
	t       *testing.T
	id      *pki.Identity
	address string
	heard   chan string
	mqtt    paho.Client
}

func newClient(t *testing.T, id *pki.Identity, address string) *client {
	t.Helper()
	c := &client{t: t, id: id, address: address, heard: make(chan string, 64)}
	var err error
	if c.mqtt, err = c.connect(id.Leaf().Subject.CommonName); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) connect(name string) (paho.Client, error) {
	m := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + c.address).SetProtocolVersion(4).
		SetClientID(name).SetUsername(name).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(10 * time.Second).
		SetTLSConfig(c.id.ClientConfig(pki.ProtoMQTT)).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { c.heard <- string(m.Payload()) }))
	token := m.Connect()
	token.Wait()
	c.t.Cleanup(func() { m.Disconnect(10) })
	return m, token.Error()
}

func (c *client) subscribe(filter string) {
	c.mqtt.Subscribe(filter, 0, nil).WaitTimeout(10 * time.Second)
}

func (c *client) publish(topic, payload string) {
	c.mqtt.Publish(topic, 0, false, payload).WaitTimeout(10 * time.Second)
}

func (c *client) hears(want string) {
	c.t.Helper()
	select {
	case got := <-c.heard:
		if got != want {
			c.t.Fatalf("heard %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		c.t.Fatalf("did not hear %q", want)
	}
}

func (c *client) attack() {
	c.t.Helper()
	const own, other = "shoal/system:node:evil", "shoal/system:node:good"
	for _, filter := range []string{"#", "shoal/#", "shoal/+/d", other + "/d", other + "/u", own + "/u"} {
		c.subscribe(filter)
	}
	for _, topic := range []string{other + "/u", other + "/d", own + "/d", "shoal/u", "anything"} {
		c.publish(topic, "evil")
	}
	c.connect("system:node:good")
	c.subscribe(own + "/d") // answered after all that came before
	select {
	case got := <-c.heard:
		c.t.Fatalf("heard %q", got)
	default:
	}
}
