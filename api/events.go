package api

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	eventsv1conv "k8s.io/kubernetes/pkg/apis/events/v1"
)

func events() *Kind {
	event := corev1.Event{}.SwaggerDoc()
	return install[corev1.Event](&Kind{
		GVK:            corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:       "events",
		Singular:       "event",
		ShortNames:     []string{"ev"},
		Namespaced:     true,
		Verbs:          crud(),
		CreateOnUpdate: true,
		Class:          func(string) Class { return Volatile },
		New:            func() Object { return &corev1.Event{} },
		NewList:        func() runtime.Object { return &corev1.EventList{} },
		Fields:         func(o Object) map[string]string { return eventFields(o.(*corev1.Event)) },
		Columns: []Column{
			text("Last Seen", event["lastTimestamp"]), text("Type", event["type"]), text("Reason", event["reason"]),
			text("Object", event["involvedObject"]), wide("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
			wide("Source", event["source"]), text("Message", event["message"]), wide("First Seen", event["firstTimestamp"]),
			wide("Count", event["count"]),
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"], Wide: true},
		},
		Row: func(o Object, now time.Time) []any { return eventRow(o.(*corev1.Event), now) },
	}, eventStrategy(corev1.SchemeGroupVersion))
}

// eventStrategy judges events by what a client of the given version has to know.
func eventStrategy(version schema.GroupVersion) strategy[corev1.Event, core.Event] {
	return strategy[corev1.Event, core.Event]{
		in:             corev1defaults.Convert_v1_Event_To_core_Event,
		out:            corev1defaults.Convert_core_Event_To_v1_Event,
		validate:       func(n *core.Event) field.ErrorList { return validation.ValidateEventCreate(n, version) },
		validateUpdate: func(n, o *core.Event) field.ErrorList { return validation.ValidateEventUpdate(n, o, version) },
		declared:       corev1defaults.Validate_Event,
	}
}

// eventsV1 serves the same events as a group of their own, with other names and more to ask of a new one.
func eventsV1(stored *Kind) *Kind {
	k := conversions[eventsv1.Event, corev1.Event, core.Event]{
		gvk:       eventsv1.SchemeGroupVersion.WithKind("Event"),
		new:       func() Object { return &eventsv1.Event{} },
		newList:   func() runtime.Object { return &eventsv1.EventList{} },
		in:        eventsv1conv.Convert_v1_Event_To_core_Event,
		out:       eventsv1conv.Convert_core_Event_To_v1_Event,
		storedIn:  corev1defaults.Convert_v1_Event_To_core_Event,
		storedOut: corev1defaults.Convert_core_Event_To_v1_Event,
	}.of(stored)
	k.Fields = func(o Object) map[string]string { return eventV1Fields(o.(*corev1.Event)) }
	judged := install[corev1.Event](&Kind{GVK: stored.GVK}, eventStrategy(eventsv1.SchemeGroupVersion))
	k.Validate, k.ValidateUpdate = judged.Validate, judged.ValidateUpdate
	return k
}

// eventV1Fields are those of the same event under the names of events.k8s.io.
func eventV1Fields(e *corev1.Event) map[string]string {
	fields := map[string]string{}
	for name, value := range eventFields(e) {
		switch within, ok := strings.CutPrefix(name, "involvedObject."); {
		case ok:
			fields["regarding."+within] = value
		case name == "reportingComponent":
			fields["reportingController"] = value
		case name != "source":
			fields[name] = value
		}
	}
	return fields
}

func eventFields(e *corev1.Event) map[string]string {
	return map[string]string{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         orElse(e.Source.Component, e.ReportingController),
		"type":                           e.Type,
	}
}

func eventRow(e *corev1.Event, now time.Time) []any {
	first := since(e.FirstTimestamp.Time, now)
	if e.FirstTimestamp.IsZero() {
		first = since(e.EventTime.Time, now)
	}
	last := since(e.LastTimestamp.Time, now)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := e.Count
	switch {
	case e.Series != nil:
		last, count = since(e.Series.LastObservedTime.Time, now), e.Series.Count
	case count == 0:
		count = 1 // an event that happened once needs not say so
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	source := orElse(e.Source.Component, e.ReportingController)
	if host := orElse(e.Source.Host, e.ReportingInstance); host != "" {
		source += ", " + host
	}
	return []any{
		last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, int64(count), e.Name,
	}
}
