// Package configs owns the one configuration file: its schema, its defaults and its strict parser, which answers an unknown
// key with the file, the line and the nearest known key.
package configs

import "time"

// Config is the whole file. `shoal server` reads all of it; `shoal agent` reads all but Server, and `shoal witness` no Agent and
// of Server only Listen and ElectionTimeout.
type Config struct {
	// NodeName is the device's name in the cluster, a DNS-1123 subdomain. Default: the host name.
	NodeName string `yaml:"nodeName"`
	// DataDir holds everything that must survive a reboot. Default: /var/lib/shoal.
	DataDir string `yaml:"dataDir"`
	// AdvertiseAddress is the IP address at which other devices reach this one. Default: that of the default route.
	AdvertiseAddress string `yaml:"advertiseAddress"`
	Join             Join   `yaml:"join"`
	Server           Server `yaml:"server"`
	Agent            Agent  `yaml:"agent"`
	Log              Log    `yaml:"log"`

	// AddressFound says that AdvertiseAddress is not from the file, so that it may become another one.
	AddressFound bool `yaml:"-"`
}

// PresentAddress is AdvertiseAddress, or, if the file does not say it, that of the default route now, if there is one.
func (c *Config) PresentAddress() string {
	if c.AddressFound {
		if now := outgoingAddress(); now != noAddress {
			return now
		}
	}
	return c.AdvertiseAddress
}

// Join says which cluster to join. A server with no servers listed starts a new cluster.
type Join struct {
	// Servers are host:port addresses; one that answers is enough.
	Servers []string `yaml:"servers"`
	// Token is what `shoal token create` printed; TokenFile names a file that holds it. Needed for the first join only.
	Token     string `yaml:"token"`
	TokenFile string `yaml:"tokenFile"`
}

// Server configures the control plane.
type Server struct {
	// Listen is the one address for the API, the devices' links and Raft. Default: 0.0.0.0:6443.
	Listen string `yaml:"listen"`
	// PodCIDR is the cluster's pod network; every device gets a block of NodeBits from it. Defaults: 10.42.0.0/16, 25, which is
	// enough for 512 devices with 110 pods each; with 26 it is 1,024 with 61. Blocks that were given stay.
	PodCIDR  string `yaml:"podCIDR"`
	NodeBits int    `yaml:"nodeBits"`
	// ServiceCIDR is the network of the services' addresses, which the cluster keeps from its first start on: further ones are
	// ServiceCIDR objects. NodePorts bounds the ports that services have on every device. Defaults: 10.43.0.0/16, 30000-32767.
	ServiceCIDR string `yaml:"serviceCIDR"`
	NodePorts   string `yaml:"nodePorts"`
	// NodeGrace is how long a device may be silent before its node is Unknown. Default: 40s.
	NodeGrace time.Duration `yaml:"nodeGrace"`
	// ReplaceAfter is how long pods stay bound to a device that is unreachable or not ready, unless they tolerate another
	// time. Default: 5m.
	ReplaceAfter time.Duration `yaml:"replaceAfter"`
	// ElectionTimeout is how long a follower waits for its leader. Default: 500ms; links with more delay want more.
	ElectionTimeout time.Duration `yaml:"electionTimeout"`
	// Voters is how many servers shall have a vote, 1, 3 or 5; further ones are spares. Default: 3. The same on all servers.
	Voters int `yaml:"voters"`
	// VoterGrace is how long a server with a vote may be silent before a spare gets its vote. Default: 2m.
	VoterGrace time.Duration `yaml:"voterGrace"`
	// SANs are further names and addresses for the server's certificate.
	SANs []string `yaml:"sans"`
	// SecretsKeyFile holds the keys under which Secrets are stored. Default: pki/secrets.keys in the data folder. On another
	// medium it is not stolen with the card.
	SecretsKeyFile string      `yaml:"secretsKeyFile"`
	Audit          Audit       `yaml:"audit"`
	PodSecurity    PodSecurity `yaml:"podSecurity"`
	MQTT           ServerMQTT  `yaml:"mqtt"`
}

// PodSecurity says what pods may ask of their devices in namespaces whose labels do not say it, and who is not asked.
type PodSecurity struct {
	// Enforce, Audit and Warn are levels: privileged, baseline or restricted. Defaults: privileged, which forbids nothing; Warn follows
	// Enforce. The versions are those of Kubernetes in which a level was what is meant, such as v1.37. Default: latest.
	Enforce        string `yaml:"enforce"`
	EnforceVersion string `yaml:"enforceVersion"`
	Audit          string `yaml:"audit"`
	AuditVersion   string `yaml:"auditVersion"`
	Warn           string `yaml:"warn"`
	WarnVersion    string `yaml:"warnVersion"`
	// Exempt are namespaces, users and runtime classes that no level holds for.
	Exempt PodSecurityExempt `yaml:"exempt"`
}

