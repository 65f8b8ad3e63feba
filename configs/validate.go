package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	podsecurity "k8s.io/pod-security-admission/api"
)

func (c *Config) validate() error {
	if msgs := validation.IsDNS1123Subdomain(c.NodeName); len(msgs) > 0 {
		return fmt.Errorf("nodeName %q: %s", c.NodeName, msgs[0])
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("dataDir %q must be an absolute path", c.DataDir)
	}
	if _, err := netip.ParseAddr(c.AdvertiseAddress); err != nil {
		return fmt.Errorf("advertiseAddress %q must be an IP address", c.AdvertiseAddress)
	}
	for _, s := range c.Join.Servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return fmt.Errorf("join.servers: %q must be host:port, such as 10.0.0.1:6443", s)
		}
	}
	if c.Join.Token != "" && c.Join.TokenFile != "" {
		return fmt.Errorf("join.token and join.tokenFile are both set; keep one")
	}
	for _, check := range []func() error{c.Server.validate, c.Agent.validate, c.Log.validate} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) validate() error {
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		return fmt.Errorf("server.listen %q must be host:port, such as %s", s.Listen, DefaultListen)
	}
	prefix, err := netip.ParsePrefix(s.PodCIDR)
	if err != nil || prefix.Masked() != prefix || !prefix.Addr().Is4() {
		return fmt.Errorf("server.podCIDR %q must be an IPv4 network, such as %s", s.PodCIDR, DefaultPodCIDR)
	}
	if s.NodeBits <= prefix.Bits() || s.NodeBits > 28 {
		return fmt.Errorf("server.nodeBits %d must be above the %d bits of podCIDR and at most 28", s.NodeBits, prefix.Bits())
	}
	services, err := netip.ParsePrefix(s.ServiceCIDR)
	switch {
	case err != nil || services.Masked() != services || services.Bits() > services.Addr().BitLen()-2:
		return fmt.Errorf("server.serviceCIDR %q must be a network of at least four addresses, such as %s", s.ServiceCIDR, DefaultServiceCIDR)
	case services.Overlaps(prefix):
		return fmt.Errorf("server.serviceCIDR %s and server.podCIDR %s overlap", services, prefix)
	}
	if _, _, err := s.NodePortRange(); err != nil {
		return err
	}
	if s.SecretsKeyFile != "" && !filepath.IsAbs(s.SecretsKeyFile) {
		return fmt.Errorf("server.secretsKeyFile %q must be an absolute path", s.SecretsKeyFile)
	}
	if a := s.Audit; a.File != "" && !filepath.IsAbs(a.File) {
		return fmt.Errorf("server.audit.file %q must be an absolute path", a.File)
	} else if a.PolicyFile != "" && (!filepath.IsAbs(a.PolicyFile) || a.File == "") {
		return fmt.Errorf("server.audit.policyFile %q must be an absolute path, and server.audit.file be set", a.PolicyFile)
	} else if a.MaxSizeMB < 1 || a.MaxFiles < 1 {
		return fmt.Errorf("server.audit: maxSizeMB %d and maxFiles %d must be at least 1", a.MaxSizeMB, a.MaxFiles)
	}
	if _, errs := podsecurity.PolicyToEvaluate(s.PodSecurity.Labels(), podsecurity.Policy{}); len(errs) > 0 {
		return fmt.Errorf("server.podSecurity: %s %s", errs[0].BadValue, errs[0].Detail)
	}
	if s.Voters != 1 && s.Voters != 3 && s.Voters != 5 {
		return fmt.Errorf("server.voters %d must be 1, 3 or 5", s.Voters)
	}
	if s.MQTT.Listen != "" {
		if _, _, err := net.SplitHostPort(s.MQTT.Listen); err != nil {
			return fmt.Errorf("server.mqtt.listen %q must be host:port, such as 0.0.0.0:8883", s.MQTT.Listen)
		}
	}
	if err := validateBrokers("server.mqtt", s.MQTT.Brokers, s.MQTT.CAFile); err != nil {
		return err
	}
	return atLeast(
		limit{"server.nodeGrace", s.NodeGrace, time.Second},
		limit{"server.replaceAfter", s.ReplaceAfter, time.Second},
		limit{"server.electionTimeout", s.ElectionTimeout, 100 * time.Millisecond},
		limit{"server.voterGrace", s.VoterGrace, time.Second},
	)
}

