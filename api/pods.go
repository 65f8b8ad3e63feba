package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func pods() *Kind {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return install[corev1.Pod](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:     "pods",
		Singular:     "pod",
		ShortNames:   []string{"po"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        crud(),
		Subresources: []string{"attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"},
		New:          func() Object { return &corev1.Pod{} },
		NewList:      func() runtime.Object { return &corev1.PodList{} },
		Default:      func(o Object) { corev1defaults.SetObjectDefaults_Pod(o.(*corev1.Pod)) },
		Fields:       func(o Object) map[string]string { return podFields(o.(*corev1.Pod)) },
		Index:        podIndex,
		Columns: []Column{
			nameColumn(), text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
			text("Status", "The aggregate status of the containers in this pod."),
			text("Restarts", "The number of times the containers in this pod have been restarted and when the last container in "+
				"this pod has restarted."),
			ageColumn(), wide("IP", status["podIP"]), wide("Node", spec["nodeName"]),
			wide("Nominated Node", status["nominatedNodeName"]), wide("Readiness Gates", spec["readinessGates"]),
		},
		Row: func(o Object, now time.Time) []any { return podRow(o.(*corev1.Pod), now) },
	}, strategy[corev1.Pod, core.Pod]{
		in:             corev1defaults.Convert_v1_Pod_To_core_Pod,
		out:            corev1defaults.Convert_core_Pod_To_v1_Pod,
		create:         preparePodCreate,
		settle:         settlePod,
		update:         preparePodUpdate,
		status:         preparePodStatus,
		declared:       corev1defaults.Validate_Pod,
		validate:       func(n *core.Pod) field.ErrorList { return validation.ValidatePodCreate(n, podOptions(n, nil)) },
		validateUpdate: func(n, o *core.Pod) field.ErrorList { return validation.ValidatePodUpdate(n, o, podOptions(n, o)) },
		validateStatus: func(n, o *core.Pod) field.ErrorList {
			return validation.ValidatePodStatusUpdate(n, o, podOptions(n, o))
		},
		parts: map[string]part[*core.Pod]{"ephemeralcontainers": {
			prepare: prepareEphemeral,
			validate: func(n, o *core.Pod) field.ErrorList {
				return validation.ValidatePodEphemeralContainersUpdate(n, o, podOptions(n, o))
			},
		}, "resize": {
			prepare:  prepareResize,
			validate: func(n, o *core.Pod) field.ErrorList { return validation.ValidatePodResize(n, o, podOptions(n, o)) },
		}},
		warn: func(n, o *core.Pod) []string {
			if o != nil {
				return nil
			}
			return append(podNameWarning(n.Name, "the Pod's hostname"), podutil.GetWarningsForPod(context.Background(), n, nil)...)
		},
	})
}

func podFields(p *corev1.Pod) map[string]string {
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return map[string]string{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// podIndex finds pods by their node; those without one are at the empty name, where the scheduler looks.
func podIndex(o Object) map[string]string {
	return map[string]string{"node": o.(*corev1.Pod).Spec.NodeName}
}

func podOptions(n, o *core.Pod) validation.PodValidationOptions {
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&n.Spec, nil, &n.ObjectMeta, nil)
	if o != nil {
		opts = podutil.GetValidationOptionsFromPodSpecAndMeta(&n.Spec, &o.Spec, &n.ObjectMeta, &o.ObjectMeta)
	}
	opts.ResourceIsPod = true
	return opts
}

func preparePodUpdate(n, o *core.Pod) {
	n.Status = o.Status
	if n.Spec.Resources == nil && o.Spec.Resources != nil {
		n.Spec.Resources = o.Spec.Resources.DeepCopy()
	}
	podutil.DropDisabledPodFields(n, o)
	if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
		n.Generation++
	}
}

// prepareEphemeral lets an update change the ephemeral containers and nothing else.
func prepareEphemeral(n, o *core.Pod) {
	wanted := n.Spec.EphemeralContainers
	n.Spec, n.Status = o.Spec, o.Status
	n.Spec.EphemeralContainers = wanted
	metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
	podutil.DropDisabledPodFields(n, o)
	if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
		n.Generation++
	}
}

func preparePodStatus(n, o *core.Pod) {
	n.Spec, n.OwnerReferences, n.DeletionTimestamp = o.Spec, o.OwnerReferences, nil
	if n.Status.QOSClass == "" {
		n.Status.QOSClass = o.Status.QOSClass
	}
	if n.Status.ObservedGeneration == 0 {
		n.Status.ObservedGeneration = o.Status.ObservedGeneration
	}
	podutil.DropDisabledPodFields(n, o)
}

// podNameWarning tells that a name is legal but makes a poor host name.
func podNameWarning(name, use string) []string {
	msgs := utilvalidation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf(
		"metadata.name: this is used in %s, which can result in surprising behavior; a DNS label is recommended: %v", use, msgs)}
}
