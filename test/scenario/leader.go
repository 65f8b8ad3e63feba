package scenario

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
)

// leads asks one server for its own view.
func (e *Env) leads(ctx context.Context, d *dev.Device) bool {
	out, err := e.Kubectl(ctx, "--kubeconfig", filepath.Join(d.Data, "admin.kubeconfig"), "--request-timeout=2s", "get", "--raw", "/metrics")
	return err == nil && strings.Contains("\n"+out, "\nshoal_raft_leader 1\n")
}
