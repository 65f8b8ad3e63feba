package configs

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// The examples are what people copy: each has to be taken as it is.
func TestExamples(t *testing.T) {
	for _, file := range []string{"examples/server.yaml", "examples/agent.yaml", "examples/witness.yaml"} {
		if _, err := Load(file); err != nil {
			t.Error(err)
		}
	}
	for file, want := range map[string]int{"examples/hello.yaml": 2, "examples/hardware.yaml": 1} {
		deployments(t, file, want)
	}
}

func deployments(t *testing.T, file string, want int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(string(data), "\n---\n")
	if len(documents) != want {
		t.Fatalf("%s: %d documents", file, len(documents))
	}
	for _, document := range documents {
		var d appsv1.Deployment
		if err := yaml.UnmarshalStrict([]byte(document), &d); err != nil {
			t.Error(err)
		}
		if d.Kind != "Deployment" || len(d.Spec.Template.Spec.Containers) != 1 {
			t.Errorf("not a deployment of one container: %s", document)
		}
	}
}
