package agent

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the agent counts. They are the agent's own, not the process's, so that many agents fit one process.
type metrics struct {
	containers, restarts, pulls, evictions prometheus.Counter
	started                                prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "shoal", Subsystem: "agent", Name: name, Help: help})
	}
	return &metrics{
		containers: counter("containers_started_total", "Containers started."),
		restarts:   counter("containers_restarted_total", "Containers started again after they ended."),
		pulls:      counter("images_pulled_total", "Images pulled."),
		evictions:  counter("pods_evicted_total", "Pods ended because the device was short of something, or because they had too much of it."),
		started: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "shoal", Subsystem: "agent", Name: "pod_start_seconds",
			Help:    "Time from a pod's arrival on the device to all its containers running.",
			Buckets: []float64{.1, .15, .2, .25, .35, .5, 1, 2, 5, 10, 30, 60, 300},
		}),
	}
}

// Collectors are the agent's metrics, for the process's registry.
func (a *Agent) Collectors() []prometheus.Collector {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "shoal", Subsystem: "agent", Name: name, Help: help}, f)
	}
	return []prometheus.Collector{
		a.metrics.containers, a.metrics.restarts, a.metrics.pulls, a.metrics.evictions, a.metrics.started,
		gauge("pods", "Pods on this device.", func() float64 {
			a.mu.Lock()
			defer a.mu.Unlock()
			return float64(len(a.pods))
		}),
		gauge("runtime_up", "1 when the container runtime answers.", func() float64 {
			if a.ready.Load() {
				return 1
			}
			return 0
		}),
		gauge("boots", "Boots of this device, counted by the agent.", func() float64 { return float64(a.db.boots()) }),
	}
}