// NodePortRange is the first and the last port of NodePorts.
func (s *Server) NodePortRange() (first, last int32, err error) {
	from, to, ok := strings.Cut(s.NodePorts, "-")
	if a, err := strconv.ParseUint(from, 10, 16); ok && err == nil && a > 0 {
		if b, err := strconv.ParseUint(to, 10, 16); err == nil && b >= a {
			return int32(a), int32(b), nil
		}
	}
	return 0, 0, fmt.Errorf("server.nodePorts %q must be a range of ports, such as %s", s.NodePorts, DefaultNodePorts)
}

func (f *Firmware) validate() error {
	if err := absolute("agent.firmware.artifacts", f.Artifacts); err != nil {
		return err
	}
	if f.Backend == "" && f.HardwareID == "" {
		return nil
	}
	switch {
	case f.HardwareID == "" || len(validation.IsValidLabelValue(f.HardwareID)) > 0:
		return fmt.Errorf("agent.firmware.hardwareID %q must be set, as a label's value", f.HardwareID)
	case f.Root != "" && !filepath.IsAbs(f.Root):
		return fmt.Errorf("agent.firmware.root %q must be an absolute path", f.Root)
	case f.Tries < 0 || f.Tries > 100:
		return fmt.Errorf("agent.firmware.tries %d must be from 1 to 100", f.Tries)
	}
	if err := checkRate("agent.firmware.rate", f.Rate); err != nil {
		return err
	}
	switch f.Backend {
	case "uboot":
		return f.UBoot.validate()
	case "tryboot":
		return f.Tryboot.validate()
	case "systemd-boot":
		return f.SystemdBoot.validate()
	case "rauc":
		if f.RAUC.Config != "" {
			return absolute("agent.firmware.rauc.config", f.RAUC.Config)
		}
		return nil
	case "self":
		return absolute("agent.firmware.self.dir", f.Self.Dir)
	}
	return fmt.Errorf("agent.firmware.backend %q must be uboot, tryboot, systemd-boot, rauc or self", f.Backend)
}

// checkRate checks a number of bytes a second; an empty one is no limit.
func checkRate(name, text string) error {
	if q, err := resource.ParseQuantity(text); text != "" && (err != nil || q.Value() < 1024 || q.Value() > 1<<30) {
		return fmt.Errorf("%s %q must be a quantity between 1Ki and 1Gi, in bytes a second", name, text)
	}
	return nil
}

func (u *UBoot) validate() error {
	if len(u.Environment) < 1 || len(u.Environment) > 2 {
		return fmt.Errorf("agent.firmware.uboot.environment must have one or two copies, as /etc/fw_env.config has")
	}
	return errors.Join(absolute("agent.firmware.uboot.slotA", u.SlotA), absolute("agent.firmware.uboot.slotB", u.SlotB))
}

func (t *Tryboot) validate() error {
	if t.SlotA.BootPartition < 1 || t.SlotB.BootPartition < 1 || t.SlotA.BootPartition == t.SlotB.BootPartition {
		return fmt.Errorf("agent.firmware.tryboot: slotA and slotB must have a bootPartition each, as autoboot.txt numbers them")
	}
	return errors.Join(absolute("agent.firmware.tryboot.autoboot", t.Autoboot),
		absolute("agent.firmware.tryboot.slotA.path", t.SlotA.Path), absolute("agent.firmware.tryboot.slotB.path", t.SlotB.Path))
}

func (b *SystemdBoot) validate() error {
	for name, slot := range map[string]SystemdBootSlot{"a": b.SlotA, "b": b.SlotB} {
		if !slices.Contains(strings.Fields(slot.Entry), "shoal.slot="+name) {
			return fmt.Errorf("agent.firmware.systemdBoot: the entry of slot %s must have shoal.slot=%[1]s in its options", name)
		}
	}
	return errors.Join(absolute("agent.firmware.systemdBoot.entries", b.Entries),
		absolute("agent.firmware.systemdBoot.slotA.path", b.SlotA.Path), absolute("agent.firmware.systemdBoot.slotB.path", b.SlotB.Path))
}

func absolute(key, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s %q must be an absolute path", key, path)
	}
	return nil
}

