package agent

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// containerConfig is what the runtime is told of a container. It makes the files that the container mounts.
func (a *Agent) containerConfig(
	ctx context.Context, p *corev1.Pod, c *corev1.Container, action pod.Action, sandbox runtime.Sandbox, img runtime.Image,
) (*criapi.ContainerConfig, error) {
	facts := a.facts(p, sandbox.IPs)
	env, err := pod.Env(p, c, a, facts)
	if err != nil {
		return nil, err
	}
	hardware, err := a.inject(ctx, p, c)
	if err != nil {
		return nil, err
	}
	env = hardware.withDevices(env)
	security, err := a.containerSecurity(p, c, img)
	if err != nil {
		return nil, err
	}
	mounts, err := a.volumes.Mounts(p, c, env)
	if err != nil {
		return nil, err
	}
	mounts, err = a.ownMounts(mounts, p, c, action, sandbox)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(a.podLogs(p.Namespace+"/"+p.Name, string(p.UID)), c.Name), 0o755); err != nil {
		return nil, err
	}
	config := &criapi.ContainerConfig{
		Metadata:   &criapi.ContainerMetadata{Name: c.Name, Attempt: action.Attempt},
		Image:      &criapi.ImageSpec{Image: img.ID, UserSpecifiedImage: c.Image},
		Command:    pod.Expand(c.Command, env),
		Args:       pod.Expand(c.Args, env),
		WorkingDir: c.WorkingDir,
		Mounts:     append(mounts, hardware.mounts...),
		Devices:    hardware.devices,
		Labels: map[string]string{
			runtime.LabelPodName: p.Name, runtime.LabelPodNamespace: p.Namespace, runtime.LabelPodUID: string(p.UID),
			runtime.LabelContainerName: c.Name,
		},
		Annotations: map[string]string{pod.AnnotationBackoff: action.Backoff.String(), pod.AnnotationImage: c.Image, pod.AnnotationResources: pod.Size(c)},
		LogPath:     filepath.Join(c.Name, strconv.FormatUint(uint64(action.Attempt), 10)+".log"),
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &criapi.LinuxContainerConfig{Resources: a.resources(p, c), SecurityContext: security},
	}
	maps.Copy(config.Annotations, hardware.annotations)
	if claims := a.devices.claimsText(string(p.UID) + "/" + c.Name); claims != "" {
		config.Annotations[annotationClaims] = claims
	}
	for _, name := range hardware.cdi {
		config.CDIDevices = append(config.CDIDevices, &criapi.CDIDevice{Name: name})
	}
	for _, v := range env {
		config.Envs = append(config.Envs, &criapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return config, nil
}

func (a *Agent) facts(p *corev1.Pod, ips []string) pod.Facts {
	if p.Spec.HostNetwork && a.c.Address != "" {
		ips = []string{a.c.Address}
	}
	f := pod.Facts{NodeName: a.c.NodeName, HostIP: a.c.Address, PodIPs: ips, Allocatable: a.allocatable()}
	if servers := a.Servers(); len(servers) > 0 {
		f.Server = servers[0]
	}
	return f
}

// ownMounts adds /etc/hosts and the file for the termination message, where the pod does not mount over them.
func (a *Agent) ownMounts(
	mounts []*criapi.Mount, p *corev1.Pod, c *corev1.Container, action pod.Action, sandbox runtime.Sandbox,
) ([]*criapi.Mount, error) {
	taken := map[string]bool{}
	for _, m := range mounts {
		taken[m.ContainerPath] = true
	}
	dir := a.volumes.Dir(string(p.UID))
	if hosts := filepath.Join(dir, "etc-hosts"); !taken["/etc/hosts"] {
		if err := writeHosts(hosts, a.hostsFile(p, sandbox.IPs)); err != nil {
			return nil, fmt.Errorf("/etc/hosts: %w", err)
		}
		mounts = append(mounts, &criapi.Mount{HostPath: hosts, ContainerPath: "/etc/hosts"})
	}
	target := c.TerminationMessagePath
	if target == "" {
		target = corev1.TerminationMessagePathDefault
	}
	if !taken[target] {
		file := a.terminationFile(string(p.UID), c.Name, action.Attempt)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, nil, 0o666); err != nil {
			return nil, err
		}
		if err := os.Chmod(file, 0o666); err != nil { // whoever the container runs as writes to it
			return nil, err
		}
		mounts = append(mounts, &criapi.Mount{HostPath: file, ContainerPath: target})
	}
	return mounts, nil
}

// writeHosts writes in place: the file is mounted in running containers, which would not see another one of its name.
func writeHosts(file string, data []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func (a *Agent) hostsFile(p *corev1.Pod, ips []string) []byte {
	var b bytes.Buffer
	if p.Spec.HostNetwork {
		if data, err := os.ReadFile("/etc/hosts"); err == nil {
			b.WriteString("# Kubernetes-managed hosts file (host network).\n")
			b.Write(data)
		}
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			_, _ = fmt.Fprintf(&b, "%s\t%s\n", ip, hostname(p))
		}
	}
	if len(p.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, alias := range p.Spec.HostAliases {
		_, _ = fmt.Fprintf(&b, "%s", alias.IP)
		for _, name := range alias.Hostnames {
			_, _ = fmt.Fprintf(&b, "\t%s", name)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
