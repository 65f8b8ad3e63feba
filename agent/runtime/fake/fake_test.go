package fake_test

import (
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime/conformance"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

func TestConformance(t *testing.T) {
	r := fake.New(fake.Config{
		Missing: func(ref string) bool { return ref == "shoal.dev/none:1" },
		Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
			if c.Metadata.Name == "fail" {
				return fake.Behaviour{ExitAfter: time.Millisecond, ExitCode: 3, Lines: []string{"hello"}}
			}
			return fake.Behaviour{}
		},
	})
	conformance.Run(t, conformance.Env{Runtime: r, Image: "example.com/a:1"})
}