// PodSecurityExempt names what no level holds for.
type PodSecurityExempt struct {
	Namespaces     []string `yaml:"namespaces"`
	Users          []string `yaml:"users"`
	RuntimeClasses []string `yaml:"runtimeClasses"`
}

// Labels is the policy in the form of the labels of a namespace.
func (p *PodSecurity) Labels() map[string]string {
	labels := map[string]string{}
	for key, value := range map[string]string{
		"enforce": p.Enforce, "enforce-version": p.EnforceVersion, "audit": p.Audit, "audit-version": p.AuditVersion,
		"warn": p.Warn, "warn-version": p.WarnVersion,
	} {
		if value != "" {
			labels["pod-security.kubernetes.io/"+key] = value
		}
	}
	return labels
}

// ServerMQTT configures the devices' links over MQTT. Every server has a broker of its own behind Listen (the protocol is told
// apart in the TLS handshake), so that nothing needs to be set.
type ServerMQTT struct {
	// Listen is a further address for MQTT alone, such as 0.0.0.0:8883, for networks that let nothing else through.
	// Default: none.
	Listen string `yaml:"listen"`
	// Brokers are the host:port addresses of brokers elsewhere, such as Mosquitto, which the leader joins. Default: none.
	Brokers []string `yaml:"brokers"`
	// CAFile holds the certificates (PEM) by which those brokers are known, by their names. Default: they have certificates of
	// servers of this cluster.
	CAFile string `yaml:"caFile"`
}

// Audit configures the record of requests to the API.
type Audit struct {
	// File is what this server records the requests in that clients make to it. Default: none, nothing is recorded.
	File string `yaml:"file"`
	// MaxSizeMB is how large it may become before it is renamed to File.1, and MaxFiles how many older ones stay. Defaults: 16, 4.
	MaxSizeMB int `yaml:"maxSizeMB"`
	MaxFiles  int `yaml:"maxFiles"`
	// PolicyFile says how much is recorded of which requests, in the form of audit.k8s.io/v1, kind Policy. Default: none, the metadata of
	// every request.
	PolicyFile string `yaml:"policyFile"`
}

// Agent configures the part that runs pods.
type Agent struct {
	// Containerd is the CRI socket. Default: /run/containerd/containerd.sock.
	Containerd string `yaml:"containerd"`
	// CNIConfDir and RegistryConfDir are the folders that this device's containerd reads CNI networks and registry hosts
	// from; the agent writes them. Defaults: /etc/cni/net.d, /etc/containerd/certs.d.
	CNIConfDir      string `yaml:"cniConfDir"`
	RegistryConfDir string `yaml:"registryConfDir"`
	// CgroupParent is the cgroup that all pods live under. Default: /shoal.
	CgroupParent string `yaml:"cgroupParent"`
	// SeccompDefault gives the container runtime's seccomp profile to containers that name none. Default: false, as in Kubernetes:
	// they are unconfined.
	SeccompDefault bool `yaml:"seccompDefault"`
	// StaticPods is a folder of pods, each in a file, that run on this device whatever the control plane says, and without one.
	// Default: none.
	StaticPods string `yaml:"staticPods"`
	// ShutdownGrace is how long pods have to end when the device goes down; those that the cluster needs end in the last third of it.
	// systemd has to wait as long (TimeoutStopSec). Default: 30s.
	ShutdownGrace time.Duration `yaml:"shutdownGrace"`
	// ContainerLogMB is how large a container's log may become before it is rotated; the one before is kept too. Default: 10.
	ContainerLogMB int `yaml:"containerLogMB"`
	// PodPids is how many processes one pod may have. Default: 0, as many as it likes.
	PodPids int64 `yaml:"podPids"`
	// ImageGC says when images that no pod needs are removed.
	ImageGC ImageGC `yaml:"imageGC"`
	// ImageSeeds is a folder with archives of images, as docker save and shoal image export make them, which are imported at a start and
	// when one comes; none: nowhere. Default: images in the data folder.
	ImageSeeds string `yaml:"imageSeeds"`
	// Idle is how much a quiet link may cost: normal, or frugal, about 0.7 MB a month, for links that are paid by the byte. Then
	// a device that is lost is missed after half an hour only. Default: normal.
	Idle string `yaml:"idle"`
	// Heartbeat is how often a quiet link says that it is alive. Default: what Idle and the kind of link ask for.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// BulkRate is how much logs, exec and port-forward together may send from this device, in bytes a second, as a Kubernetes
	// quantity such as 4Ki: the rest of a slow link is for what keeps pods running. Default: no limit.
	BulkRate string `yaml:"bulkRate"`
	// Links are the kinds of links to the control plane, grpc and mqtt, the most wanted first: while the first does not work the
	// next is used. Default: [grpc, mqtt].
	Links []string  `yaml:"links"`
	MQTT  AgentMQTT `yaml:"mqtt"`
	// Listen is the address for /livez, /readyz and /metrics, loopback by default: 127.0.0.1:10248. Empty: none.
	Listen string `yaml:"listen"`
	// Labels are added to the node.
	Labels map[string]string `yaml:"labels"`
	// Reserved is kept back from what the node offers to pods, in Kubernetes quantities: {cpu: 100m, memory: 64Mi}.
	Reserved map[string]string `yaml:"reserved"`
	// Discover says which of the hardware that the agent finds is offered to pods.
	Discover Discover `yaml:"discover"`
	// Devices are single devices that pods can ask for by a name of their own.
	Devices []Device `yaml:"devices"`
	// PluginSocket is where vendors' device plugins register; none: nowhere. Default: device-plugins/kubelet.sock in the data
	// folder. Plugins look for /var/lib/kubelet/device-plugins/kubelet.sock; other sockets in its folder are removed at a start.
	PluginSocket string     `yaml:"pluginSocket"`
	Registries   []Registry `yaml:"registries"`
	Neighbours   Neighbours `yaml:"neighbours"`
	// Firmware says how this device is updated. Without it, it is not.
	Firmware Firmware `yaml:"firmware"`
}

