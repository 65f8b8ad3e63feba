package mqtt

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// brokerConfig is what a connection to a broker needs.
type brokerConfig struct {
	principal, address string
	dial               func(ctx context.Context, address string) (net.Conn, error)
	subscribe          string
	will               will // none without a topic
	take               func(topic string, payload []byte)
	lost               func(error)
}

// will is what a broker says in a client's name when the client is gone.
type will struct {
	topic   string
	payload []byte
}

// broker is a connection to a broker, as one of its clients.
type broker struct {
	client paho.Client

	mu     sync.Mutex
	conn   net.Conn
	closed bool
	failed error // of dialling
}

// dialBroker connects and subscribes. ctx bounds that only.
func dialBroker(ctx context.Context, cfg brokerConfig) (*broker, error) {
	b := new(broker)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := func(err error) {
		cancel(fmt.Errorf("the broker closed the connection: %w", err))
		cfg.lost(err)
	}
	o := paho.NewClientOptions().AddBroker("mqtts://" + cfg.address).SetProtocolVersion(4).
		SetClientID(cfg.principal).SetUsername(cfg.principal).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectRetry(false).SetOrderMatters(true).
		SetKeepAlive(keepAlive).SetPingTimeout(brokerTime).SetConnectTimeout(brokerTime).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
			conn, err := cfg.dial(ctx, cfg.address)
			if err != nil {
				b.refuse(err)
				return nil, err
			}
			return &watched{Conn: conn, lost: lost}, b.keep(conn)
		}).
		SetConnectionLostHandler(func(_ paho.Client, err error) { lost(err) }). // it has not read for too long
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { cfg.take(m.Topic(), m.Payload()) })
	if cfg.will.topic != "" {
		o.SetBinaryWill(cfg.will.topic, cfg.will.payload, 0, false)
	}
	b.client = paho.NewClient(o)
	stop := context.AfterFunc(ctx, b.close)
	defer stop()
	if err := wait(ctx, b.client.Connect()); err != nil {
		b.close()
		return nil, b.reason(err)
	}
	token := b.client.Subscribe(cfg.subscribe, 0, nil)
	err := wait(ctx, token)
	if err == nil && token.(*paho.SubscribeToken).Result()[cfg.subscribe] > 2 { // until it has ended, the library may be writing the result
		err = fmt.Errorf("the broker refuses the topic %s", cfg.subscribe)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// keep notes the connection, so that it can be cut.
func (b *broker) keep(conn net.Conn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = conn.Close()
		return net.ErrClosed
	}
	b.conn = conn
	return nil
}

func (b *broker) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = err
}

// reason is the dialler's own error, if there is one: the client library says "network error" only.
func (b *broker) reason(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return b.failed
	}
	return err
}

// publish writes a message to the broker and returns when the connection has taken it. It goes past the client library, whose
// own way waits for half a minute when the connection ends meanwhile; one write is one packet, so that the two do not mix.
func (b *broker) publish(topic string, payload []byte) error {
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	if conn == nil {
		return net.ErrClosed
	}
	packet := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	packet.TopicName, packet.Payload = topic, payload
	return packet.Write(conn)
}

// close cuts the connection at once, whatever the broker does.
func (b *broker) close() {
	b.mu.Lock()
	conn, was := b.conn, b.closed
	b.closed = true
	b.mu.Unlock()
	if was {
		return
	}
	if conn != nil {
		cut(conn)
	}
	// It ends the client's goroutines, and says nothing on a connection that is closed. It waits for one that may be here.
	go b.client.Disconnect(0)
}

func wait(ctx context.Context, token paho.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
