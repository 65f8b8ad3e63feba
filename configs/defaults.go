package configs

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Defaults of the configuration file, where the zero value does not serve.
const (
	DefaultDataDir         = "/var/lib/shoal"
	DefaultListen          = "0.0.0.0:6443"
	DefaultPodCIDR         = "10.42.0.0/16"
	DefaultNodeBits        = 25
	DefaultServiceCIDR     = "10.43.0.0/16"
	DefaultNodePorts       = "30000-32767"
	DefaultNodeGrace       = 40 * time.Second
	DefaultReplaceAfter    = 5 * time.Minute
	DefaultElectionTimeout = 500 * time.Millisecond
	DefaultVoters          = 3
	DefaultVoterGrace      = 2 * time.Minute
	DefaultAuditSizeMB     = 16
	DefaultAuditFiles      = 4
	DefaultContainerLogMB  = 10
	DefaultImageGCHigh     = 85
	DefaultImageGCLow      = 80
	DefaultShutdownGrace   = 30 * time.Second
	DefaultContainerd      = "/run/containerd/containerd.sock"
	DefaultCNIConfDir      = "/etc/cni/net.d"
	DefaultRegistryConfDir = "/etc/containerd/certs.d"
	DefaultCgroupParent    = "/shoal"
	DefaultAgentListen     = "127.0.0.1:10248"
	DefaultPluginSocket    = "device-plugins/kubelet.sock" // in the data folder
	DefaultNeighbours      = ":6446"
	DefaultNeighbourMirror = "127.0.0.1:6447"
	DefaultSelf            = "self" // in the data folder
	DefaultAutoboot        = "/boot/autoboot.txt"
	DefaultEntries         = "/boot/loader/entries"
	DefaultImageSeeds      = "images"    // in the data folder
	DefaultArtifacts       = "artifacts" // there too
)

// The kinds of links, as agent.links lists them.
const (
	LinkGRPC = "grpc"
	LinkMQTT = "mqtt"
)

// What a quiet link may cost, as agent.idle says it.
const (
	IdleNormal = "normal"
	IdleFrugal = "frugal"
)

func (c *Config) setDefaults() error {
	if c.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("nodeName is not set and the host name cannot be read: %w", err)
		}
		c.NodeName = strings.ToLower(host)
	}
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.DataDir, DefaultDataDir},
		{&c.Server.Listen, DefaultListen},
		{&c.Server.PodCIDR, DefaultPodCIDR},
		{&c.Server.ServiceCIDR, DefaultServiceCIDR},
		{&c.Server.NodePorts, DefaultNodePorts},
		{&c.Agent.Containerd, DefaultContainerd},
		{&c.Agent.CNIConfDir, DefaultCNIConfDir},
		{&c.Agent.RegistryConfDir, DefaultRegistryConfDir},
		{&c.Agent.CgroupParent, DefaultCgroupParent},
		{&c.Agent.Listen, DefaultAgentListen},
		{&c.Agent.Neighbours.Listen, DefaultNeighbours},
		{&c.Agent.Neighbours.Mirror, DefaultNeighbourMirror},
		{&c.Agent.Firmware.Tryboot.Autoboot, DefaultAutoboot},
		{&c.Agent.Firmware.SystemdBoot.Entries, DefaultEntries},
		{&c.Agent.Idle, IdleNormal},
		{&c.Log.Level, "info"},
		{&c.Log.Format, "text"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.Agent.PluginSocket == "" {
		c.Agent.PluginSocket = filepath.Join(c.DataDir, DefaultPluginSocket)
	}
	if c.Agent.Firmware.Self.Dir == "" {
		c.Agent.Firmware.Self.Dir = filepath.Join(c.DataDir, DefaultSelf)
	}
	if c.Agent.Firmware.Artifacts == "" {
		c.Agent.Firmware.Artifacts = filepath.Join(c.DataDir, DefaultArtifacts)
	}
	if c.Agent.ImageSeeds == "" {
		c.Agent.ImageSeeds = filepath.Join(c.DataDir, DefaultImageSeeds)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Server.NodeGrace, DefaultNodeGrace},
		{&c.Server.ReplaceAfter, DefaultReplaceAfter},
		{&c.Server.ElectionTimeout, DefaultElectionTimeout},
		{&c.Server.VoterGrace, DefaultVoterGrace},
		{&c.Agent.ShutdownGrace, DefaultShutdownGrace},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&c.Server.NodeBits, DefaultNodeBits},
		{&c.Server.Voters, DefaultVoters},
		{&c.Server.Audit.MaxSizeMB, DefaultAuditSizeMB},
		{&c.Server.Audit.MaxFiles, DefaultAuditFiles},
		{&c.Agent.ContainerLogMB, DefaultContainerLogMB},
		{&c.Agent.ImageGC.HighPercent, DefaultImageGCHigh},
		{&c.Agent.ImageGC.LowPercent, DefaultImageGCLow},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if len(c.Agent.Links) == 0 {
		c.Agent.Links = []string{LinkGRPC, LinkMQTT}
	}
	for i := range c.Agent.Devices {
		if d := &c.Agent.Devices[i]; d.ContainerPath == "" {
			d.ContainerPath = d.Path
		}
	}
	if c.AdvertiseAddress == "" {
		c.AdvertiseAddress, c.AddressFound = outgoingAddress(), true
	}
	return nil
}

// outgoingAddress is the source address of the default route. Connecting a UDP socket sends nothing; the peer is a
// documentation address (RFC 5737). A board with no route yet gets the loopback address.
func outgoingAddress() string {
	conn, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return noAddress
	}
	defer func() { _ = conn.Close() }()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return noAddress
	}
	return host
}

// noAddress is that of a board with no route yet.
const noAddress = "127.0.0.1"
