package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
)

// containers names every running container of every pod by its id and its count of restarts. Two equal answers mean that
// nothing was stopped in between.
func (e *Env) containers(ctx context.Context) (map[string]string, error) {
	pods, err := e.Pods(ctx, "")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running == nil {
				return nil, fmt.Errorf("container %s of pod %s does not run", c.Name, p.Name)
			}
			all[p.Name+" "+c.Name] = fmt.Sprintf("%s, restarts: %d, ready: %t", c.ContainerID, c.RestartCount, c.Ready)
		}
	}
	return all, nil
}

// waitSame waits until the containers are those of before, and fails at once when one has been restarted or replaced.
func (e *Env) waitSame(ctx context.Context, before map[string]string) error {
	return Eventually(ctx, func() error {
		now, err := e.containers(ctx)
		if err != nil {
			return err
		}
		for name, was := range before {
			if now[name] != was {
				return fmt.Errorf("container %s was %q and is %q", name, was, now[name])
			}
		}
		if len(now) != len(before) {
			return fmt.Errorf("%d containers, %d before", len(now), len(before))
		}
		return nil
	})
}

// answer checks that every pod on a device serves, asked from the device that is given.
func (e *Env) answer(ctx context.Context, on, from *dev.Device) (int, error) {
	pods, err := e.Pods(ctx, "hello")
	if err != nil {
		return 0, err
	}
	return answerAll(ctx, e, pods, on, from)
}

func answerAll(ctx context.Context, e *Env, pods []corev1.Pod, on, from *dev.Device) (int, error) {
	n := 0
	for i := range pods {
		if pods[i].Spec.NodeName != on.Name {
			continue
		}
		if _, err := e.Page(ctx, from, &pods[i]); err != nil {
			return n, fmt.Errorf("pod %s on %s has stopped: %w", pods[i].Name, on.Name, err)
		}
		n++
	}
	if n == 0 {
		return 0, fmt.Errorf("no pod of the app is on %s", on.Name)
	}
	return n, nil
}

// Leader finds the server that leads.
func (e *Env) Leader(ctx context.Context) (*dev.Device, error) {
	var leader *dev.Device
	err := Eventually(ctx, func() error {
		for _, d := range e.Lab.Devices() {
			if d.Role == dev.Server && d.ShoalPID() != 0 && e.leads(ctx, d) {
				leader = d
				return nil
			}
		}
		return errors.New("no server leads")
	})
	return leader, err
}

// WriteOnce creates a ConfigMap as soon as the cluster takes it, and returns how long that took.
func (e *Env) WriteOnce(ctx context.Context, name string) (time.Duration, error) {
	start := time.Now()
	err := Eventually(ctx, func() error {
		_, err := e.Kubectl(ctx, "create", "configmap", name, "--from-literal=a=b", "--request-timeout=2s")
		return err
	})
	return time.Since(start), err
}

func killLeader(ctx context.Context, e *Env) (string, error) {
	leader, err := e.Leader(ctx)
	if err != nil {
		return "", err
	}
	before, err := e.containers(ctx)
	if err != nil {
		return "", err
	}
	if err := e.Lab.KillShoal(leader); err != nil {
		return "", err
	}
	took, err := e.WriteOnce(ctx, "after-leader")
	if err != nil {
		return "", fmt.Errorf("no write succeeds after the end of %s: %w", leader.Name, err)
	}
	if took > 5*time.Second {
		return "", fmt.Errorf("the first write after the end of %s took %s", leader.Name, took)
	}
	from, err := e.elsewhere(leader.Name, 0)
	if err != nil {
		return "", err
	}
	if _, err := e.answer(ctx, leader, from); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; a write succeeded %.1fs later, no pod restarted", leader.Name, took.Seconds()), e.comeBack(ctx, leader, before)
}

// comeBack starts a device's shoal again: it has to adopt its containers as they are.
func (e *Env) comeBack(ctx context.Context, d *dev.Device, before map[string]string) error {
	if err := e.Lab.StartShoal(ctx, d); err != nil {
		return err
	}
	if err := e.WaitNodes(ctx); err != nil {
		return err
	}
	return e.waitSame(ctx, before)
}

func killAgent(ctx context.Context, e *Env) (string, error) {
	d, err := e.Lab.Device(serialDevice)
	if err != nil {
		return "", err
	}
	before, err := e.containers(ctx)
	if err != nil {
		return "", err
	}
	if err := e.Lab.KillShoal(d); err != nil {
		return "", err
	}
	n, err := e.answer(ctx, d, e.Lab.Devices()[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; its %d pods of the app went on and were adopted, none restarted", d.Name, n), e.comeBack(ctx, d, before)
}

func cutNetwork(ctx context.Context, e *Env) (string, error) {
	d, err := e.Lab.Device(serialDevice)
	if err != nil {
		return "", err
	}
	before, err := e.containers(ctx)
	if err != nil {
		return "", err
	}
	pods, err := e.Pods(ctx, "hello")
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := e.Lab.Cut(ctx, d); err != nil {
		return "", err
	}
	noticed := e.WaitNotReady(ctx, d)
	n, answered := answerAll(ctx, e, pods, d, d)
	away := time.Since(start)
	if err := errors.Join(noticed, answered, e.Lab.Restore(ctx, d)); err != nil {
		return "", err
	}
	back := time.Now()
	if err := e.WaitNodes(ctx); err != nil {
		return "", err
	}
	if err := e.waitSame(ctx, before); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s for %.1fs; its %d pods of the app went on, Ready %.1fs after its return, none restarted",
		d.Name, away.Seconds(), n, time.Since(back).Seconds()), nil
}

// replaceLimit is the demo's promise: nodeGrace and replaceAfter are 4 s and 3 s in a lab.
const replaceLimit = 10 * time.Second

func takeAway(ctx context.Context, e *Env) (string, error) {
	d, err := e.Lab.Device(awayDevice)
	if err != nil {
		return "", err
	}
	before, err := e.Pods(ctx, "hello")
	if err != nil {
		return "", err
	}
	n, err := answerAll(ctx, e, before, d, e.Lab.Devices()[0])
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := e.Lab.TakeAway(d); err != nil {
		return "", err
	}
	err = Eventually(ctx, func() error {
		pods, err := e.WaitPods(ctx, "hello", replicas)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if p.Spec.NodeName == d.Name {
				return fmt.Errorf("pod %s is still bound to %s", p.Name, d.Name)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	if took > replaceLimit {
		return "", fmt.Errorf("replacing the pods of %s took %s, more than %s", d.Name, took.Round(time.Millisecond), replaceLimit)
	}
	if err := e.Lab.StartDevice(ctx, d); err != nil {
		return "", err
	}
	if err := e.WaitNodes(ctx); err != nil {
		return "", err
	}
	if err := e.waitGone(ctx, d, before); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; its %d pods of the app were ready elsewhere after %.1fs; it came back", d.Name, n, took.Seconds()), nil
}

// waitGone waits until no pod of before on the device is left in the API, not even on its way out.
func (e *Env) waitGone(ctx context.Context, d *dev.Device, before []corev1.Pod) error {
	return Eventually(ctx, func() error {
		var list corev1.PodList
		if err := e.get(ctx, &list, "pods"); err != nil {
			return err
		}
		for _, p := range list.Items {
			for _, old := range before {
				if p.UID == old.UID && p.Spec.NodeName == d.Name {
					return fmt.Errorf("pod %s is still there", p.Name)
				}
			}
		}
		return nil
	})
}
