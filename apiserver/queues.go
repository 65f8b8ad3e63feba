package apiserver

import "github.com/shoal-edge/shoal/apiserver/fairness"

func newQueue(cfg Config, total int) *fairness.Queue {
	return fairness.New(fairness.Config{Total: total, Waiting: 2 * total, Wait: cfg.QueueWait})
}

// queueOf is where a request waits for its turn, before anything is asked or read for it. Devices and those who elect a leader by a
// Lease wait for no other client; servers, and what may last, wait for nobody.
func (s *Server) queueOf(req *request) *fairness.Queue {
	if req.longRunning() || req.user.in(groupServers) || req.URL.Path == SnapshotPath {
		return nil
	}
	if _, isNode := req.user.Node(); isNode || req.gv.Group == "coordination.k8s.io" && req.resource == "leases" {
		return s.system
	}
	return s.shared
}
