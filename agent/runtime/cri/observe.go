package cri

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Pods implements runtime.Runtime.
func (r *Runtime) Pods(ctx context.Context) (map[string]runtime.Pod, error) {
	return r.list(ctx, nil)
}

// Pod implements runtime.Runtime.
func (r *Runtime) Pod(ctx context.Context, uid string) (runtime.Pod, error) {
	pods, err := r.list(ctx, map[string]string{runtime.LabelPodUID: uid})
	if err != nil {
		return runtime.Pod{}, err
	}
	p := pods[uid]
	p.UID = uid
	for i := range p.Sandboxes {
		if err := r.detailSandbox(ctx, &p.Sandboxes[i]); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return runtime.Pod{}, err
		}
	}
	found := p.Containers[:0]
	for _, c := range p.Containers {
		err := r.detailContainer(ctx, &c)
		if errors.Is(err, runtime.ErrNotFound) {
			continue // removed between the two calls
		}
		if err != nil {
			return runtime.Pod{}, err
		}
		found = append(found, c)
	}
	p.Containers = found
	return p, nil
}

func (r *Runtime) list(ctx context.Context, labels map[string]string) (map[string]runtime.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sandboxes, err := r.cri.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{LabelSelector: labels}})
	if err != nil {
		return nil, r.failed("list sandboxes", err)
	}
	containers, err := r.cri.ListContainers(ctx, &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{LabelSelector: labels}})
	if err != nil {
		return nil, r.failed("list containers", err)
	}
	pods := map[string]runtime.Pod{}
	for _, s := range sandboxes.Items {
		uid := s.Labels[runtime.LabelPodUID]
		if uid == "" {
			continue // not ours
		}
		p := pods[uid]
		p.UID = uid
		p.Sandboxes = append(p.Sandboxes, runtime.Sandbox{
			ID: s.Id, Name: s.Metadata.GetName(), Namespace: s.Metadata.GetNamespace(), UID: uid, Attempt: s.Metadata.GetAttempt(),
			Ready: s.State == criapi.PodSandboxState_SANDBOX_READY, CreatedAt: time.Unix(0, s.CreatedAt),
			Labels: s.Labels, Annotations: s.Annotations,
		})
		pods[uid] = p
	}
	for _, c := range containers.Containers {
		uid := c.Labels[runtime.LabelPodUID]
		if uid == "" {
			continue
		}
		p := pods[uid]
		p.UID = uid
		p.Containers = append(p.Containers, runtime.Container{
			ID: c.Id, SandboxID: c.PodSandboxId, PodUID: uid, Name: c.Metadata.GetName(), Attempt: c.Metadata.GetAttempt(),
			State: state(c.State), CreatedAt: time.Unix(0, c.CreatedAt), Image: c.Image.GetImage(), ImageID: c.ImageRef,
			Annotations: c.Annotations,
		})
		pods[uid] = p
	}
	for _, p := range pods {
		slices.SortFunc(p.Sandboxes, func(a, b runtime.Sandbox) int {
			return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
		})
		slices.SortFunc(p.Containers, func(a, b runtime.Container) int {
			return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
		})
	}
	return pods, nil
}

func (r *Runtime) detailSandbox(ctx context.Context, s *runtime.Sandbox) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.PodSandboxStatus(ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: s.ID})
	if err != nil {
		return r.failed("sandbox status", err)
	}
	network := reply.GetStatus().GetNetwork()
	if ip := network.GetIp(); ip != "" {
		s.IPs = append(s.IPs, ip)
	}
	for _, more := range network.GetAdditionalIps() {
		s.IPs = append(s.IPs, more.Ip)
	}
	s.Ready = reply.GetStatus().GetState() == criapi.PodSandboxState_SANDBOX_READY
	return nil
}

func (r *Runtime) detailContainer(ctx context.Context, c *runtime.Container) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.cri.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		return r.failed("container status", err)
	}
	s := reply.GetStatus()
	c.State = state(s.GetState())
	c.StartedAt, c.FinishedAt = moment(s.GetStartedAt()), moment(s.GetFinishedAt())
	c.ExitCode, c.Reason, c.Message, c.LogPath = s.GetExitCode(), s.GetReason(), s.GetMessage(), s.GetLogPath()
	if name := s.GetImage().GetImage(); name != "" {
		c.Image = name
	}
	if ref := s.GetImageRef(); ref != "" {
		c.ImageID = ref
	}
	return nil
}

func moment(nanoseconds int64) time.Time {
	if nanoseconds <= 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

func state(s criapi.ContainerState) runtime.State {
	switch s {
	case criapi.ContainerState_CONTAINER_CREATED:
		return runtime.Created
	case criapi.ContainerState_CONTAINER_RUNNING:
		return runtime.Running
	case criapi.ContainerState_CONTAINER_EXITED:
		return runtime.Exited
	}
	return runtime.Unknown
}
