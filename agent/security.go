package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// What a container that is not privileged must not see of the kernel, and must not change.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func (a *Agent) containerSecurity(p *corev1.Pod, c *corev1.Container, img runtime.Image) (*criapi.LinuxContainerSecurityContext, error) {
	psc, sc := p.Spec.SecurityContext, c.SecurityContext
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	out := &criapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(p), SupplementalGroups: groups(psc),
		Privileged: deref(sc.Privileged), ReadonlyRootfs: deref(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:  sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		MaskedPaths: maskedPaths(), ReadonlyPaths: readonlyPaths(),
	}
	if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = []string{}, []string{}
	}
	user, group := first(sc.RunAsUser, psc.RunAsUser), first(sc.RunAsGroup, psc.RunAsGroup)
	switch {
	case user != nil:
		out.RunAsUser = &criapi.Int64Value{Value: *user}
	case img.UID != nil:
		out.RunAsUser = &criapi.Int64Value{Value: *img.UID}
	case img.User != "":
		out.RunAsUsername = img.User
	}
	if group != nil {
		if out.RunAsUser == nil && out.RunAsUsername == "" {
			out.RunAsUser = &criapi.Int64Value{} // CRI takes a group only with a user
		}
		out.RunAsGroup = &criapi.Int64Value{Value: *group}
	}
	if deref(first(sc.RunAsNonRoot, psc.RunAsNonRoot)) {
		if err := nonRoot(user, img); err != nil {
			return nil, err
		}
	}
	if sc.Capabilities != nil {
		out.Capabilities = &criapi.Capability{}
		for _, name := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(name))
		}
		for _, name := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(name))
		}
	}
	out.Seccomp = a.seccomp(first(sc.SeccompProfile, psc.SeccompProfile))
	out.Apparmor = a.appArmor(first(sc.AppArmorProfile, psc.AppArmorProfile))
	out.SelinuxOptions = seLinux(first(sc.SELinuxOptions, psc.SELinuxOptions))
	return out, nil
}

// impossible says what of a pod's isolation this device cannot do: running it without would be less than was asked for.
func impossible(p *corev1.Pod) error {
	if p.Spec.HostUsers != nil && !*p.Spec.HostUsers {
		return errors.New("hostUsers is false, and this device has no user namespaces for pods")
	}
	if sc := p.Spec.SecurityContext; sc != nil && sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return errors.New("supplementalGroupsPolicy is Strict, which this device's container runtime does not know")
	}
	return nil
}

func (a *Agent) appArmor(p *corev1.AppArmorProfile) *criapi.SecurityProfile {
	if p == nil {
		return nil // the runtime's profile, where the kernel has AppArmor
	}
	out := &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined}
	switch p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		out.ProfileType = criapi.SecurityProfile_RuntimeDefault
	case corev1.AppArmorProfileTypeLocalhost:
		out.ProfileType = criapi.SecurityProfile_Localhost
		if p.LocalhostProfile != nil {
			out.LocalhostRef = *p.LocalhostProfile
		}
	}
	return out
}

func seLinux(o *corev1.SELinuxOptions) *criapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &criapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func nonRoot(user *int64, img runtime.Image) error {
	switch {
	case user != nil && *user == 0:
		return errors.New("container's runAsUser breaks non-root policy")
	case user != nil:
		return nil
	case img.UID != nil && *img.UID != 0:
		return nil
	case img.User != "":
		if n, err := strconv.ParseInt(img.User, 10, 64); err != nil || n == 0 {
			return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", img.User)
		}
		return nil
	}
	return errors.New("container has runAsNonRoot and image will run as root")
}

func (a *Agent) seccomp(p *corev1.SeccompProfile) *criapi.SecurityProfile {
	out := &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined}
	if p == nil {
		if a.c.SeccompDefault {
			out.ProfileType = criapi.SecurityProfile_RuntimeDefault
		}
		return out
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		out.ProfileType = criapi.SecurityProfile_RuntimeDefault
	case corev1.SeccompProfileTypeLocalhost:
		out.ProfileType = criapi.SecurityProfile_Localhost
		if p.LocalhostProfile != nil {
			out.LocalhostRef = filepath.Join(a.c.DataDir, "seccomp", filepath.Clean("/"+*p.LocalhostProfile))
		}
	}
	return out
}

// CFS period in microseconds, and the least quota and shares the kernel takes.
const (
	cfsPeriod = 100_000
	minQuota  = 1_000
	minShares = 2
)

// resources are the container's limits in the kernel.
func (a *Agent) resources(p *corev1.Pod, c *corev1.Container) *criapi.LinuxContainerResources {
	request, limit := c.Resources.Requests[corev1.ResourceCPU], c.Resources.Limits[corev1.ResourceCPU]
	if request.IsZero() && !limit.IsZero() {
		request = limit
	}
	memory := c.Resources.Limits[corev1.ResourceMemory]
	out := &criapi.LinuxContainerResources{
		CpuPeriod:          cfsPeriod,
		CpuShares:          shares(request.MilliValue()),
		MemoryLimitInBytes: memory.Value(),
		OomScoreAdj:        a.oomScore(p, c),
	}
	if !limit.IsZero() {
		out.CpuQuota = max(limit.MilliValue()*cfsPeriod/1000, minQuota)
	}
	return out
}

// oomScore makes the kernel, when memory ends, kill first what asked for nothing, then what uses more than it asked for.
func (a *Agent) oomScore(p *corev1.Pod, c *corev1.Container) int64 {
	switch pod.QoS(p) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	memory, capacity := c.Resources.Requests[corev1.ResourceMemory], a.capacity()[corev1.ResourceMemory]
	if capacity.IsZero() {
		return 999
	}
	return min(max(1000-1000*memory.Value()/capacity.Value(), 3), 999)
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func deref(b *bool) bool { return b != nil && *b }
