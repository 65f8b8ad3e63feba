package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/test/scenario"
)

// BenchmarkCluster measures the five devices of the demo: make bench BENCH=Cluster. It takes about four minutes.
func BenchmarkCluster(b *testing.B) {
	if _, err := exec.LookPath("containerd"); err != nil || testing.Short() {
		b.Skip("needs containerd, and no -short")
	}
	env, err := scenario.New("bench", 3, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Skip(err)
	}
	defer func() {
		if err := env.Lab.Close(); err != nil {
			b.Error(err)
		}
	}()
	steps := scenario.Steps()
	if _, took, err := steps[0].Do(b.Context(), env); err != nil {
		b.Fatal(took, err)
	}
	// Each runs its own fixed number of times in one iteration.
	b.Run("Idle", func(b *testing.B) { benchIdle(b, env) })
	b.Run("ApplyToReady", func(b *testing.B) {
		text, took, err := steps[1].Do(b.Context(), env)
		if err != nil {
			b.Fatal(err)
		}
		b.Log(text)
		b.ReportMetric(took.Seconds(), "s/6-replicas")
	})
	b.Run("IdleWithApp", func(b *testing.B) { benchIdle(b, env) })
	if _, err := env.Kubectl(b.Context(), "delete", "--wait", "-f", "configs/examples/hello.yaml"); err != nil {
		b.Fatal(err)
	}
	if _, err := env.WaitPods(b.Context(), "", 0); err != nil {
		b.Fatal(err)
	}
	b.Run("PodCreate", func(b *testing.B) { benchPods(b, env) })
	b.Run("IdleWith30Pods", func(b *testing.B) { benchThirty(b, env) })
	b.Run("RawContainerd", func(b *testing.B) { benchRaw(b, env) })
	b.Run("LeaderKill", func(b *testing.B) { benchLeaderKill(b, env) })
}

// settle is a pause between two measurements of the same thing.
const settle = 300 * time.Millisecond

func report(b *testing.B, times []time.Duration) {
	b.Helper()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, "max-ms")
	b.ReportMetric(0, "ns/op")
}

func client(b *testing.B, env *scenario.Env) *kube.Client {
	b.Helper()
	c, err := kube.Load(env.Lab.Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// benchIdle watches every shoal process for a minute in which nothing happens.
func benchIdle(b *testing.B, env *scenario.Env) {
	const minute = time.Minute
	time.Sleep(25 * time.Second) // what the start left to do, and the one clean-up 20 s after it
	before, err := env.Lab.Usage()
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(minute)
	after, err := env.Lab.Usage()
	if err != nil {
		b.Fatal(err)
	}
	worst := map[dev.Role]dev.Usage{}
	for i, u := range after {
		u.Written -= before[i].Written
		u.CPU -= before[i].CPU
		b.Logf("%-9s RSS %.1f MB, anonymous %.1f MB, wrote %.1f KB, %d ms CPU in %s", u.Device,
			float64(u.RSS)/1e6, float64(u.Anon)/1e6, float64(u.Written)/1e3, u.CPU*10, minute)
		role := dev.Agent
		if strings.HasPrefix(u.Device, string(dev.Server)) {
			role = dev.Server
		}
		w := worst[role]
		worst[role] = dev.Usage{RSS: max(w.RSS, u.RSS), Anon: max(w.Anon, u.Anon), Written: max(w.Written, u.Written), CPU: max(w.CPU, u.CPU)}
	}
	for role, w := range worst {
		b.ReportMetric(float64(w.RSS)/1e6, string(role)+"-RSS-MB")
		b.ReportMetric(float64(w.Anon)/1e6, string(role)+"-anon-MB")
		b.ReportMetric(float64(w.Written)/1e3, string(role)+"-written-KB/min")
		b.ReportMetric(float64(w.CPU)*10/float64(minute.Milliseconds())*100, string(role)+"-CPU-%")
	}
	b.ReportMetric(0, "ns/op")
}

// benchLeaderKill kills the leader 20 times and measures until the next write succeeds.
func benchLeaderKill(b *testing.B, env *scenario.Env) {
	ctx := b.Context()
	var times []time.Duration
	for i := range 20 {
		leader, err := env.Leader(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := env.Lab.KillShoal(leader); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		c := client(b, env) // of a server that runs
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("kill-%d", i), Namespace: "default"}}
		limit, cancel := context.WithTimeout(ctx, 20*time.Second)
		err = retry(limit, func(ctx context.Context) error {
			once, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return c.Do(once, http.MethodPost, "/api/v1/namespaces/default/configmaps", object, nil)
		})
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
		if err := env.Lab.StartShoal(ctx, leader); err != nil {
			b.Fatal(err)
		}
		if err := env.WaitNodes(ctx); err != nil {
			b.Fatal(err)
		}
		time.Sleep(time.Second) // the follower catches up
	}
	report(b, times)
}

func retry(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// benchPods measures from the creation of a pod to its running container, with the image on the device.
func benchPods(b *testing.B, env *scenario.Env) {
	ctx, c := b.Context(), client(b, env)
	const path = "/api/v1/namespaces/default/pods"
	var times []time.Duration
	for i := range 20 {
		pod := helloPod(fmt.Sprintf("bench-%d", i))
		start := time.Now()
		if err := c.Do(ctx, http.MethodPost, path, pod, nil); err != nil {
			b.Fatal(err)
		}
		err := retry(ctx, func(ctx context.Context) error {
			var now corev1.Pod
			if err := c.Do(ctx, http.MethodGet, path+"/"+pod.Name, nil, &now); err != nil {
				return err
			}
			if now.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("pod %s is %s", pod.Name, now.Status.Phase)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
		if err := c.Do(ctx, http.MethodDelete, path+"/"+pod.Name, nil, nil); err != nil {
			b.Fatal(err)
		}
		// Its removal must not run into the next start.
		err = retry(ctx, func(ctx context.Context) error {
			if err := c.Do(ctx, http.MethodGet, path+"/"+pod.Name, nil, nil); apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("pod %s is still there", pod.Name)
		})
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(settle)
	}
	report(b, times)
}

const serialDevice = "agent-1"

// helloPod is a pod of the example app on one device.
func helloPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(0)),
			NodeSelector:                  map[string]string{"kubernetes.io/hostname": serialDevice},
			Containers:                    []corev1.Container{{Name: "hello", Image: dev.RegistryHost + "/hello:v1"}},
		},
	}
}

