package api

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// rules are the checks that upstream generates from the comments of a type, such as Validate_Pod, for pointers V. Some replace checks that
// were written by hand, others stand beside them.
type rules[V any] func(ctx context.Context, op operation.Operation, path *field.Path, newer, older V) field.ErrorList

// options are what the generated rules ask for: upstream's feature gates, at their defaults in the version served.
var options = sync.OnceValue(func() map[string]bool {
	return map[string]bool{
		"HPAScaleToZero":  true,
		"WorkloadWithJob": false,
		"InPlacePodVerticalScalingSchedulerPreemption": false,
	}
})

// creation is the operation of a new object.
func creation() operation.Operation {
	return operation.Operation{Type: operation.Create, Options: options()}
}

// change is the operation of an update, of the object itself or by way of a subresource.
func change(subresource ...string) operation.Operation {
	return operation.Operation{Type: operation.Update, Options: options(), Request: operation.Request{Subresources: subresource}}
}

// join adds what the generated rules find to what the handwritten checks found, as upstream's API server does: rules in
// trial are left out, and errors that both found are told once.
func join[V any](
	errs field.ErrorList, declared rules[V], op operation.Operation, newer, older V, same []field.NormalizationRule,
) field.ErrorList {
	ctx := context.Background()
	found := validate.FilterEnforcedDeclarativeErrors(ctx, declared(ctx, op, nil, newer, older), true)
	errs = validate.FilterCoveredHandwrittenErrors(ctx, errs.MarkFromImperative(), found, true, same...)
	return append(errs, found...)
}
