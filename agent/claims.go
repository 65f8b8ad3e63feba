package agent

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/transport"
)

// Keys of the desired state about volumes: the volume that a claim is bound to, and the volumes whose content is to be removed.
const (
	claimKeys    = "claims/"
	reclaimKeys  = "reclaim/"
	reclaimPause = 30 * time.Second
)

// claimed is the volume that a claim is bound to; nil: none.
func (a *Agent) claimed(namespace, name string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{}
	if value := a.db.desired(claimKeys + namespace + "/" + name); value == nil || pv.Unmarshal(value) != nil {
		return nil
	}
	return pv
}

// reclaim removes the content of a volume, as the control plane says, and tells when that is done. It says so only when the claim is
// gone and no pod uses it; nothing else ever removes a volume.
func (a *Agent) reclaim(key string) {
	name := strings.TrimPrefix(key, reclaimKeys)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db.desired(key) == nil {
		delete(a.statuses, key) // the control plane has heard of it
		return
	}
	if a.run == nil {
		return
	}
	ctx := a.run
	a.workers.Go(func() error { a.removeVolume(ctx, key, name); return nil })
}

func (a *Agent) removeVolume(ctx context.Context, key, name string) {
	for ctx.Err() == nil && a.db.desired(key) != nil {
		err := a.volumes.RemoveLocal(name)
		if err == nil {
			item := transport.Item{Key: key, Deleted: true}
			a.mu.Lock()
			a.statuses[key] = item
			report := a.report
			a.mu.Unlock()
			a.c.Logger.Info("the content of a volume is removed, for its claim is gone", "volume", name)
			if report != nil {
				report(item)
			}
			return
		}
		a.c.Logger.Warn("the content of a volume cannot be removed, trying again", "volume", name, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(reclaimPause):
		}
	}
}

// startReclaims goes on with what was not done before.
func (a *Agent) startReclaims() {
	var keys []string
	a.db.each(bucketDesired, reclaimKeys, func(key string, _ []byte) { keys = append(keys, key) })
	for _, key := range keys {
		a.reclaim(key)
	}
}
