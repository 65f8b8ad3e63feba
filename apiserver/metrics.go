package apiserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the numbers that the apiserver tells of itself.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  prometheus.Gauge
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "Requests by verb, resource and status code.",
		}, []string{"verb", "resource", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "Time to answer, without long-running requests.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 5, 30},
		}, []string{"verb"}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{Name: "apiserver_watches", Help: "Watches that are open now."}),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.duration, m.watches)
	}
	return m
}

// count notes one finished request. Only served resources are named, so that a client cannot make the metrics grow.
func (m *metrics) count(req *request, code int, took time.Duration) {
	resource, verb := "", "get"
	if req.kind != nil {
		resource, verb = req.kind.GroupResource(), req.verb
	}
	m.requests.WithLabelValues(verb, resource, strconv.Itoa(code)).Inc()
	if !req.longRunning() {
		m.duration.WithLabelValues(verb).Observe(took.Seconds())
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, req *request) error {
	if s.cfg.Registry == nil {
		return errNotFound()
	}
	promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}).ServeHTTP(w, req.Request)
	return nil
}
