package api

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// nameColumn and ageColumn are the columns that nearly every kind has.
func nameColumn() Column {
	return Column{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
}

func ageColumn() Column {
	return text("Age", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
}

func text(name, description string) Column {
	return Column{Name: name, Type: "string", Description: description}
}

func integer(name, description string) Column {
	return Column{Name: name, Type: "integer", Description: description}
}

func boolean(name, description string) Column {
	return Column{Name: name, Type: "boolean", Description: description}
}

func wide(name, description string) Column {
	return Column{Name: name, Type: "string", Description: description, Wide: true}
}

// templateColumns are the wide columns of a kind that makes pods.
func templateColumns() []Column {
	return []Column{
		wide("Containers", "Names of each container in the template."), wide("Images", "Images referenced by each container in the template."),
	}
}

// since is the age of t as kubectl shows it.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}

func age(o metav1.Object, now time.Time) string {
	return since(o.GetCreationTimestamp().Time, now)
}

func orNone(s string) string { return orElse(s, "<none>") }

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// containerCells are the names and the images of a template's containers, each on one line.
func containerCells(containers []corev1.Container) (names, images string) {
	n, i := make([]string, len(containers)), make([]string, len(containers))
	for c := range containers {
		n[c], i[c] = containers[c].Name, containers[c].Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// listed joins the first few of many and says how many more there are.
func listed(all []string, most int) string {
	if len(all) > most {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:most], ","), len(all)-most)
	}
	return strings.Join(all, ",")
}

// plainColumns and plainRow are the table of a kind that upstream has no printer for.
func plainColumns() []Column {
	return []Column{nameColumn(), {Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}}
}

func plainRow(o metav1.Object) []any {
	return []any{o.GetName(), o.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}
