package api

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// autoscalerTargets shows, for the first two metrics, what is measured and what is wanted.
func autoscalerTargets(a *autoscalingv2.HorizontalPodAutoscaler) string {
	const most = 2
	var all []string
	for i, spec := range a.Spec.Metrics {
		var status *autoscalingv2.MetricStatus
		if i < len(a.Status.CurrentMetrics) {
			status = &a.Status.CurrentMetrics[i]
		}
		all = append(all, metricCell(&spec, status))
	}
	switch {
	case len(all) == 0:
		return "<none>"
	case len(all) > most:
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// metricCell shows one metric. Those that nothing is known of yet have no status, or one of another type.
func metricCell(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	if status == nil {
		status = &autoscalingv2.MetricStatus{}
	}
	switch {
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		var is *autoscalingv2.MetricValueStatus
		if status.External != nil {
			is = &status.External.Current
		}
		return valueCell(spec.External.Target, is)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		var is *autoscalingv2.MetricValueStatus
		if status.Object != nil {
			is = &status.Object.Current
		}
		return valueCell(spec.Object.Target, is)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		is := "<unknown>"
		if status.Pods != nil {
			is = status.Pods.Current.AverageValue.String()
		}
		return is + "/" + spec.Pods.Target.AverageValue.String()
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		var is *autoscalingv2.MetricValueStatus
		if status.Resource != nil {
			is = &status.Resource.Current
		}
		return string(spec.Resource.Name) + ": " + resourceCell(spec.Resource.Target, is)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		var is *autoscalingv2.MetricValueStatus
		if status.ContainerResource != nil {
			is = &status.ContainerResource.Current
		}
		return string(spec.ContainerResource.Name) + ": " + resourceCell(spec.ContainerResource.Target, is)
	}
	return "<unknown type>"
}

// valueCell shows a metric that is a value for all pods together or, if so wanted, for each on average.
func valueCell(want autoscalingv2.MetricTarget, is *autoscalingv2.MetricValueStatus) string {
	current := "<unknown>"
	if want.AverageValue == nil {
		if is != nil {
			current = is.Value.String()
		}
		return current + "/" + want.Value.String()
	}
	if is != nil && is.AverageValue != nil {
		current = is.AverageValue.String()
	}
	return current + "/" + want.AverageValue.String() + " (avg)"
}

// resourceCell shows the use of a resource by each pod, as an amount or in percent of what it asks for.
func resourceCell(want autoscalingv2.MetricTarget, is *autoscalingv2.MetricValueStatus) string {
	current, target := "<unknown>", "<auto>"
	if want.AverageValue != nil {
		if is != nil {
			current = is.AverageValue.String()
		}
		return current + "/" + want.AverageValue.String()
	}
	if is != nil && is.AverageUtilization != nil {
		current = fmt.Sprintf("%d%%", *is.AverageUtilization)
	}
	if want.AverageUtilization != nil {
		target = fmt.Sprintf("%d%%", *want.AverageUtilization)
	}
	return current + "/" + target
}
