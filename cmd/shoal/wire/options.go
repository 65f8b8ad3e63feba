// Package wire puts the parts of shoal together into its two processes, the server and the agent. It holds no logic of its own:
// it opens, connects, runs everything in one errgroup and closes in the opposite order.
package wire

import (
	"log/slog"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/transport/memory"
)

// KubernetesVersion is the version of the Kubernetes API that is served.
const KubernetesVersion = "v1.37.2"

// Options are what the two processes are made from.
type Options struct {
	Config  configs.Config
	Logger  *slog.Logger
	Version string
	// Runtime replaces containerd, in tests and in `shoal dev --fake-runtime`. Nil: the CRI socket of the configuration. With a
	// runtime given there is no pod network either.
	Runtime runtime.Runtime
	// Many says that many agents share this process, as in a simulation: what they do to the process as a whole is left out.
	Many bool
	// Firmware replaces the backend of the configuration, in tests.
	Firmware *Firmware
	// Links carries devices' links in memory instead of over gRPC, in tests and in `shoal dev --fake-runtime`.
	Links *memory.Network
}

// Firmware is a device's way to be updated, and the name of its present boot.
type Firmware struct {
	HardwareID string
	Backend    firmware.Backend
	BootID     string
}