// benchThirty has one device run 30 pods, and watches it for a minute in which nothing happens.
func benchThirty(b *testing.B, env *scenario.Env) {
	ctx, c := b.Context(), client(b, env)
	const path, count = "/api/v1/namespaces/default/pods", 30
	for i := range count {
		pod := helloPod(fmt.Sprintf("thirty-%d", i))
		if err := c.Do(ctx, http.MethodPost, path, pod, nil); err != nil {
			b.Fatal(err)
		}
	}
	running := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			var list corev1.PodList
			if err := c.Do(ctx, http.MethodGet, path, nil, &list); err != nil {
				return err
			}
			n := 0
			for _, p := range list.Items {
				if p.Status.Phase == corev1.PodRunning {
					n++
				}
			}
			if n != want || len(list.Items) != want {
				return fmt.Errorf("%d of %d pods run, want %d", n, len(list.Items), want)
			}
			return nil
		}
	}
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := retry(limit, running(count)); err != nil {
		b.Fatal(err)
	}
	benchIdle(b, env)
	for i := range count {
		if err := c.Do(ctx, http.MethodDelete, path+fmt.Sprintf("/thirty-%d", i), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := retry(ctx, running(0)); err != nil {
		b.Fatal(err)
	}
}

// benchRaw does by hand what a pod needs of containerd: a sandbox with its network, and a container.
func benchRaw(b *testing.B, env *scenario.Env) {
	ctx := b.Context()
	d, err := env.Lab.Device(serialDevice)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+d.ContainerdSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cri := runtimeapi.NewRuntimeServiceClient(conn)
	var times []time.Duration
	for i := range 20 {
		start := time.Now()
		sandbox := &runtimeapi.PodSandboxConfig{
			Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("raw-%d", i), Namespace: "raw", Uid: fmt.Sprint(i)},
			LogDirectory: filepath.Join(d.Dir, "raw"),
			Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/shoal-lab-bench/" + d.Name},
		}
		box, err := cri.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
		if err != nil {
			b.Fatal(err)
		}
		container, err := cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: box.PodSandboxId, SandboxConfig: sandbox,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "hello"},
				Image:    &runtimeapi.ImageSpec{Image: dev.RegistryHost + "/hello:v1"},
				LogPath:  fmt.Sprintf("%d.log", i),
				Linux:    &runtimeapi.LinuxContainerConfig{},
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := cri.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container.ContainerId}); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
		if _, err := cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: box.PodSandboxId}); err != nil {
			b.Fatal(err)
		}
		time.Sleep(settle)
	}
	report(b, times)
}