// Neighbours says how devices of one network give each other the pieces of images.
type Neighbours struct {
	// Listen is the address at which this device gives them, to devices of its cluster and network only; the port is the same on all of
	// them. none: it neither gives nor takes. Default: :6446.
	Listen string `yaml:"listen"`
	// Mirror is the loopback address at which this device's containerd asks for what neighbours have. Default: 127.0.0.1:6447.
	Mirror string `yaml:"mirror"`
}

// Firmware says how a device installs firmware.
type Firmware struct {
	// HardwareID is the kind of hardware, as releases name it.
	HardwareID string `yaml:"hardwareID"`
	// Backend is what boots the device: uboot, tryboot (Raspberry Pi), systemd-boot, rauc, or self, for devices of which shoal updates itself
	// only.
	Backend string `yaml:"backend"`
	// Version is that of the release that the device was made with.
	Version string `yaml:"version"`
	// Root is a file with the TUF root that the device trusts (root.json). With it, it installs only what was signed under that root.
	Root string `yaml:"root"`
	// Rate is how much firmware this device fetches from outside its network, in bytes a second, as a Kubernetes quantity such as 64Ki.
	// Default: no limit.
	Rate string `yaml:"rate"`
	// Artifacts is a folder with firmware that was brought by 'shoal firmware import', for this device and its neighbours. Default:
	// artifacts in the data folder.
	Artifacts string `yaml:"artifacts"`
	// Tries is how many boots a release has to come up. Default: 3.
	Tries       int         `yaml:"tries"`
	UBoot       UBoot       `yaml:"uboot"`
	Tryboot     Tryboot     `yaml:"tryboot"`
	SystemdBoot SystemdBoot `yaml:"systemdBoot"`
	RAUC        RAUC        `yaml:"rauc"`
	Self        Self        `yaml:"self"`
}

// RAUC says how a device is updated by RAUC.
type RAUC struct {
	// Config is RAUC's own configuration. Default: /etc/rauc/system.conf.
	Config string `yaml:"config"`
}

// SystemdBoot says where systemd-boot's entries and the slots are.
type SystemdBoot struct {
	// Entries is the folder of the entries. Default: /boot/loader/entries.
	Entries string          `yaml:"entries"`
	SlotA   SystemdBootSlot `yaml:"slotA"`
	SlotB   SystemdBootSlot `yaml:"slotB"`
}

// SystemdBootSlot is a system: what an image is written to, and its entry, without version and sort-key, whose options say shoal.slot=a, or b.
type SystemdBootSlot struct {
	Path  string `yaml:"path"`
	Entry string `yaml:"entry"`
}

