package dev

import (
	"context"
	"fmt"
	"net/http"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

// WaitReady waits until every device of the lab is a Ready node, and as many servers have a vote as will.
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
		return l.checkVoters(ctx, client)
	})
}

func (l *Lab) checkVoters(ctx context.Context, client *kube.Client) error {
	var members []wire.Member
	if err := client.Do(ctx, http.MethodGet, apiserver.MembersPath, nil, &members); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	voters := 0
	for _, m := range members {
		if m.Role != "spare" {
			voters++
		}
	}
	if voters != l.voters() {
		return fmt.Errorf("lab: %d servers have a vote, not %d", voters, l.voters())
	}
	return nil
}
