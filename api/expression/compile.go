//go:build cel

package expression

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Evaluated reports whether this build evaluates expressions.
const Evaluated = true

// Environment is what all expressions may use. It is made when the first one is there.
var Environment = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// Stateless compiles expressions that use no variables. Making one takes a while, so all share it.
var Stateless = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(Environment()) })

// returns are the types that an expression may have.
var returns = map[Use][]*cel.Type{
	Test: {cel.BoolType}, Message: {cel.StringType}, Annotation: {cel.StringType, cel.NullType}, Variable: {cel.AnyType, cel.DynType},
	Apply: {types.NewObjectType("Object")}, JSONPatch: {cel.ListType(types.NewObjectType("JSONPatch"))},
}

// Source is an expression as upstream's packages take it.
type Source struct {
	Use Use
	// Name is what a variable is called.
	Name, Text string
}

// GetName implements NamedExpressionAccessor.
func (s *Source) GetName() string { return s.Name }

// GetExpression implements ExpressionAccessor.
func (s *Source) GetExpression() string { return s.Text }

// ReturnTypes implements ExpressionAccessor.
func (s *Source) ReturnTypes() []*cel.Type { return returns[s.Use] }

// Variables are what an expression may use besides the request: a policy's parameters, if it is no message the authorizer, and if it makes a
// change the types of those.
func (s *Source) Variables(params bool) plugincel.OptionalVariableDeclarations {
	return plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: s.Use != Message, HasPatchTypes: s.Use == Apply || s.Use == JSONPatch}
}

// Compiler checks the expressions of one policy. It is not for several goroutines.
type Compiler struct {
	params   bool
	compiler *plugincel.CompositedCompiler
}

// NewCompiler returns a compiler for expressions that know a policy's parameters, or do not.
func NewCompiler(params bool) *Compiler { return &Compiler{params: params} }

// Check compiles an expression. A variable, which comes before those that use it, has a name.
func (c *Compiler) Check(use Use, name, text string, path *field.Path) field.ErrorList {
	if c.compiler == nil {
		var err error
		if c.compiler, err = plugincel.NewCompositedCompiler(Environment()); err != nil {
			return field.ErrorList{field.InternalError(path, err)}
		}
	}
	source := &Source{use, name, text}
	if use == Variable {
		return told(c.compiler.CompileAndStoreVariable(source, source.Variables(c.params), environment.NewExpressions), text, path)
	}
	return told(c.compiler.CompileCELExpression(source, source.Variables(c.params), environment.NewExpressions), text, path)
}

// CheckCondition compiles a condition, which uses no variables.
func CheckCondition(params bool, text string, path *field.Path) field.ErrorList {
	source := &Source{Use: Test, Text: text}
	return told(Stateless().CompileCELExpression(source, source.Variables(params), environment.NewExpressions), text, path)
}

// told is what is wrong with an expression, in upstream's words.
func told(result plugincel.CompilationResult, text string, path *field.Path) field.ErrorList {
	wrong := result.Error
	if wrong == nil {
		return nil
	}
	switch wrong.Type {
	case apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, wrong.Detail)}
	case apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(path, text, wrong.Detail)}
	}
	return field.ErrorList{field.InternalError(path, fmt.Errorf("compile an expression: %w", wrong))}
}
