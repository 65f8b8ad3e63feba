package cri

import (
	"context"
	"errors"
	"regexp"
	"time"

	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// maxExecOutput bounds what one command's output may hold in memory.
const maxExecOutput = 64 << 10

// RunSandbox implements runtime.Runtime.
func (r *Runtime) RunSandbox(ctx context.Context, config *criapi.PodSandboxConfig, handler string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	reply, err := r.cri.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return "", r.failed("run sandbox", err)
	}
	return reply.PodSandboxId, nil
}

// StopSandbox implements runtime.Runtime.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	_, err := r.cri.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: id})
	return r.unlessGone("stop sandbox", err)
}

// RemoveSandbox implements runtime.Runtime.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	_, err := r.cri.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: id})
	return r.unlessGone("remove sandbox", err)
}

// CreateContainer implements runtime.Runtime.
func (r *Runtime) CreateContainer(ctx context.Context, sandbox string, c *criapi.ContainerConfig, s *criapi.PodSandboxConfig) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	reply, err := r.cri.CreateContainer(ctx, &criapi.CreateContainerRequest{PodSandboxId: sandbox, Config: c, SandboxConfig: s})
	if err != nil {
		return "", r.failed("create container", err)
	}
	return reply.ContainerId, nil
}

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	if _, err := r.cri.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: id}); err != nil {
		return r.failed("start container", err)
	}
	return nil
}

// StopContainer implements runtime.Runtime.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+slowTimeout)
	defer cancel()
	_, err := r.cri.StopContainer(ctx, &criapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace.Round(time.Second).Seconds())})
	return r.unlessGone("stop container", err)
}

// RemoveContainer implements runtime.Runtime.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, slowTimeout)
	defer cancel()
	_, err := r.cri.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: id})
	return r.unlessGone("remove container", err)
}

// ResizeContainer implements runtime.Runtime.
func (r *Runtime) ResizeContainer(ctx context.Context, id string, to *criapi.LinuxContainerResources) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := r.cri.UpdateContainerResources(ctx, &criapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: to}); err != nil {
		return r.failed("resize container", err)
	}
	return nil
}

// ReopenLog implements runtime.Runtime.
func (r *Runtime) ReopenLog(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := r.cri.ReopenContainerLog(ctx, &criapi.ReopenContainerLogRequest{ContainerId: id})
	return r.unlessGone("reopen log", err)
}

// Pull implements runtime.Runtime. It has no timeout of its own: a slow link is not a failure.
func (r *Runtime) Pull(ctx context.Context, ref string, auth *criapi.AuthConfig, s *criapi.PodSandboxConfig) (string, error) {
	q := &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}, Auth: auth, SandboxConfig: s}
	reply, err := r.images.PullImage(ctx, q)
	for range maxTorn {
		torn := tornBlob.FindStringSubmatch(status.Convert(err).Message())
		if torn == nil || r.Content().Abort(ctx, torn[1]) != nil {
			break
		}
		r.c.Logger.Warn("what was fetched of an image before is damaged; it is fetched anew", "image", ref, "blob", torn[1])
		reply, err = r.images.PullImage(ctx, q)
	}
	if err != nil {
		return "", r.failed("pull image", err)
	}
	return reply.ImageRef, nil
}

// tornBlob is how containerd says that a blob, all of which was fetched, is not what it should be. A pull goes on where an earlier one ended,
// so when the power took part of what the file system had promised, every further pull would end like this.
var tornBlob = regexp.MustCompile(`failed commit on ref "([^"]+)": unexpected commit (?:digest|size)`)

// maxTorn is how many blobs of an image may be torn at once; containerd fetches no more than this at a time.
const maxTorn = 8

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, timeout time.Duration) ([]byte, int32, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+callTimeout)
	defer cancel()
	reply, err := r.cri.ExecSync(ctx, &criapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: int64(timeout.Round(time.Second).Seconds())})
	if err != nil {
		return nil, 0, r.failed("exec", err)
	}
	output := append(reply.Stdout, reply.Stderr...)
	return output[:min(len(output), maxExecOutput)], reply.ExitCode, nil
}

// ExecURL implements runtime.Runtime.
func (r *Runtime) ExecURL(ctx context.Context, q runtime.StreamRequest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.Exec(ctx, &criapi.ExecRequest{
		ContainerId: q.ID, Cmd: q.Command, Tty: q.TTY, Stdin: q.Stdin, Stdout: q.Stdout, Stderr: q.Stderr && !q.TTY,
	})
	if err != nil {
		return "", r.failed("exec", err)
	}
	return reply.Url, nil
}

// AttachURL implements runtime.Runtime.
func (r *Runtime) AttachURL(ctx context.Context, q runtime.StreamRequest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.Attach(ctx, &criapi.AttachRequest{
		ContainerId: q.ID, Tty: q.TTY, Stdin: q.Stdin, Stdout: q.Stdout, Stderr: q.Stderr && !q.TTY,
	})
	if err != nil {
		return "", r.failed("attach", err)
	}
	return reply.Url, nil
}

// PortForwardURL implements runtime.Runtime.
func (r *Runtime) PortForwardURL(ctx context.Context, q runtime.StreamRequest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.PortForward(ctx, &criapi.PortForwardRequest{PodSandboxId: q.ID})
	if err != nil {
		return "", r.failed("port-forward", err)
	}
	return reply.Url, nil
}

// unlessGone: what is gone already needs no stopping and no removing.
func (r *Runtime) unlessGone(what string, err error) error {
	if err == nil {
		return nil
	}
	if err := r.failed(what, err); !errors.Is(err, runtime.ErrNotFound) {
		return err
	}
	return nil
}
