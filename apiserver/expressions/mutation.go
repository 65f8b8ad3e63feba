//go:build cel

package expressions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"

	"github.com/shoal-edge/shoal/api/expression"
)

// Mutations is a compiled MutatingAdmissionPolicy. It is safe for concurrent use.
type Mutations struct {
	compiler   *plugincel.CompositedCompiler
	conditions *Conditions
	all        []change
}

// change is one mutation.
type change struct {
	use       expression.Use
	evaluator plugincel.MutatingEvaluator
}

// Merge merges a part of an object into the whole, by the schema of its kind.
type Merge func(object, part map[string]any) (map[string]any, error)

// CompileMutations prepares a policy. What does not compile fails when it is evaluated.
func CompileMutations(name string, spec *admissionregistrationv1.MutatingAdmissionPolicySpec) (*Mutations, error) {
	params := spec.ParamKind != nil
	compiler, err := newCompiler(spec.Variables, params)
	if err != nil {
		return nil, err
	}
	variables := plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}
	m := &Mutations{compiler: compiler, conditions: compile(compiler, spec.MatchConditions, spec.FailurePolicy, variables, "policy", "mutate", name)}
	for _, how := range spec.Mutations {
		source := &expression.Source{Use: expression.Apply}
		if how.PatchType == admissionregistrationv1.PatchTypeJSONPatch {
			source.Use, source.Text = expression.JSONPatch, how.JSONPatch.Expression
		} else {
			source.Text = how.ApplyConfiguration.Expression
		}
		evaluator := compiler.CompileMutatingEvaluator(source, source.Variables(params), environment.StoredExpressions)
		m.all = append(m.all, change{source.Use, evaluator})
	}
	return m, nil
}

// Mutate makes the changes in the request's object, one after the other, and reports whether there were any.
func (m *Mutations) Mutate(ctx context.Context, s *Subject, params runtime.Object, merge Merge) (changed bool, err error) {
	if m.conditions != nil {
		if matches, err := m.conditions.holds(ctx, s, params); err != nil || !matches {
			return false, err
		}
	}
	with := plugincel.OptionalVariableBindings{VersionedParams: params, Authorizer: s.authorizer}
	ctx = m.compiler.CreateContext(ctx) // of the variables
	for _, c := range m.all {
		if errs := c.evaluator.CompilationErrors(); len(errs) > 0 {
			return changed, errors.Join(errs...)
		}
		result, _, err := c.evaluator.ForInput(ctx, s.attributes, s.request, with, s.namespace, celconfig.RuntimeCELCostBudget)
		if err == nil {
			err = result.Error
		}
		if err != nil {
			return changed, err
		}
		var made map[string]any
		if c.use == expression.JSONPatch {
			made, err = patched(s.content(), result.EvalResult)
		} else {
			made, err = applied(s.content(), result.EvalResult, merge)
		}
		if err != nil {
			return changed, err
		}
		if !reflect.DeepEqual(made, s.content()) {
			s.replace(made)
			changed = true
		}
	}
	return changed, nil
}

// applied is an object into which a part was merged.
func applied(object map[string]any, made ref.Val, merge Merge) (map[string]any, error) {
	part, ok := made.(*dynamic.ObjectVal)
	if !ok {
		return nil, fmt.Errorf("unsupported return type from ApplyConfiguration expression: %v", made.Type())
	}
	if err := part.CheckTypeNamesMatchFieldPathNames(); err != nil {
		return nil, fmt.Errorf("type mismatch: %w", err)
	}
	content, ok := part.Value().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid return type: %T", part.Value())
	}
	merged, err := merge(object, content)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: invalid ApplyConfiguration: %w", err)
	}
	return merged, nil
}

// patched is an object that was changed by a list of operations. If one of them is a test that fails, it stays as it is.
func patched(object map[string]any, made ref.Val) (map[string]any, error) {
	list, ok := made.(traits.Lister)
	if !ok {
		return nil, errors.New("type mismatch: JSONPatchType.expression should evaluate to array")
	}
	var patch jsonpatch.Patch
	for it := list.Iterator(); it.HasNext() == types.True; {
		operation, err := operationOf(it.Next())
		if err != nil {
			return nil, err
		}
		patch = append(patch, operation)
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	switch data, err = patch.Apply(data); {
	case errors.Is(err, jsonpatch.ErrTestFailed):
		return object, nil
	case err != nil:
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	var content map[string]any
	return content, utiljson.Unmarshal(data, &content)
}

func operationOf(v ref.Val) (jsonpatch.Operation, error) {
	native, err := v.ConvertToNative(reflect.TypeFor[*mutation.JSONPatchVal]())
	if err != nil {
		return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch: %w", err)
	}
	o := native.(*mutation.JSONPatchVal)
	operation := jsonpatch.Operation{}
	set := func(name string, value json.RawMessage) { operation[name] = &value }
	set("op", json.RawMessage(strconv.Quote(o.Op)))
	set("path", json.RawMessage(strconv.Quote(o.Path)))
	if o.From != "" {
		set("from", json.RawMessage(strconv.Quote(o.From)))
	}
	if o.Val == nil {
		return operation, nil
	}
	if part, ok := o.Val.(*dynamic.ObjectVal); ok {
		if err := part.CheckTypeNamesMatchFieldPathNames(); err != nil {
			return nil, fmt.Errorf("type mismatch: %w", err)
		}
	}
	value, err := o.Val.ConvertToNative(reflect.TypeFor[*structpb.Value]())
	if err != nil {
		return nil, fmt.Errorf("the value of a JSONPatch is no JSON: %w", err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("the value of a JSONPatch is no JSON: %w", err)
	}
	set("value", data)
	return operation, nil
}
