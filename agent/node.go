package agent

import (
	"bytes"
	"context"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apidevices "github.com/shoal-edge/shoal/api/devices"
	"github.com/shoal-edge/shoal/network"
	"github.com/shoal-edge/shoal/transport"
)

// kubeletVersion is what tools that ask for a kubelet's version may rely on.
const kubeletVersion = "v1.37.2"

// maxPods is how many pods a device takes, as kubelet's default has it.
const maxPods = 110

func (a *Agent) wakeNode() { wake(a.nodeChanged) }

// keepNode reports the node when it changes.
func (a *Agent) keepNode(ctx context.Context) {
	wait := time.Duration(0)
	for {
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.nodeChanged:
		case <-again:
		}
		if info, err := a.c.Runtime.Info(ctx); err == nil {
			a.mu.Lock()
			a.info = info
			a.mu.Unlock()
		}
		a.refreshNode()
		// containerd tells nobody when its network comes up; it does so within moments of our writing the configuration.
		switch {
		case a.networkReady() || !a.ready.Load():
			wait = 0
		default:
			wait = min(max(2*wait, 50*time.Millisecond), 10*time.Second)
		}
	}
}

func (a *Agent) networkReady() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.info.NetworkReady
}

func (a *Agent) runtimeName() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.info.Name
}

// refreshNode makes the node's report of what the device is now.
func (a *Agent) refreshNode() {
	now := metav1.NewTime(a.c.Now()).Rfc3339Copy()
	n := a.describe()
	a.mu.Lock()
	defer a.mu.Unlock()
	n.Status.NodeInfo.ContainerRuntimeVersion = a.info.Name + "://" + a.info.Version
	n.Status.Conditions = a.nodeConditions()
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		if a.node == nil {
			continue
		}
		for _, old := range a.node.Status.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
				if old.Reason == c.Reason && old.Message == c.Message {
					c.LastHeartbeatTime = old.LastHeartbeatTime // heartbeats are the link's business
				}
			}
		}
	}
	value, err := n.Marshal()
	if err != nil {
		a.c.Logger.Error("encode node", "err", err)
		return
	}
	if bytes.Equal(value, a.nodeValue) {
		return
	}
	a.node, a.nodeValue = n, value
	if a.report != nil {
		a.report(transport.Item{Key: "node", Value: value})
	}
}

func (a *Agent) describe() *corev1.Node {
	n := &corev1.Node{}
	n.Name = a.c.NodeName
	n.Labels = map[string]string{
		corev1.LabelHostname: a.c.NodeName, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
	maps.Copy(n.Labels, a.c.Labels)
	n.Status.Capacity, n.Status.Allocatable = a.capacity(), a.allocatable()
	n.Annotations = map[string]string{}
	if list := a.devices.annotation(); list != "" {
		n.Annotations[apidevices.Annotation] = list
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: a.c.NodeName}}
	if a.c.Address != "" {
		n.Status.Addresses = append([]corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: a.c.Address}}, n.Status.Addresses...)
	}
	n.Status.NodeInfo = corev1.NodeSystemInfo{
		MachineID: firstLine("/etc/machine-id"), BootID: firstLine("/proc/sys/kernel/random/boot_id"),
		SystemUUID:     strings.ToLower(firstLine("/sys/class/dmi/id/product_uuid")),
		KernelVersion:  firstLine("/proc/sys/kernel/osrelease"),
		OSImage:        osImage(),
		KubeletVersion: kubeletVersion + "+shoal", OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if a.c.Version != "" {
		n.Annotations["shoal.dev/version"] = a.c.Version
	}
	return n
}

func firstLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "Linux"
}

// capacity is what the device has.
func (a *Agent) capacity() corev1.ResourceList {
	capacity, _ := a.amounts()
	return capacity
}

// amounts are what the device has, and what is in order of it.
func (a *Agent) amounts() (capacity, usable corev1.ResourceList) {
	capacity, usable = a.devices.amounts()
	for _, list := range []corev1.ResourceList{capacity, usable} {
		a.ownAmounts(list)
	}
	return capacity, usable
}

func (a *Agent) ownAmounts(list corev1.ResourceList) {
	list[corev1.ResourceCPU] = *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI)
	list[corev1.ResourceMemory] = *resource.NewQuantity(memInfo("MemTotal"), resource.BinarySI)
	list[corev1.ResourcePods] = *resource.NewQuantity(maxPods, resource.DecimalSI)
	list[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(disk(a.c.DataDir).total, resource.BinarySI)
}

