package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// offlinePatience is how long a registry may take over an image that the pod has run before, on a device that may have no link.
const offlinePatience = 10 * time.Second

// ensureImage returns the container's image, fetched as its policy says. With ran, an image id, the pod has run that image on this
// device before, and runs it again when its registry does not answer: a device that boots without a link starts its pods.
func (a *Agent) ensureImage(ctx context.Context, p *corev1.Pod, c *corev1.Container, s *criapi.PodSandboxConfig, ran string) (runtime.Image, error) {
	policy := c.ImagePullPolicy
	if policy == "" {
		policy = corev1.PullIfNotPresent
	}
	img, err := a.c.Runtime.Image(ctx, c.Image)
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return img, err
	}
	present := err == nil
	switch {
	case present && policy != corev1.PullAlways:
		a.event(p, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		return img, nil
	case policy == corev1.PullNever:
		return img, &problem{reasonNeverPull, fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image)} //nolint:staticcheck // kubelet's words
	}
	present = present && ran != "" && (ran == img.ID || slices.Contains(img.Refs, ran))
	err = a.pull(ctx, p, c, s, present)
	switch {
	case err == nil:
		img, err := a.c.Runtime.Image(ctx, c.Image)
		if err == nil {
			a.noteImage(img.ID, c.Image, true)
		}
		return img, err
	case present && ctx.Err() == nil && !refused(err) && !errors.Is(err, runtime.ErrUnavailable):
		a.event(p, c.Name, corev1.EventTypeWarning, "Pulled", fmt.Sprintf(
			"Container image %q ran in this pod before and is used as it is: its registry does not answer: %v", c.Image, err))
		return img, nil
	}
	return runtime.Image{}, &problem{reasonPull, fmt.Errorf("failed to pull image %q: %w", c.Image, err)}
}

// pull fetches the container's image, with one login after the other until one is not refused.
func (a *Agent) pull(ctx context.Context, p *corev1.Pod, c *corev1.Container, s *criapi.PodSandboxConfig, impatient bool) (err error) {
	if impatient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, offlinePatience)
		defer cancel()
	}
	end := a.turn(ctx, p, c)
	defer func() { end(err == nil) }()
	release, err := acquire(ctx, a.pulls)
	if err != nil {
		return err
	}
	defer release()
	begin := time.Now()
	a.event(p, c.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	var first error
	for _, auth := range a.credentials(p, c.Image) {
		_, err := a.c.Runtime.Pull(ctx, c.Image, auth, s)
		if err == nil {
			a.event(p, c.Name, corev1.EventTypeNormal, "Pulled",
				fmt.Sprintf("Successfully pulled image %q in %s", c.Image, time.Since(begin).Round(time.Millisecond)))
			a.metrics.pulls.Inc()
			return nil
		}
		if first == nil {
			first = err // that of the login that fits best says most
		}
		if !refused(err) {
			return err
		}
	}
	return first
}

// turn waits while a neighbour fetches the image, so that it comes to a site once.
func (a *Agent) turn(ctx context.Context, p *corev1.Pod, c *corev1.Container) (end func(ok bool)) {
	if a.c.Turn == nil {
		return func(bool) {}
	}
	return a.c.Turn(ctx, image.Familiar(c.Image), func(neighbour string) {
		a.event(p, c.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Waiting for %s, which is pulling image %q", neighbour, c.Image))
	})
}

// Neighbours are the other devices of this device's network, by name, with their addresses.
func (a *Agent) Neighbours() map[string]string {
	all := map[string]string{}
	for _, p := range a.networkState().Peers {
		if len(p.Addresses) > 0 {
			all[p.Name] = p.Addresses[0].String()
		}
	}
	return all
}

// refused reports whether a registry has answered, and said no. containerd tells that in words only.
func refused(err error) bool {
	if errors.Is(err, runtime.ErrNotFound) {
		return true
	}
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc([]string{"unauthorized", "forbidden", "denied", "authorization failed", "no basic auth", "not found"},
		func(word string) bool { return strings.Contains(text, word) })
}