func (a *Agent) validate() error {
	if err := a.Firmware.validate(); err != nil {
		return err
	}
	if a.Listen != "" {
		if _, _, err := net.SplitHostPort(a.Listen); err != nil {
			return fmt.Errorf("agent.listen %q must be host:port, such as %s", a.Listen, DefaultAgentListen)
		}
	}
	for key, value := range a.Labels {
		msgs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(msgs) > 0 {
			return fmt.Errorf("agent.labels: %s=%s: %s", key, value, msgs[0])
		}
	}
	for name, quantity := range a.Reserved {
		if name != "cpu" && name != "memory" && name != "ephemeral-storage" {
			return fmt.Errorf("agent.reserved: unknown resource %q; known: cpu, memory, ephemeral-storage", name)
		}
		if _, err := resource.ParseQuantity(quantity); err != nil {
			return fmt.Errorf("agent.reserved.%s: %q is no quantity, such as 100m or 64Mi", name, quantity)
		}
	}
	if err := a.validateHardware(); err != nil {
		return err
	}
	for i := range a.Registries {
		if err := a.Registries[i].validate(); err != nil {
			return fmt.Errorf("agent.registries[%d]: %w", i, err)
		}
	}
	if a.StaticPods != "" && !filepath.IsAbs(a.StaticPods) {
		return fmt.Errorf("agent.staticPods %q must be an absolute path", a.StaticPods)
	}
	if a.ContainerLogMB < 1 {
		return fmt.Errorf("agent.containerLogMB %d must be at least 1", a.ContainerLogMB)
	}
	if a.PodPids < 0 {
		return fmt.Errorf("agent.podPids %d must not be negative", a.PodPids)
	}
	if gc := a.ImageGC; gc.LowPercent < 1 || gc.LowPercent >= gc.HighPercent || gc.HighPercent > 100 {
		return fmt.Errorf("agent.imageGC: lowPercent %d must be at least 1 and below highPercent %d, which is at most 100", gc.LowPercent, gc.HighPercent)
	}
	for i, link := range a.Links {
		if link != LinkGRPC && link != LinkMQTT {
			return fmt.Errorf("agent.links: unknown link %q; known: %s, %s", link, LinkGRPC, LinkMQTT)
		}
		if slices.Contains(a.Links[:i], link) {
			return fmt.Errorf("agent.links: %q is listed twice", link)
		}
	}
	if err := validateBrokers("agent.mqtt", a.MQTT.Brokers, a.MQTT.CAFile); err != nil {
		return err
	}
	if err := checkRate("agent.bulkRate", a.BulkRate); err != nil {
		return err
	}
	if a.Idle != IdleNormal && a.Idle != IdleFrugal {
		return fmt.Errorf("agent.idle %q must be %s or %s", a.Idle, IdleNormal, IdleFrugal)
	}
	limits := []limit{{"agent.shutdownGrace", a.ShutdownGrace, time.Second}}
	if a.Heartbeat != 0 { // else it is chosen by the kind of link
		limits = append(limits, limit{"agent.heartbeat", a.Heartbeat, 500 * time.Millisecond})
	}
	return atLeast(limits...)
}

func (r *Registry) validate() error {
	if r.Host == "" || strings.ContainsAny(r.Host, "/ ") {
		return fmt.Errorf("host %q must be a registry's name, such as registry.example.com:5000", r.Host)
	}
	urls := r.Mirrors
	if r.Endpoint != "" {
		urls = append([]string{r.Endpoint}, urls...)
	}
	for _, s := range urls {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("endpoint and mirrors must be http:// or https:// URLs, not %q", s)
		}
	}
	for key, file := range map[string]string{"caFile": r.CAFile, "passwordFile": r.PasswordFile} {
		if file != "" && !filepath.IsAbs(file) {
			return fmt.Errorf("%s %q must be an absolute path", key, file)
		}
	}
	if (r.Username == "") != (r.PasswordFile == "") {
		return fmt.Errorf("username and passwordFile belong together")
	}
	if r.Endpoint == "" && len(r.Mirrors) == 0 && r.CAFile == "" && !r.InsecureSkipVerify && r.Username == "" {
		return fmt.Errorf("nothing is said of %s", r.Host)
	}
	return nil
}

func validateBrokers(key string, brokers []string, caFile string) error {
	for _, address := range brokers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s.brokers: %q must be host:port, such as mqtt.example.com:8883", key, address)
		}
	}
	if caFile != "" && !filepath.IsAbs(caFile) {
		return fmt.Errorf("%s.caFile %q must be an absolute path", key, caFile)
	}
	if caFile != "" && len(brokers) == 0 {
		return fmt.Errorf("%s.caFile is set and %s.brokers is not", key, key)
	}
	return nil
}

