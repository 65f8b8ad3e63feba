package wire

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/controllers"
	"github.com/shoal-edge/shoal/controllers/dispatch"
	"github.com/shoal-edge/shoal/pki"
)

// pace is how a quiet link shows that it is there: by heartbeats, and between them by what its kernel asks the peer's.
type pace struct {
	beat    time.Duration
	probing pki.Probing
	// silence is for how long the device may be unheard on such a link, where that is longer than the usual grace.
	silence time.Duration
}

// paces of the kinds of links. In bytes a minute, TCP/IP and TLS included, a probe and its answer are 104 and a heartbeat and
// its answer about 260 (gRPC) or 320 (MQTT): docs/links.md has the measured sums. A dead path is found within 30 s but for
// the last two.
func paceOf(c configs.Agent, link string) pace {
	p := pace{beat: 30 * time.Second, probing: pki.Probing{Idle: 12 * time.Second, Interval: 3 * time.Second, Patience: 18 * time.Second}}
	switch {
	case c.Idle == configs.IdleFrugal:
		p = pace{beat: 15 * time.Minute, probing: pki.Probing{Patience: 30 * time.Second}, silence: 35 * time.Minute}
	case link == configs.LinkMQTT && len(c.MQTT.Brokers) > 0:
		// The broker's kernel says nothing of the leader.
		p = pace{beat: 70 * time.Second, probing: pki.Probing{Patience: 30 * time.Second}, silence: 3 * time.Minute}
	case link == configs.LinkMQTT:
		p = pace{beat: 10 * time.Minute, probing: pki.Probing{Idle: 25 * time.Second, Interval: time.Second, Patience: 30 * time.Second}}
	}
	if c.Heartbeat > 0 {
		p.beat, p.silence = c.Heartbeat, 3*c.Heartbeat
	}
	return p
}

// deviceLabels are the labels that a device gives its node by itself, and those of the file, which win.
func deviceLabels(c configs.Config) map[string]string {
	labels := make(map[string]string)
	var silence time.Duration
	for _, link := range c.Agent.Links {
		silence = max(silence, paceOf(c.Agent, link).silence)
	}
	if silence > configs.DefaultNodeGrace {
		labels[controllers.SilenceLabel] = silence.String()
	}
	if lan := lanOf(c.AdvertiseAddress); lan != "" {
		labels[dispatch.LANLabel] = lan
	}
	maps.Copy(labels, c.Agent.Labels)
	return labels
}

// lanOf is the network of this device's address as a label's value, or "".
func lanOf(address string) string {
	ip := net.ParseIP(address)
	all, err := net.InterfaceAddrs()
	if err != nil || ip == nil || ip.IsLoopback() {
		return ""
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().Unmap().String() == ip.String() {
			return strings.NewReplacer("/", "_", ":", "-").Replace(prefix.Masked().String())
		}
	}
	return ""
}

// perSecond is a number of bytes; 0 is no limit.
func perSecond(text string) int {
	quantity, err := resource.ParseQuantity(text)
	if err != nil { // it is not set: what is was validated
		return 0
	}
	return int(quantity.Value())
}