// allocatable is what pods may ask for: what the device has, without what is reserved and without what is left when pods are evicted.
func (a *Agent) allocatable() corev1.ResourceList {
	_, list := a.amounts()
	for name, kept := range map[corev1.ResourceName]int64{
		corev1.ResourceMemory: leastMemory, corev1.ResourceEphemeralStorage: disk(a.c.DataDir).total * leastDiskPart / 100,
	} {
		q := list[name]
		q.Sub(*resource.NewQuantity(kept, resource.BinarySI))
		list[name] = q
	}
	for name, reserved := range a.c.Reserved {
		q, ok := list[corev1.ResourceName(name)]
		r, err := resource.ParseQuantity(reserved)
		if !ok || err != nil {
			continue // the configuration's check refuses both
		}
		if q.Sub(r); q.Sign() < 0 {
			q = *resource.NewQuantity(0, q.Format)
		}
		list[corev1.ResourceName(name)] = q
	}
	return list
}

func memInfo(name string) int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name+":" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// nodeConditions in the order kubelet has them; the caller holds the lock.
func (a *Agent) nodeConditions() []corev1.NodeCondition {
	flag := func(kind corev1.NodeConditionType, yes bool, bad, good, badText, goodText string) corev1.NodeCondition {
		if yes {
			return corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: bad, Message: badText}
		}
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: good, Message: goodText}
	}
	pressed := func(kind corev1.NodeConditionType) bool { return !a.pressed[kind].IsZero() }
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "shoal agent is ready"}
	switch {
	case a.down:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "node is shutting down"
	case !a.ready.Load():
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "container runtime is down"
	case !a.info.Ready || !a.info.NetworkReady:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "container runtime is not ready: "+a.info.Message
	}
	return []corev1.NodeCondition{
		flag(corev1.NodeMemoryPressure, pressed(corev1.NodeMemoryPressure), "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			"the device is short of memory", "the device has enough memory"),
		flag(corev1.NodeDiskPressure, pressed(corev1.NodeDiskPressure), "KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
			"the device is short of disk", "the device has enough disk"),
		flag(corev1.NodePIDPressure, pressed(corev1.NodePIDPressure), "KubeletHasInsufficientPID", "KubeletHasSufficientPID",
			"the device is short of process ids", "the device has enough process ids"),
		ready,
	}
}

// freePIDs reads the number of threads from the load average: "0.20 0.18 0.12 1/80 11206".
func freePIDs() int64 {
	limit, err := strconv.ParseInt(firstLine("/proc/sys/kernel/pid_max"), 10, 64)
	f := strings.Fields(firstLine("/proc/loadavg"))
	if err != nil || len(f) < 4 {
		return leastPIDs
	}
	_, threads, _ := strings.Cut(f[3], "/")
	n, err := strconv.ParseInt(threads, 10, 64)
	if err != nil {
		return leastPIDs
	}
	return limit - n
}

// keepNetwork applies the pod network when what it is made from changes.
func (a *Agent) keepNetwork(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.networking:
		case <-again:
		}
		again = nil
		if !a.applyNetwork(ctx) {
			again = time.After(10 * time.Second)
		}
	}
}

// applyNetwork reports whether the network is as it should be.
func (a *Agent) applyNetwork(ctx context.Context) bool {
	if a.c.Network == nil {
		return true
	}
	if err := a.c.Network.Apply(ctx, a.networkState()); err != nil {
		if ctx.Err() == nil {
			a.c.Logger.Warn("the pod network is not complete, trying again", "err", err)
		}
		return false
	}
	a.wakeNode()
	return true
}

func (a *Agent) networkState() network.State {
	var s network.State
	own := &corev1.Node{}
	if value := a.db.desired("node"); value != nil && own.Unmarshal(value) == nil {
		s.PodCIDRs = prefixes(own)
	}
	a.db.each(bucketDesired, "peers/", func(_ string, value []byte) {
		n := &corev1.Node{}
		if n.Unmarshal(value) != nil || n.Name == a.c.NodeName {
			return
		}
		p := network.Peer{Name: n.Name, PodCIDRs: prefixes(n)}
		for _, address := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(address.Address); err == nil {
				p.Addresses = append(p.Addresses, ip)
			}
		}
		s.Peers = append(s.Peers, p)
	})
	return s
}

func prefixes(n *corev1.Node) []netip.Prefix {
	all := n.Spec.PodCIDRs
	if len(all) == 0 && n.Spec.PodCIDR != "" {
		all = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range all {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}