// Classes are the words of agent.discover.classes: the classes of package agent/hardware, all, and none.
func Classes() []string {
	return []string{"all", "camera", "disk", "gpio", "gpu", "i2c", "none", "npu", "serial", "spi", "tpm", "usb", "watchdog"}
}

func (a *Agent) validateHardware() error {
	if err := a.Neighbours.validate(); err != nil {
		return err
	}
	if a.ImageSeeds != "none" && !filepath.IsAbs(a.ImageSeeds) {
		return fmt.Errorf("agent.imageSeeds %q must be none or an absolute path", a.ImageSeeds)
	}
	if a.PluginSocket != "none" && (!filepath.IsAbs(a.PluginSocket) || filepath.Base(a.PluginSocket) != "kubelet.sock") {
		return fmt.Errorf("agent.pluginSocket %q must be none or the absolute path of a kubelet.sock", a.PluginSocket)
	}
	for _, class := range a.Discover.Classes {
		if !slices.Contains(Classes(), class) {
			return fmt.Errorf("agent.discover.classes: unknown class %q; known: %s", class, strings.Join(Classes(), ", "))
		}
	}
	if d := a.Discover.Classes; len(d) > 1 && (slices.Contains(d, "all") || slices.Contains(d, "none")) {
		return fmt.Errorf("agent.discover.classes: all and none stand alone")
	}
	for i, m := range a.Discover.Exclude {
		if err := validateMatch(m); err != nil {
			return fmt.Errorf("agent.discover.exclude[%d]: %w", i, err)
		}
	}
	for i, d := range a.Devices {
		if len(validation.IsQualifiedName(d.Resource)) > 0 || !strings.Contains(d.Resource, "/") {
			return fmt.Errorf("agent.devices[%d]: resource %q must be an extended resource, such as shoal.dev/serial", i, d.Resource)
		}
		if (d.Path == "") == (len(d.Match) == 0) {
			return fmt.Errorf("agent.devices[%d]: either path or match must say which device it is", i)
		}
		if d.Path != "" && !filepath.IsAbs(d.Path) || d.ContainerPath != "" && !filepath.IsAbs(d.ContainerPath) {
			return fmt.Errorf("agent.devices[%d]: path and containerPath must be absolute", i)
		}
		if msgs := validation.IsDNS1123Subdomain(d.Machine); d.Machine != "" && len(msgs) > 0 {
			return fmt.Errorf("agent.devices[%d]: machine %q: %s", i, d.Machine, msgs[0])
		}
		if d.Path == "" {
			if err := validateMatch(d.Match); err != nil {
				return fmt.Errorf("agent.devices[%d]: match: %w", i, err)
			}
		}
	}
	return nil
}

func validateMatch(m map[string]string) error {
	if len(m) == 0 {
		return errors.New("an empty one fits nothing; say an attribute, such as usb-serial: A50285BI")
	}
	for key, value := range m {
		if len(validation.IsDNS1123Label(key)) > 0 || value == "" {
			return fmt.Errorf("%s: %q is no attribute and value; see shoal devices -o json", key, value)
		}
	}
	return nil
}

func (l *Log) validate() error {
	switch l.Level {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("log.level %q must be debug, info, warn or error", l.Level)
	}
	if l.Format != "text" && l.Format != "json" {
		return fmt.Errorf("log.format %q must be text or json", l.Format)
	}
	return nil
}

// limit is the smallest sensible value of a duration in the file.
type limit struct {
	key   string
	value time.Duration
	least time.Duration
}

func atLeast(limits ...limit) error {
	for _, l := range limits {
		if l.value < l.least {
			return fmt.Errorf("%s %s must be at least %s", l.key, l.value, l.least)
		}
	}
	return nil
}

func (n Neighbours) validate() error {
	if n.Listen == "none" {
		return nil
	}
	if _, _, err := net.SplitHostPort(n.Listen); err != nil {
		return fmt.Errorf("agent.neighbours.listen %q must be none or host:port, such as %s", n.Listen, DefaultNeighbours)
	}
	host, _, err := net.SplitHostPort(n.Mirror)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("agent.neighbours.mirror %q must be a loopback address with a port, such as %s", n.Mirror, DefaultNeighbourMirror)
	}
	return nil
}
