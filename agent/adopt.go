package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// annotationClaims, on a container, has the claims with which it was made, by the id of the device. The database is what counts; this
// is for the day on which it is damaged, as a container that runs must not lose its device to another one.
const annotationClaims = "shoal.dev/claims"

// claimsText is a container's claims as its annotation has them; "" for none.
func (d *devices) claimsText(owner string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := map[string]claim{}
	for id, c := range d.claims {
		if c.Owner == owner {
			mine[id] = c
		}
	}
	if len(mine) == 0 {
		return ""
	}
	data, _ := json.Marshal(mine) // strings and numbers
	return string(data)
}

// adoptClaims takes the claims of containers that run, where the database does not know them. It comes before any pod may start.
func (a *Agent) adoptClaims(ctx context.Context) error {
	pods, err := a.c.Runtime.Pods(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		for _, c := range p.Containers {
			var list map[string]claim
			if c.State != runtime.Running || json.Unmarshal([]byte(c.Annotations[annotationClaims]), &list) != nil {
				continue
			}
			if err := a.devices.adopt(c.PodUID+"/"+c.Name, list); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *devices) adopt(owner string, list map[string]claim) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	newest := uint64(0)
	for id, c := range list {
		if _, known := d.claims[id]; known || id == "" || strings.HasPrefix(id, allocationPrefix) || strings.HasPrefix(id, pluginPrefix) {
			continue
		}
		c.Owner, newest = owner, max(newest, c.Epoch)
		if err := d.db.put(bucketDevices, map[string][]byte{id: c.encode()}); err != nil {
			return fmt.Errorf("adopt the claim on device %s: %w", id, err)
		}
		d.claims[id] = c
		d.logger.Warn("a container has a device that the database does not know of; it keeps it", "device", id, "owner", owner)
	}
	return d.db.hear(newest)
}
