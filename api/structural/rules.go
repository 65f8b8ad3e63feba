//go:build cel

package structural

import (
	"context"
	"slices"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// rules are those in CEL (x-kubernetes-validations). They are compiled when the first object is checked.
type rules struct {
	tree      *schema.Structural
	validator func() *cel.Validator // nil where there are no rules
}

func newRules(tree *schema.Structural) rules {
	return rules{tree, sync.OnceValue(func() *cel.Validator { return cel.NewValidator(tree, true, celconfig.PerCallLimit) })}
}

// blocking are the errors of objects that rules cannot be evaluated for: what they read may not be what they expect.
var blocking = []field.ErrorType{
	field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid,
}

// check adds the rules that an object breaks to the errors that it has. An update, which has an older object, is forgiven what it has not
// changed.
func (r rules) check(newer, older map[string]any, errs field.ErrorList) field.ErrorList {
	if r.validator == nil {
		return errs
	}
	validator := r.validator()
	if validator == nil {
		return errs
	}
	if slices.ContainsFunc(errs, func(e *field.Error) bool { return slices.Contains(blocking, e.Type) }) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; "+
			"correct the existing errors to complete validation"))
	}
	var before any // a nil map would be an object
	var options []cel.Option
	if older != nil {
		before = older
		options = append(options, cel.WithRatcheting(common.NewCorrelatedObject(newer, older, &model.Structural{Structural: r.tree})))
	}
	broken, _ := validator.Validate(context.Background(), nil, r.tree, newer, before, celconfig.RuntimeCELCostBudget, options...)
	return append(errs, broken...)
}
