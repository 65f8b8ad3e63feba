package cri_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/conformance"
	"github.com/shoal-edge/shoal/agent/runtime/containerdtest"
)

func TestConformance(t *testing.T) {
	d := containerdtest.Start(t)
	conformance.Run(t, conformance.Env{
		Runtime: d.Runtime, Image: containerdtest.Image, CgroupParent: containerdtest.CgroupParent,
		Forever: []string{"/bin/sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"},
		Fail:    []string{"/bin/sh", "-c", "echo hello; exit 3"},
	})
}

// BenchmarkRaw is what a pod costs without an agent: sandbox, network and one container.
func BenchmarkRaw(b *testing.B) {
	d := containerdtest.Start(b)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for b.Loop() {
		uid := uuid.NewString()
		s := &criapi.PodSandboxConfig{
			Metadata: &criapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: uid}, LogDirectory: d.Dir,
			Labels: map[string]string{runtime.LabelPodUID: uid}, Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: containerdtest.CgroupParent},
		}
		sandbox, err := d.Runtime.RunSandbox(ctx, s, "")
		if err != nil {
			b.Fatal(err)
		}
		c := &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "main"}, Image: &criapi.ImageSpec{Image: containerdtest.Image},
			Labels: map[string]string{runtime.LabelPodUID: uid}, LogPath: "main.log", Linux: &criapi.LinuxContainerConfig{},
		}
		id, err := d.Runtime.CreateContainer(ctx, sandbox, c, s)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Runtime.StartContainer(ctx, id); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Runtime.StopSandbox(ctx, sandbox); err != nil {
			b.Fatal(err)
		}
		if err := d.Runtime.RemoveSandbox(ctx, sandbox); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
