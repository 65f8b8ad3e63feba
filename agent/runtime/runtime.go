// Package runtime owns the seam between the agent and what runs containers: a small interface in the shape of the Container
// Runtime Interface (CRI). Its implementations are cri (containerd) and fake (memory); conformance tests both.
//
// A pod is known to the runtime by its UID, a container by its pod, name and attempt. Everything the agent must know after a
// restart is read back from here, so that no container is ever started twice or stopped because the agent forgot it.
package runtime

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels that the agent puts on sandboxes and containers; they are kubelet's, so that crictl and other tools know them.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
)

// Kinds of failure that the agent tells apart.
var (
	// ErrNotFound: no such sandbox, container or image.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the runtime does not answer. Nothing is known about the containers, so nothing may be concluded.
	ErrUnavailable = errors.New("container runtime is unavailable")
	// ErrUnsupported: this runtime cannot do that.
	ErrUnsupported = errors.New("not supported by this container runtime")
)

// State of a container.
type State int

// The states of a container. Unknown means that the runtime lost its process.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// Sandbox is what holds a pod's containers together: its network namespace and cgroup.
type Sandbox struct {
	ID, Name, Namespace, UID string
	Attempt                  uint32
	Ready                    bool
	CreatedAt                time.Time
	IPs                      []string
	Labels, Annotations      map[string]string
}

// Container is one run of a container.
type Container struct {
	ID, SandboxID, PodUID, Name string
	Attempt                     uint32
	State                       State
	CreatedAt                   time.Time
	StartedAt, FinishedAt       time.Time
	ExitCode                    int32
	Reason, Message             string
	Image, ImageID              string
	LogPath                     string
	Annotations                 map[string]string
}

// Pod is everything the runtime has of one pod, newest first.
type Pod struct {
	UID        string
	Sandboxes  []Sandbox
	Containers []Container
}

// Image is an image on the device.
type Image struct {
	ID string
	// Refs are its names, with tags and with digests.
	Refs []string
	Size uint64
	// Pinned: the runtime itself needs it.
	Pinned bool
	// UID and User are who the image runs as; both empty means root.
	UID  *int64
	User string
}

// Usage is what a container uses.
type Usage struct {
	// At is when this was measured.
	At time.Time
	// CPU is the processor time since the container started, Memory its working set and Disk what it wrote beside its volumes, in bytes.
	CPU          time.Duration
	Memory, Disk int64
}

// Info is what the runtime says of itself.
type Info struct {
	Name, Version string
	// Ready: pods can be started. NetworkReady: the pod network is set up. Message says what is missing.
	Ready, NetworkReady bool
	Message             string
}

// EventType says what happened.
type EventType int

const (
	// ContainerExited: the process of the container or sandbox ID ended.
	ContainerExited EventType = iota
	// Resync: the subscription is new (first, or after a gap); look at everything.
	Resync
)

// Event is a change in the runtime that the agent did not ask for.
type Event struct {
	Type EventType
	ID   string
}

// StreamRequest describes an exec, attach or port-forward stream.
type StreamRequest struct {
	// ID is a container (exec, attach) or a sandbox (port-forward).
	ID                         string
	Command                    []string
	Stdin, Stdout, Stderr, TTY bool
}

// Runtime runs pods. All methods may be called at the same time; each ends with its context.
type Runtime interface {
	Info(ctx context.Context) (Info, error)
	// Pods lists all pods, without the details that need a call for each container (IPs, exit codes, times).
	Pods(ctx context.Context) (map[string]Pod, error)
	// Pod is everything about one pod.
	Pod(ctx context.Context, uid string) (Pod, error)
	// Watch calls f for each event until ctx ends or the subscription breaks. The first event is Resync.
	Watch(ctx context.Context, f func(Event)) error

	// RunSandbox makes a sandbox. The handler is what of the runtime runs its containers; empty: what it runs all by.
	RunSandbox(ctx context.Context, config *criapi.PodSandboxConfig, handler string) (id string, err error)
	// StopSandbox stops all its containers at once and gives its network back. Stopping one that is gone is fine.
	StopSandbox(ctx context.Context, id string) error
	// RemoveSandbox removes it and its containers.
	RemoveSandbox(ctx context.Context, id string) error

	CreateContainer(ctx context.Context, sandbox string, c *criapi.ContainerConfig, s *criapi.PodSandboxConfig) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer asks the container to stop and kills it after grace.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error
	// ResizeContainer changes what a running container may use.
	ResizeContainer(ctx context.Context, id string, r *criapi.LinuxContainerResources) error
	// ReopenLog makes the runtime open the container's log file anew, after a rotation.
	ReopenLog(ctx context.Context, id string) error

	// Image is the image of that reference; ErrNotFound when it is not on the device.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image and returns its id.
	Pull(ctx context.Context, ref string, auth *criapi.AuthConfig, s *criapi.PodSandboxConfig) (id string, err error)

	// Images lists all images on the device.
	Images(ctx context.Context) ([]Image, error)
	// RemoveImage removes an image with all its names, and returns when its space is free. Removing one that is gone is fine.
	RemoveImage(ctx context.Context, id string) error
	// ImageDir is a folder on the file system that holds the images.
	ImageDir(ctx context.Context) (string, error)
	// Usage is what the running containers use, by their ids.
	Usage(ctx context.Context) (map[string]Usage, error)

	// Exec runs a command to its end; the output is bounded.
	Exec(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, exitCode int32, err error)
	// ExecURL, AttachURL and PortForwardURL return where the stream is served, on a loopback address.
	ExecURL(ctx context.Context, r StreamRequest) (string, error)
	AttachURL(ctx context.Context, r StreamRequest) (string, error)
	PortForwardURL(ctx context.Context, r StreamRequest) (string, error)
}

// Prober is a Runtime that answers probes itself, because its containers have no network and no processes.
type Prober interface {
	Probe(ctx context.Context, container string, probe *corev1.Probe) error
}
