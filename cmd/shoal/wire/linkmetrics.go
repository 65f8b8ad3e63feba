package wire

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-edge/shoal/transport"
)

// topDevices is how many devices have series of their own, those with most bytes: a fleet must not fill the monitoring.
const topDevices = 100

// linkMetrics tells of the links of this server while it leads. All are counted anew by each leader.
type linkMetrics struct {
	hub                     func() *transport.Hub
	devices, bytes, byOwner *prometheus.Desc
}

func newLinkMetrics(hub func() *transport.Hub) *linkMetrics {
	return &linkMetrics{
		hub:     hub,
		devices: prometheus.NewDesc("shoal_link_devices", "Devices that have a link to this server, if it leads.", nil, nil),
		bytes: prometheus.NewDesc("shoal_link_bytes_total",
			"Bytes of messages and tunnels, without what carrier and network add. Up is from devices.", []string{"direction", "kind"}, nil),
		byOwner: prometheus.NewDesc("shoal_link_device_bytes_total",
			"The same of the devices with most bytes.", []string{"device", "direction"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *linkMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.devices
	to <- m.bytes
	to <- m.byOwner
}

// Collect implements prometheus.Collector.
func (m *linkMetrics) Collect(to chan<- prometheus.Metric) {
	hub := m.hub()
	if hub == nil {
		to <- prometheus.MustNewConstMetric(m.devices, prometheus.GaugeValue, 0)
		return
	}
	to <- prometheus.MustNewConstMetric(m.devices, prometheus.GaugeValue, float64(hub.Connected()))
	all, devices := hub.Traffic(topDevices)
	for _, k := range transport.Kinds() {
		to <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(all.Up[k]), "up", k.String())
		to <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(all.Down[k]), "down", k.String())
	}
	for _, d := range devices {
		to <- prometheus.MustNewConstMetric(m.byOwner, prometheus.CounterValue, float64(d.Up), d.Device, "up")
		to <- prometheus.MustNewConstMetric(m.byOwner, prometheus.CounterValue, float64(d.Down), d.Device, "down")
	}
}
