package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

func (d *device) summary() stats.Summary {
	d.t.Helper()
	here, there := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go d.a.ServeTunnel(ctx, there)
	defer func() { _ = here.Close() }()
	q, _ := http.NewRequest(http.MethodGet, "http://node/stats/summary", nil)
	go func() { _ = q.Write(here) }()
	reply, err := http.ReadResponse(bufio.NewReader(here), q)
	if err != nil {
		d.t.Fatal(err)
	}
	var s stats.Summary
	if err := json.NewDecoder(reply.Body).Decode(&s); err != nil || reply.StatusCode != http.StatusOK {
		d.t.Fatal(reply.Status, err)
	}
	return s
}

// The first question waits for a second measurement, the next one finds one, and one that comes late waits again.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		p, idle := newPod("busy"), newPod("idle")
		d.runtime.SetUsage(string(p.UID), "main", runtime.Usage{CPU: 250 * time.Millisecond, Memory: 7 << 20, Disk: 4096})
		d.apply(set(t, p), set(t, idle))
		for _, tc := range []struct{ after, takes time.Duration }{{time.Minute, sampleGap}, {time.Minute, 0}, {time.Second, sampleGap}, {time.Hour, sampleGap}} {
			pass(tc.after)
			begin := time.Now()
			s := d.summary()
			if took := time.Since(begin); took != tc.takes {
				t.Errorf("%v after the last question, the answer took %v, not %v", tc.after, took, tc.takes)
			}
			if s.Node.NodeName != "pi-1" || s.Node.CPU == nil || s.Node.Memory.WorkingSetBytes == nil || len(s.Pods) != 2 {
				t.Fatalf("summary: %+v", s)
			}
			got := s.Pods[0]
			if got.PodRef.Name != "busy" || got.PodRef.Namespace != "default" || got.PodRef.UID != string(p.UID) || len(got.Containers) != 1 {
				t.Fatalf("pod: %+v", got)
			}
			c := got.Containers[0]
			if n := *c.CPU.UsageNanoCores; n < 249_000_000 || n > 251_000_000 || *c.Memory.WorkingSetBytes != 7<<20 || *c.Rootfs.UsedBytes != 4096 {
				t.Errorf("container: %d, %+v", n, c)
			}
		}
	})
}