// Tryboot says where a Raspberry Pi's autoboot.txt and the slots are.
type Tryboot struct {
	// Autoboot is the file. Default: /boot/autoboot.txt.
	Autoboot string      `yaml:"autoboot"`
	SlotA    TrybootSlot `yaml:"slotA"`
	SlotB    TrybootSlot `yaml:"slotB"`
}

// TrybootSlot is a system: the partition that the firmware starts, by its number, and the device that an image is written to.
type TrybootSlot struct {
	BootPartition int    `yaml:"bootPartition"`
	Path          string `yaml:"path"`
}

// Self says where the copies of shoal are.
type Self struct {
	// Dir is the folder; 'shoal launch' has to be told of another one too. Default: self in the data folder.
	Dir string `yaml:"dir"`
}

// UBoot says where U-Boot's environment and the slots are.
type UBoot struct {
	// Environment is the copies of the environment, one or two, as in /etc/fw_env.config.
	Environment []UBootEnvironment `yaml:"environment"`
	// SlotA and SlotB are the partitions.
	SlotA string `yaml:"slotA"`
	SlotB string `yaml:"slotB"`
}

// UBootEnvironment is where a copy of the environment is, in bytes.
type UBootEnvironment struct {
	Path   string `yaml:"path"`
	Offset int64  `yaml:"offset"`
	Size   int64  `yaml:"size"`
}

// AgentMQTT configures the link over MQTT.
type AgentMQTT struct {
	// Brokers are host:port addresses of brokers elsewhere. Default: none, the servers' own are used.
	Brokers []string `yaml:"brokers"`
	// CAFile holds the certificates (PEM) by which those brokers are known, by their names. Default: they have certificates of
	// servers of this cluster.
	CAFile string `yaml:"caFile"`
}

// Discover configures which hardware is offered. `shoal devices` shows what that comes to.
type Discover struct {
	// Classes are offered, each as shoal.dev/<class>; [all] is all and [none] none of them. Default: camera, gpio, gpu, i2c, npu,
	// serial, spi, usb; not disk, tpm and watchdog, with which a pod could wipe or stop the device itself.
	Classes []string `yaml:"classes"`
	// Exclude keeps devices back: those that fit one of the entries, in the words of Device.Match.
	Exclude []map[string]string `yaml:"exclude"`
}

// Device is hardware that is offered as an extended resource, one unit for each piece, and injected into the pod that gets it.
// Either Path or Match says which.
type Device struct {
	// Resource is the extended resource, such as shoal.dev/serial.
	Resource string `yaml:"resource"`
	// Path is the device node (or, as a stand-in, a plain file, which is then bind-mounted) on this device.
	Path string `yaml:"path"`
	// ContainerPath is where the container sees it. Default: as on the device.
	ContainerPath string `yaml:"containerPath"`
	// Machine is the name of what the device leads to, if other devices of the cluster lead there too, such as a bus with two
	// gateways: pods on two nodes never have one machine.
	Machine string `yaml:"machine"`
	// Match finds devices by what `shoal devices` shows of them, {usb-serial: A50285BI} or {class: serial, usb-port: "1-1.2"}; a
	// value may end with "*".
	Match map[string]string `yaml:"match"`
}

// ImageGC says when images are removed that no pod needs and that can be fetched again.
type ImageGC struct {
	// HighPercent is how full the disk of images is when that begins, LowPercent how full it may stay. Defaults: 85, 80.
	HighPercent int `yaml:"highPercent"`
	LowPercent  int `yaml:"lowPercent"`
}

// Registry says how images of one registry are fetched.
type Registry struct {
	// Host is the name in image references: registry.example.com:5000, or docker.io.
	Host string `yaml:"host"`
	// Endpoint is the URL of the registry, or of one that is asked instead; http:// is allowed. Default: https:// and Host.
	Endpoint string `yaml:"endpoint"`
	// Mirrors are URLs that are asked before it, in this order; http:// is allowed.
	Mirrors []string `yaml:"mirrors"`
	// CAFile has the certificates, in PEM, of the authority that the registry and its mirrors are trusted by.
	CAFile string `yaml:"caFile"`
	// InsecureSkipVerify takes any certificate of theirs.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify"`
	// Username and PasswordFile are the device's own login, for pods that have none. It is shown to the mirrors too.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"passwordFile"`
}

// Log configures the process's log, on standard error.
type Log struct {
	// Level is debug, info, warn or error. Default: info.
	Level string `yaml:"level"`
	// Format is text or json. Default: text.
	Format string `yaml:"format"`
}
