package wire

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver/audit"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport/mqtt"
)

// brokerDialer returns how a process reaches brokers: the servers' own and such with a server's certificate, or, with a file
// of authorities, those that have a certificate for their name from one of them.
func brokerDialer(id *pki.Identity, caFile string, p pki.Probing) (func(ctx context.Context, address string) (net.Conn, error), error) {
	if caFile == "" {
		return func(ctx context.Context, address string) (net.Conn, error) {
			return id.DialLink(ctx, address, pki.ProtoMQTT, p)
		}, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("caFile: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("caFile: there is no certificate in %s", caFile)
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return id.DialNamed(ctx, address, roots, pki.ProtoMQTT, p)
	}, nil
}

// mqttCarrier is the link over MQTT, at the brokers of the configuration or at the servers' own.
func (a *Agent) mqttCarrier(id *identity, servers []string) (*mqtt.Client, error) {
	settings := a.o.Config.Agent.MQTT
	p := paceOf(a.o.Config.Agent, configs.LinkMQTT)
	dial, err := brokerDialer(id.node, settings.CAFile, p.probing)
	if err != nil {
		return nil, fmt.Errorf("agent.mqtt.%w", err)
	}
	if settings.CAFile == "" {
		dial = id.linkBy(pki.ProtoMQTT, p.probing)
	}
	if len(settings.Brokers) > 0 {
		servers = settings.Brokers
	}
	return mqtt.NewClient(mqtt.ClientConfig{
		Device: a.o.Config.NodeName, Principal: id.node.Leaf().Subject.CommonName, Servers: servers, Fixed: len(settings.Brokers) > 0,
		Dial: dial, Beat: p.beat, Keys: id.node.Signer(pki.RoleServer), Logger: a.o.Logger,
	}), nil
}

// openMQTT makes this server's end of the links over MQTT.
func (s *Server) openMQTT(ctx context.Context) error {
	var err error
	settings := s.o.Config.Server.MQTT
	if s.dialBroker, err = brokerDialer(s.id.server, settings.CAFile, pki.Probing{Idle: time.Minute, Interval: 5 * time.Second}); err != nil {
		return fmt.Errorf("server.mqtt.%w", err)
	}
	if settings.Listen != "" {
		if s.mqttTCP, err = listen(ctx, settings.Listen, "server.mqtt.listen"); err != nil {
			return err
		}
		s.mqttMux = pki.NewMux(s.mqttTCP, s.id.server, s.o.Logger)
		for _, other := range []net.Listener{s.mqttMux.API(), s.mqttMux.Link(), s.mqttMux.Raft(), s.mqttMux.Join()} {
			_ = other.Close() // this port is for MQTT alone
		}
	}
	refusals := newRefusals(s.registry, s.audit, s.o.Logger)
	s.mqtt = mqtt.NewServer(mqtt.ServerConfig{
		Acceptor: s.gate, Device: deviceOf, Keys: s.id.server.Signer(pki.RoleAgent), Refused: refusals.note, Logger: s.o.Logger,
	})
	return nil
}

func (s *Server) closeMQTT() {
	if s.mqttTCP != nil {
		_ = s.mqttTCP.Close()
	}
}

// joinBroker serves the devices at a broker elsewhere, while this server leads.
func (s *Server) joinBroker(ctx context.Context, address string) error {
	return s.mqtt.Join(ctx, mqtt.RemoteConfig{
		Address: address, Principal: s.id.server.Leaf().Subject.CommonName, Dial: s.dialBroker, Acceptor: s.gate,
	})
}

// refusals counts and records what was refused of the links: replays, frames of older sessions, forgeries.
type refusals struct {
	counts *prometheus.CounterVec
	audit  *audit.Log // nil: nothing is recorded
	logger *slog.Logger
	limit  *rate.Limiter // of the log and the records; the counter counts all
}

func newRefusals(registry *prometheus.Registry, log *audit.Log, logger *slog.Logger) *refusals {
	r := &refusals{
		counts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_link_refused_total", Help: "Frames that were refused, by carrier and reason.",
		}, []string{"carrier", "reason"}),
		audit: log, logger: logger, limit: rate.NewLimiter(1, 10),
	}
	for _, why := range mqtt.Refusals() {
		r.counts.WithLabelValues("mqtt", string(why))
	}
	registry.MustRegister(r.counts)
	return r
}

func (r *refusals) note(principal string, why mqtt.Refusal) {
	r.counts.WithLabelValues("mqtt", string(why)).Inc()
	if !r.limit.Allow() {
		return
	}
	r.logger.Warn("refused a frame of a link", "carrier", "mqtt", "principal", principal, "reason", why)
	if r.audit == nil {
		return
	}
	r.audit.Record(&audit.Event{
		AuditID: uuid.NewString(), Stage: audit.StageComplete, RequestURI: "/link/mqtt", Verb: "link",
		User:           authenticationv1.UserInfo{Username: principal},
		ResponseStatus: &audit.Status{Code: http.StatusForbidden}, RequestReceived: metav1.NewMicroTime(time.Now()),
		Annotations: map[string]string{"link.shoal.dev/refused": string(why)},
	})
}
