//go:build cel

package expressions

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/expression"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/matching"
)

// Conditions are what must hold of a request for somebody to be asked about it.
type Conditions struct{ matcher matchconditions.Matcher }

// Compile prepares the conditions of a webhook; nil if there are none. The type of the webhook and its name are for metrics.
func Compile(all []admissionregistrationv1.MatchCondition, failure *admissionregistrationv1.FailurePolicyType, typeName, name string) *Conditions {
	return compile(stateless{expression.Stateless()}, all, failure, plugincel.OptionalVariableDeclarations{HasAuthorizer: true},
		"webhook", typeName, name)
}

// stateless compiles conditions that use no variables.
type stateless struct{ plugincel.Compiler }

func (s stateless) CompileCondition(
	sources []plugincel.ExpressionAccessor, variables plugincel.OptionalVariableDeclarations, mode environment.Type,
) plugincel.ConditionEvaluator {
	results := make([]plugincel.CompilationResult, len(sources))
	for i := range sources {
		results[i] = s.CompileCELExpression(sources[i], variables, mode)
	}
	return plugincel.NewCondition(results)
}

func compile(
	by plugincel.ConditionCompiler, all []admissionregistrationv1.MatchCondition, failure *admissionregistrationv1.FailurePolicyType,
	variables plugincel.OptionalVariableDeclarations, kind, typeName, name string,
) *Conditions {
	if len(all) == 0 {
		return nil
	}
	sources := make([]plugincel.ExpressionAccessor, len(all))
	for i := range all {
		sources[i] = (*matchconditions.MatchCondition)(&all[i])
	}
	compiled := by.CompileCondition(sources, variables, environment.StoredExpressions)
	return &Conditions{matchconditions.NewMatcher(compiled, failure, kind, typeName, name)}
}

// Match reports whether all conditions hold of a request, seen in the version of kind. It fails if that cannot be told and such failures are not
// to be ignored.
func (c *Conditions) Match(ctx context.Context, r *matching.Request, kind *api.Kind, z access.Authorizer) (bool, error) {
	s, err := NewSubject(r, kind, z)
	if err != nil {
		return false, err
	}
	return c.holds(ctx, s, nil)
}
