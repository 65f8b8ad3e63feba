//go:build cel

package expressions

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/cel-go/common/types"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/shoal-edge/shoal/api/expression"
)

// Policy is a compiled ValidatingAdmissionPolicy. It is safe for concurrent use.
type Policy struct {
	spec                         *admissionregistrationv1.ValidatingAdmissionPolicySpec
	conditions                   *Conditions
	tests, messages, annotations plugincel.ConditionEvaluator
}

// CompilePolicy prepares a policy. What does not compile fails when it is evaluated.
func CompilePolicy(name string, spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) (*Policy, error) {
	params := spec.ParamKind != nil
	compiler, err := newCompiler(spec.Variables, params)
	if err != nil {
		return nil, err
	}
	compiled := func(use expression.Use, n int, text func(i int) string) plugincel.ConditionEvaluator {
		sources := make([]plugincel.ExpressionAccessor, n)
		for i := range sources {
			if t := text(i); t != "" {
				sources[i] = &expression.Source{Use: use, Text: t}
			}
		}
		return compiler.CompileCondition(sources, (&expression.Source{Use: use}).Variables(params), environment.StoredExpressions)
	}
	variables := plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}
	return &Policy{
		spec:        spec,
		conditions:  compile(compiler, spec.MatchConditions, spec.FailurePolicy, variables, "policy", "validate", name),
		tests:       compiled(expression.Test, len(spec.Validations), func(i int) string { return spec.Validations[i].Expression }),
		messages:    compiled(expression.Message, len(spec.Validations), func(i int) string { return spec.Validations[i].MessageExpression }),
		annotations: compiled(expression.Annotation, len(spec.AuditAnnotations), func(i int) string { return spec.AuditAnnotations[i].ValueExpression }),
	}, nil
}

// newCompiler returns a compiler for expressions that use variables.
func newCompiler(variables []admissionregistrationv1.Variable, params bool) (*plugincel.CompositedCompiler, error) {
	compiler, err := plugincel.NewCompositedCompiler(expression.Environment())
	if err != nil {
		return nil, fmt.Errorf("expressions: %w", err)
	}
	for _, v := range variables {
		source := &expression.Source{Use: expression.Variable, Name: v.Name, Text: v.Expression}
		compiler.CompileAndStoreVariable(source, source.Variables(params), environment.StoredExpressions)
	}
	return compiler, nil
}

// Failure is a validation that a request does not pass.
type Failure struct {
	Index   int // which of the policy's
	Message string
	Reason  metav1.StatusReason
}

// Annotation is something that the audit log shall say.
type Annotation struct{ Key, Value string }

// Evaluate evaluates a policy. What cannot be evaluated fails, unless failures are to be ignored.
func (p *Policy) Evaluate(ctx context.Context, s *Subject, params runtime.Object) ([]Failure, []Annotation) {
	if p.conditions != nil {
		if matches, err := p.conditions.holds(ctx, s, params); err != nil || !matches {
			return p.failed(0, err), nil
		}
	}
	failures, left := p.validate(ctx, s, params)
	annotations, errs := p.annotate(ctx, s, params, left)
	return append(failures, errs...), annotations
}

// failed is the failure of a policy that could not be evaluated.
func (p *Policy) failed(index int, err error) []Failure {
	if err == nil || p.spec.FailurePolicy != nil && *p.spec.FailurePolicy == admissionregistrationv1.Ignore {
		return nil
	}
	return []Failure{{Index: index, Message: err.Error()}}
}

func (p *Policy) validate(ctx context.Context, s *Subject, params runtime.Object) (failures []Failure, left int64) {
	with := plugincel.OptionalVariableBindings{VersionedParams: params, Authorizer: s.authorizer}
	results, left, err := p.tests.ForInput(ctx, s.attributes, s.request, with, s.namespace, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return p.failed(0, err), left
	}
	var messages []plugincel.EvaluationResult
	var unexplained error
	for i, result := range results {
		switch {
		case result.Error != nil:
			failures = append(failures, p.failed(i, result.Error)...)
		case result.EvalResult != types.True:
			if messages == nil && unexplained == nil { // evaluated only where there is something to say
				messages, left, unexplained = p.messages.ForInput(ctx, s.attributes, s.request,
					plugincel.OptionalVariableBindings{VersionedParams: params}, s.namespace, left)
			}
			if unexplained != nil {
				failures = append(failures, p.failed(i, fmt.Errorf("failed messageExpression: %w", unexplained))...)
				continue
			}
			failures = append(failures, p.failure(i, messages[i]))
		}
	}
	return failures, left
}

// failure says why a request does not pass a validation: what an expression says, or a text, or the validation itself.
func (p *Policy) failure(i int, said plugincel.EvaluationResult) Failure {
	v := &p.spec.Validations[i]
	f := Failure{Index: i, Reason: metav1.StatusReasonInvalid, Message: strings.TrimSpace(v.Message)}
	if v.Reason != nil {
		f.Reason = *v.Reason
	}
	if said.Error == nil && said.EvalResult != nil {
		text, _ := said.EvalResult.Value().(string)
		text = strings.TrimSpace(text)
		if text != "" && len(text) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(text, "\n") {
			f.Message = text
		}
	}
	if f.Message == "" {
		f.Message = "failed expression: " + strings.TrimSpace(v.Expression)
	}
	return f
}

func (p *Policy) annotate(ctx context.Context, s *Subject, params runtime.Object, budget int64) (all []Annotation, failures []Failure) {
	const longest = 10 << 10
	with := plugincel.OptionalVariableBindings{VersionedParams: params, Authorizer: s.authorizer}
	results, _, err := p.annotations.ForInput(ctx, s.attributes, s.request, with, s.namespace, budget)
	if err != nil {
		return nil, p.failed(0, err)
	}
	for i, result := range results {
		if result.Error != nil {
			failures = append(failures, p.failed(0, result.Error)...)
			continue
		}
		if result.EvalResult == nil {
			continue
		}
		text, _ := result.EvalResult.Value().(string) // or null
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, Annotation{p.spec.AuditAnnotations[i].Key, text[:min(len(text), longest)]})
		}
	}
	return all, failures
}
