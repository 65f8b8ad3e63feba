package wire

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-edge/shoal/raft"
)

// registerRaftMetrics tells what a person asks first about a control plane: who leads, and whether there is a leader.
func registerRaftMetrics(r *prometheus.Registry, node interface {
	IsLeader() bool
	Leader() (id, address string, ok bool)
	Servers() []raft.Server
	OnProbation() bool
},
) {
	number := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_raft_leader", Help: "1 while this server leads.",
		}, func() float64 { return number(node.IsLeader()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_raft_probation", Help: "1 while this server lacks what it knew, or is new, and copies it from the others.",
		}, func() float64 { return number(node.OnProbation()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_raft_has_leader", Help: "1 while this server knows a leader.",
		}, func() float64 {
			_, _, ok := node.Leader()
			return number(ok || node.IsLeader())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shoal_raft_voters", Help: "How many servers have a vote, as far as this server knows.",
		}, func() float64 {
			voters := 0
			for _, s := range node.Servers() {
				if s.Voter {
					voters++
				}
			}
			return float64(voters)
		}),
	)
}
