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
	data, err := os.ReadFile("examples/hello.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(string(data), "\n---\n")
	if len(documents) != 2 {
		t.Fatalf("%d documents", len(documents))
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
