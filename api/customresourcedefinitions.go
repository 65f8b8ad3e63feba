package api

import (
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api/definition"
)

func customResourceDefinitions() *Kind {
	return install[apiextensionsv1.CustomResourceDefinition](&Kind{
		GVK:           apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Resource:      "customresourcedefinitions",
		Singular:      "customresourcedefinition",
		ShortNames:    []string{"crd", "crds"},
		Categories:    []string{"api-extensions"},
		Verbs:         crud(),
		Subresources:  []string{"status"},
		NeedsRevision: true,
		New:           func() Object { return &apiextensionsv1.CustomResourceDefinition{} },
		NewList:       func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		Default: func(o Object) {
			apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(o.(*apiextensionsv1.CustomResourceDefinition))
		},
		PrepareDelete: func(o Object, now time.Time) { endDefinition(o.(*apiextensionsv1.CustomResourceDefinition), now) },
		Columns: []Column{
			nameColumn(),
			{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		},
		Row: func(o Object, _ time.Time) []any {
			return []any{o.GetName(), o.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		},
	}, strategy[apiextensionsv1.CustomResourceDefinition, apiextensions.CustomResourceDefinition]{
		in:  apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition,
		out: apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition,
		create: func(n *apiextensions.CustomResourceDefinition) {
			n.Status, n.Generation = apiextensions.CustomResourceDefinitionStatus{}, 1
			noteStored(n)
		},
		update: func(n, o *apiextensions.CustomResourceDefinition) {
			n.Status = o.Status
			if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
				n.Generation = o.Generation + 1
			}
			noteStored(n)
		},
		status:         func(n, o *apiextensions.CustomResourceDefinition) { n.Spec = o.Spec },
		validate:       definition.Validate,
		validateUpdate: definition.ValidateUpdate,
		validateStatus: definition.ValidateStatus,
		warn:           definition.Warnings,
	})
}

// noteStored keeps the list of versions in which there may be objects.
func noteStored(d *apiextensions.CustomResourceDefinition) {
	for _, v := range d.Spec.Versions {
		if v.Storage && !apiextensions.IsStoredVersion(d, v.Name) {
			d.Status.StoredVersions = append(slices.Clone(d.Status.StoredVersions), v.Name)
		}
	}
}

// endDefinition holds a definition back until the controller has deleted its objects.
func endDefinition(d *apiextensionsv1.CustomResourceDefinition, now time.Time) {
	if !slices.Contains(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.Finalizers = append(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	definition.SetCondition(d, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	}, now)
}
