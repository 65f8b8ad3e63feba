package api

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"
)

// Upstream's package of these checks depends on the API server and its expression language, which cost megabytes that have
// nothing to do with autoscalers. What follows says the same with the same words.

// scaleTarget says how strictly an object reference is judged.
type scaleTarget struct{ anyVersion, coreToo, declared bool }

func validateAutoscaler(n *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
	errs := validation.ValidateObjectMeta(&n.ObjectMeta, true, apimachineryvalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	target := scaleTarget{coreToo: n.Spec.ScaleTargetRef.Kind == "ReplicationController", declared: true}
	return append(errs, checkAutoscaler(&n.Spec, target, scaleTarget{coreToo: true})...)
}

func validateAutoscalerUpdate(n, o *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&n.ObjectMeta, &o.ObjectMeta, field.NewPath("metadata"))
	target, described := scaleTarget{declared: true}, scaleTarget{coreToo: true}
	newRef, oldRef := n.Spec.ScaleTargetRef, o.Spec.ScaleTargetRef
	switch {
	case newRef.APIVersion == oldRef.APIVersion && newRef.Kind == oldRef.Kind:
		target.anyVersion = true
	case newRef.Kind == "ReplicationController":
		target.coreToo = true
	}
	for _, m := range o.Spec.Metrics {
		if m.Object != nil && checkVersion(m.Object.DescribedObject.APIVersion, described) != nil {
			described.anyVersion = true
		}
	}
	return append(errs, checkAutoscaler(&n.Spec, target, described)...)
}

func validateAutoscalerStatus(n, o *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&n.ObjectMeta, &o.ObjectMeta, field.NewPath("metadata"))
	path := field.NewPath("status")
	for i, c := range n.Status.Conditions {
		if g := c.ObservedGeneration; g != nil {
			errs = append(errs, validation.ValidateNonnegativeField(*g, path.Child("conditions").Index(i).Child("observedGeneration"))...)
		}
	}
	errs = append(errs, validation.ValidateNonnegativeField(int64(n.Status.CurrentReplicas), path.Child("currentReplicas"))...)
	return append(errs, validation.ValidateNonnegativeField(int64(n.Status.DesiredReplicas), path.Child("desiredReplicas"))...)
}

func checkAutoscaler(s *autoscaling.HorizontalPodAutoscalerSpec, target, described scaleTarget) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	least, most := ptr.Deref(s.MinReplicas, 0), path.Child("maxReplicas")
	if least < 0 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), least, "must be greater than or equal to 0").
			WithOrigin("minimum").MarkCoveredByDeclarative())
	}
	switch {
	case s.MaxReplicas == 0:
		errs = append(errs, field.Required(most, "must be set and greater than 0").MarkCoveredByDeclarative())
	case s.MaxReplicas < 0:
		errs = append(errs, field.Invalid(most, s.MaxReplicas, "must be greater than or equal to 1").
			WithOrigin("minimum").MarkCoveredByDeclarative())
	}
	if s.MinReplicas != nil && s.MaxReplicas < least {
		errs = append(errs, field.Invalid(most, s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, checkReference(s.ScaleTargetRef, path.Child("scaleTargetRef"), target)...)
	outside := false
	for i, m := range s.Metrics {
		errs = append(errs, checkMetric(m, path.Child("metrics").Index(i), described)...)
		outside = outside || m.Type == autoscaling.ObjectMetricSourceType || m.Type == autoscaling.ExternalMetricSourceType
	}
	if s.MinReplicas != nil && least == 0 && !outside {
		errs = append(errs, field.Forbidden(path.Child("metrics"),
			"must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	if b := s.Behavior; b != nil {
		errs = append(errs, checkScaling(b.ScaleUp, path.Child("behavior", "scaleUp"))...)
		errs = append(errs, checkScaling(b.ScaleDown, path.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func checkReference(ref autoscaling.CrossVersionObjectReference, path *field.Path, how scaleTarget) field.ErrorList {
	var errs field.ErrorList
	check := func(path *field.Path, value string) {
		if value == "" {
			err := field.Required(path, "")
			if how.declared {
				err = err.MarkCoveredByDeclarative()
			}
			errs = append(errs, err)
			return
		}
		for _, why := range content.IsPathSegmentName(value) {
			errs = append(errs, field.Invalid(path, value, why))
		}
	}
	check(path.Child("kind"), ref.Kind)
	check(path.Child("name"), ref.Name)
	if err := checkVersion(ref.APIVersion, how); err != nil {
		errs = append(errs, field.Invalid(path.Child("apiVersion"), ref.APIVersion, err.Error()))
	}
	return errs
}

func checkVersion(apiVersion string, how scaleTarget) error {
	gv, err := schema.ParseGroupVersion(apiVersion)
	switch {
	case how.anyVersion:
		return nil
	case err == nil && gv.Group == "" && !how.coreToo:
		return fmt.Errorf("apiVersion must specify API group")
	}
	return err
}
