package api

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// metricSource is one of the places that a metric can come from: its field, and what it asks of that.
type metricSource struct {
	of    autoscaling.MetricSourceType
	field string
	set   bool
	check func(path *field.Path) field.ErrorList
}

// sources are the sources of a metric, of which it must have the one that its type names and no other.
func sources(m *autoscaling.MetricSpec, described scaleTarget) []metricSource {
	return []metricSource{
		{autoscaling.ObjectMetricSourceType, "object", m.Object != nil, func(path *field.Path) field.ErrorList {
			errs := checkReference(m.Object.DescribedObject, path.Child("describedObject"), described)
			errs = append(errs, checkMetricName(m.Object.Metric, path.Child("metric"))...)
			errs = append(errs, checkTarget(m.Object.Target, path.Child("target"))...)
			if m.Object.Target.Value == nil && m.Object.Target.AverageValue == nil {
				errs = append(errs, field.Required(path.Child("target", "averageValue"), "must set either a target value or averageValue"))
			}
			return errs
		}},
		{autoscaling.ExternalMetricSourceType, "external", m.External != nil, func(path *field.Path) field.ErrorList {
			errs := checkMetricName(m.External.Metric, path.Child("metric"))
			errs = append(errs, checkTarget(m.External.Target, path.Child("target"))...)
			switch t := m.External.Target; {
			case t.Value == nil && t.AverageValue == nil:
				errs = append(errs, field.Required(path.Child("target", "averageValue"),
					"must set either a target value for metric or a per-pod target"))
			case t.Value != nil && t.AverageValue != nil:
				errs = append(errs, field.Forbidden(path.Child("target", "value"),
					"may not set both a target value for metric and a per-pod target"))
			}
			return errs
		}},
		{autoscaling.PodsMetricSourceType, "pods", m.Pods != nil, func(path *field.Path) field.ErrorList {
			errs := checkMetricName(m.Pods.Metric, path.Child("metric"))
			errs = append(errs, checkTarget(m.Pods.Target, path.Child("target"))...)
			if m.Pods.Target.AverageValue == nil {
				errs = append(errs, field.Required(path.Child("target", "averageValue"), "must specify a positive target averageValue"))
			}
			return errs
		}},
		{autoscaling.ResourceMetricSourceType, "resource", m.Resource != nil, func(path *field.Path) field.ErrorList {
			var errs field.ErrorList
			if m.Resource.Name == "" {
				errs = append(errs, field.Required(path.Child("name"), "must specify a resource name"))
			}
			return append(errs, checkResourceTarget(m.Resource.Target, path.Child("target"))...)
		}},
		{autoscaling.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(path *field.Path) field.ErrorList {
			var errs field.ErrorList
			if c := m.ContainerResource; c.Name == "" {
				errs = append(errs, field.Required(path.Child("name"), "must specify a resource name"))
			} else {
				errs = append(errs, validation.ValidateContainerResourceName(c.Name, path.Child("name"))...)
			}
			if c := m.ContainerResource; c.Container == "" {
				errs = append(errs, field.Required(path.Child("container"), "must specify a container"))
			} else {
				errs = append(errs, validation.ValidateDNS1123Label(c.Container, path.Child("container"))...)
			}
			return append(errs, checkResourceTarget(m.ContainerResource.Target, path.Child("target"))...)
		}},
	}
}

func checkMetric(m autoscaling.MetricSpec, path *field.Path, described scaleTarget) field.ErrorList {
	var errs field.ErrorList
	known := []autoscaling.MetricSourceType{
		autoscaling.ContainerResourceMetricSourceType, autoscaling.ExternalMetricSourceType, autoscaling.ObjectMetricSourceType,
		autoscaling.PodsMetricSourceType, autoscaling.ResourceMetricSourceType,
	}
	if m.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric source type"))
	}
	if !slices.Contains(known, m.Type) {
		errs = append(errs, field.NotSupported(path.Child("type"), m.Type, known))
	}
	all, checked := sources(&m, described), false
	for _, s := range all {
		if s.set && !checked {
			errs, checked = append(errs, s.check(path.Child(s.field))...), true
		}
	}
	for _, s := range all {
		switch {
		case !slices.Contains(known, m.Type): // what belongs to it cannot be said
		case s.of == m.Type && !s.set:
			errs = append(errs, field.Required(path.Child(s.field), "must populate information for the given metric source"))
		case s.of != m.Type && s.set:
			errs = append(errs, field.Forbidden(path.Child(s.field), "must populate the given metric source only"))
		}
	}
	return errs
}

func checkMetricName(id autoscaling.MetricIdentifier, path *field.Path) field.ErrorList {
	if id.Name == "" {
		return field.ErrorList{field.Required(path.Child("name"), "must specify a metric name")}
	}
	var errs field.ErrorList
	for _, why := range content.IsPathSegmentName(id.Name) {
		errs = append(errs, field.Invalid(path.Child("name"), id.Name, why))
	}
	return errs
}

func checkTarget(t autoscaling.MetricTarget, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric target type"))
	}
	switch t.Type {
	case autoscaling.UtilizationMetricType, autoscaling.ValueMetricType, autoscaling.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(path.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be positive"))
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("averageValue"), t.AverageValue, "must be positive"))
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		errs = append(errs, field.Invalid(path.Child("averageUtilization"), t.AverageUtilization, "must be greater than 0"))
	}
	return errs
}

// checkResourceTarget asks for an amount or for a utilization.
func checkResourceTarget(t autoscaling.MetricTarget, path *field.Path) field.ErrorList {
	errs := checkTarget(t, path)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(path.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func checkScaling(r *autoscaling.HPAScalingRules, path *field.Path) field.ErrorList {
	const longestWindow, longestPeriod = 3600, 1800
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil && *w < 0 {
		errs = append(errs, field.Invalid(path.Child("stabilizationWindowSeconds"), w, "must be greater than or equal to zero"))
	} else if w != nil && *w > longestWindow {
		errs = append(errs, field.Invalid(path.Child("stabilizationWindowSeconds"), w, fmt.Sprintf("must be less than or equal to %d", longestWindow)))
	}
	selects := []autoscaling.ScalingPolicySelect{
		autoscaling.DisabledPolicySelect, autoscaling.MaxPolicySelect, autoscaling.MinPolicySelect,
	}
	if r.SelectPolicy != nil && !slices.Contains(selects, *r.SelectPolicy) {
		errs = append(errs, field.NotSupported(path.Child("selectPolicy"), r.SelectPolicy, selects))
	}
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(path.Child("policies"), "must specify at least one Policy"))
	}
	kinds := []autoscaling.HPAScalingPolicyType{autoscaling.PercentScalingPolicy, autoscaling.PodsScalingPolicy}
	for i, p := range r.Policies {
		path := path.Child("policies").Index(i)
		if !slices.Contains(kinds, p.Type) {
			errs = append(errs, field.NotSupported(path.Child("type"), p.Type, kinds))
		}
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(path.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(path.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		} else if p.PeriodSeconds > longestPeriod {
			errs = append(errs, field.Invalid(path.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %d", longestPeriod)))
		}
	}
	if r.Tolerance != nil {
		errs = append(errs, validation.ValidateNonnegativeQuantity(*r.Tolerance, path.Child("tolerance"))...)
	}
	return errs
}
