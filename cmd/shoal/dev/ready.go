package dev

import (
	"context"
	"fmt"
	"net/http"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
)

// WaitReady waits until every device of the lab is a Ready node.
func (l *Lab) WaitReady(ctx context.Context) error {
	client, err := kube.Load(l.Kubeconfig())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return wait(ctx, func() error {
		var nodes struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					Conditions []struct{ Type, Status string }
				}
			}
		}
		if err := client.Do(ctx, http.MethodGet, "/api/v1/nodes", nil, &nodes); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		ready := map[string]bool{}
		for _, n := range nodes.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == "Ready" {
					ready[n.Metadata.Name] = c.Status == "True"
				}
			}
		}
		for _, d := range l.devices {
			if !ready[d.Name] {
				return fmt.Errorf("lab: node %s is not ready; see %s", d.Name, d.ShoalLog())
			}
		}
		return nil
	})
}
