package api

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// templateOptions are the options by which the template of a kind that makes pods is validated; older is nil for a new one.
func templateOptions(newer, older *core.PodTemplateSpec) validation.PodValidationOptions {
	return podutil.GetValidationOptionsFromPodTemplate(newer, older)
}

// templateWarnings are what a client should know of a template; older is nil for a new one.
func templateWarnings(path *field.Path, newer, older *core.PodTemplateSpec) []string {
	return podutil.GetWarningsForPodTemplate(context.Background(), path, newer, older)
}
