package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// sandboxConfig is what the runtime is told of a pod. It depends on the pod and the attempt alone.
func (a *Agent) sandboxConfig(p *corev1.Pod, attempt uint32) (*criapi.PodSandboxConfig, error) {
	if err := impossible(p); err != nil {
		return nil, err
	}
	linux := &criapi.LinuxPodSandboxConfig{
		CgroupParent: a.podCgroup(string(p.UID)),
		SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: namespaces(p), Privileged: privileged(p),
		},
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		if len(sc.Sysctls) > 0 {
			linux.Sysctls = map[string]string{}
			for _, s := range sc.Sysctls {
				linux.Sysctls[s.Name] = s.Value
			}
		}
		linux.SecurityContext.SupplementalGroups = groups(sc)
	}
	dns, err := dnsConfig(p)
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{pod.AnnotationGrace: strconv.FormatInt(int64(pod.Grace(p).Seconds()), 10)}
	if pod.Static(p) {
		annotations[pod.AnnotationSource] = "file"
	}
	labels := map[string]string{}
	for k, v := range p.Labels {
		labels[k] = v
	}
	labels[runtime.LabelPodName], labels[runtime.LabelPodNamespace], labels[runtime.LabelPodUID] = p.Name, p.Namespace, string(p.UID)
	return &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: attempt},
		Hostname:     hostname(p),
		LogDirectory: a.podLogs(p.Namespace+"/"+p.Name, string(p.UID)),
		DnsConfig:    dns,
		Labels:       labels,
		Annotations:  annotations,
		Linux:        linux,
		PortMappings: portMappings(p),
	}, nil
}

// portMappings are the device's ports that lead to the pod.
func portMappings(p *corev1.Pod) []*criapi.PortMapping {
	if p.Spec.HostNetwork {
		return nil // its ports are the device's as they are
	}
	var all []*criapi.PortMapping
	pod.Containers(p, func(c *corev1.Container, init bool) {
		if init && !pod.Sidecar(c) {
			return
		}
		for _, port := range c.Ports {
			if port.HostPort == 0 {
				continue
			}
			m := &criapi.PortMapping{ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIp: port.HostIP}
			switch port.Protocol {
			case corev1.ProtocolUDP:
				m.Protocol = criapi.Protocol_UDP
			case corev1.ProtocolSCTP:
				m.Protocol = criapi.Protocol_SCTP
			}
			all = append(all, m)
		}
	})
	return all
}

// hostname is the name that a pod's own network has. A pod in the device's network has the device's: there is nothing to set.
func hostname(p *corev1.Pod) string {
	if p.Spec.HostNetwork {
		return ""
	}
	name := p.Name
	if p.Spec.Hostname != "" {
		name = p.Spec.Hostname
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// podLogs is the folder of a pod's container logs; name is namespace/name.
func (a *Agent) podLogs(name, uid string) string {
	return filepath.Join(a.logDir, strings.Replace(name, "/", "_", 1)+"_"+uid)
}

func (a *Agent) podCgroup(uid string) string { return filepath.Join(a.c.CgroupParent, "pod"+uid) }

// removeFiles removes what a pod leaves on this device: volumes, logs and its (now empty) cgroups.
func (a *Agent) removeFiles(name, uid string) error {
	for _, root := range a.cgroupRoots() {
		_ = os.Remove(filepath.Join(root, a.podCgroup(uid))) // the kernel refuses while something runs in it
	}
	if err := a.volumes.TearDown(uid); err != nil {
		return err
	}
	return os.RemoveAll(a.podLogs(name, uid))
}

// traces are the pods that have files on this device, with their namespace/name where that is known.
func (a *Agent) traces() map[string]string {
	found := map[string]string{}
	for _, e := range entries(a.volumes.Root) {
		found[e] = ""
	}
	for _, e := range entries(a.logDir) {
		if p := strings.SplitN(e, "_", 3); len(p) == 3 {
			found[p[2]] = strings.Trim(p[0]+"/"+p[1], "/")
		}
	}
	return found
}

// entries are the names in a folder; none when it cannot be read.
func entries(dir string) []string {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(all))
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func namespaces(p *corev1.Pod) *criapi.NamespaceOption {
	n := &criapi.NamespaceOption{Network: criapi.NamespaceMode_POD, Pid: criapi.NamespaceMode_CONTAINER, Ipc: criapi.NamespaceMode_POD}
	if p.Spec.HostNetwork {
		n.Network = criapi.NamespaceMode_NODE
	}
	if p.Spec.HostPID {
		n.Pid = criapi.NamespaceMode_NODE
	} else if p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace {
		n.Pid = criapi.NamespaceMode_POD
	}
	if p.Spec.HostIPC {
		n.Ipc = criapi.NamespaceMode_NODE
	}
	return n
}

func privileged(p *corev1.Pod) bool {
	found := false
	pod.Containers(p, func(c *corev1.Container, _ bool) {
		found = found || c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	})
	return found
}

func groups(sc *corev1.PodSecurityContext) []int64 {
	g := slices.Clone(sc.SupplementalGroups)
	if sc.FSGroup != nil {
		g = append(g, *sc.FSGroup)
	}
	return g
}

// dnsConfig is the pod's resolv.conf; nil: that of the device. Cluster names come with services.
func dnsConfig(p *corev1.Pod) (*criapi.DNSConfig, error) {
	if p.Spec.DNSConfig == nil && p.Spec.DNSPolicy != corev1.DNSNone {
		return nil, nil
	}
	d := &criapi.DNSConfig{}
	if p.Spec.DNSPolicy != corev1.DNSNone {
		data, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			switch {
			case len(f) < 2:
			case f[0] == "nameserver":
				d.Servers = append(d.Servers, f[1])
			case f[0] == "search":
				d.Searches = f[1:]
			case f[0] == "options":
				d.Options = append(d.Options, f[1:]...)
			}
		}
	}
	if more := p.Spec.DNSConfig; more != nil {
		d.Servers = append(d.Servers, more.Nameservers...)
		d.Searches = append(d.Searches, more.Searches...)
		for _, o := range more.Options {
			option := o.Name
			if o.Value != nil {
				option += ":" + *o.Value
			}
			d.Options = append(d.Options, option)
		}
	}
	return d, nil
}
