//go:build cel

package structural

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"

	"github.com/shoal-edge/shoal/api/expression"
)

const (
	// maxRuleCost and maxTotalCost bound what the rules of a schema may cost, each and all together, in CEL's units and in the worst case
	// that the schema allows.
	maxRuleCost  = 10_000_000
	maxTotalCost = 100_000_000
	// maxNamed bounds how many rules are named if all together cost too much.
	maxNamed = 4
)

// CheckRules compiles the rules in CEL of a structural schema, whose path it is told, and estimates what they cost. The messages are upstream's.
func CheckRules(path *field.Path, tree *schema.Structural) field.ErrorList {
	var c ruleCheck
	once := uint64(1)
	c.visit(&node{path: path, schema: tree, root: true, times: &once})
	if c.total <= maxTotalCost {
		return c.errs
	}
	slices.SortStableFunc(c.expensive, func(a, b cost) int { return cmp.Compare(b.units, a.units) })
	for _, e := range c.expensive[:min(len(c.expensive), maxNamed)] {
		c.errs = append(c.errs, field.Forbidden(e.path, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"))
	}
	return append(c.errs, field.Forbidden(path,
		tooExpensive("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", c.total, maxTotalCost)))
}

// node is a part of a schema, and where it stands.
type node struct {
	path   *field.Path
	schema *schema.Structural
	root   bool
	parent *node
	// step is the way from the parent's type to this one's; nil at the root.
	step func(*apiservercel.DeclType) *apiservercel.DeclType
	// times is how often values of it may be in an object; nil if nothing bounds that.
	times *uint64
	// fleeting is the first part above of which it cannot be told what a value was before; nil if there is none.
	fleeting *field.Path

	typed *apiservercel.DeclType
}

// declared is the type of the node's values, which is derived from the type above where there is one.
func (n *node) declared() *apiservercel.DeclType {
	if n.typed == nil && n.parent != nil && n.parent.typed != nil {
		n.typed = n.step(n.parent.typed)
	}
	if n.typed == nil {
		n.typed = model.SchemaDeclType(n.schema, n.root || n.schema.XEmbeddedResource)
	}
	return n.typed
}

func (n *node) below(
	path *field.Path, s *schema.Structural, times *uint64, fleeting bool, step func(*apiservercel.DeclType) *apiservercel.DeclType,
) *node {
	inner := &node{path: path, schema: s, parent: n, step: step, times: product(n.times, times), fleeting: n.fleeting}
	if fleeting && inner.fleeting == nil {
		inner.fleeting = n.path
	}
	return inner
}

// product is how often something is there that is there so often in something that is there so often.
func product(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return nil
	}
	p := times(*a, *b)
	return &p
}

func times(a, b uint64) uint64 {
	if a != 0 && b > math.MaxUint64/a {
		return math.MaxUint64
	}
	return a * b
}

// cost is what an expression costs.
type cost struct {
	path  *field.Path
	units uint64
}

type ruleCheck struct {
	errs      field.ErrorList
	total     uint64
	expensive []cost
}

func (c *ruleCheck) visit(n *node) {
	if n.schema == nil {
		return
	}
	if v := n.schema.ValidationExtensions; len(v.XValidations) > 0 {
		c.check(n)
	}
	s, once := n.schema, uint64(1)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		c.visit(n.below(n.path.Child("properties").Key(name), &property, &once, !cel.MapIsCorrelatable(s.XMapType), func(t *apiservercel.DeclType) *apiservercel.DeclType {
			escaped, ok := apiservercel.Escape(name)
			if f := t.Fields[escaped]; ok && f != nil {
				return f.Type
			}
			return nil
		}))
	}
	element := func(t *apiservercel.DeclType) *apiservercel.DeclType { return t.ElemType }
	var properties, items *int64
	if v := s.ValueValidation; v != nil {
		properties, items = v.MaxProperties, v.MaxItems
	}
	if more := s.AdditionalProperties; more != nil && more.Structural != nil {
		c.visit(n.below(n.path.Child("additionalProperties"), more.Structural, bound(properties), !cel.MapIsCorrelatable(s.XMapType), element))
	}
	if s.Items != nil {
		c.visit(n.below(n.path.Child("items"), s.Items, bound(items), s.XListType == nil || *s.XListType != "map", element))
	}
}

func bound(most *int64) *uint64 {
	if most == nil {
		return nil
	}
	n := uint64(max(*most, 0))
	return &n
}

// check compiles the rules of one node.
func (c *ruleCheck) check(n *node) {
	at := n.path.Child("x-kubernetes-validations")
	declared := n.declared()
	if declared == nil {
		c.errs = append(c.errs, field.InternalError(at, fmt.Errorf("the values of this schema have no type that rules could be about")))
		return
	}
	compiled, err := cel.Compile(n.schema, declared, celconfig.PerCallLimit, expression.Environment(), cel.NewExpressionsEnvLoader())
	if err != nil {
		c.errs = append(c.errs, field.InternalError(at, err))
		return
	}
	for i, r := range compiled {
		rule := n.schema.XValidations[i]
		path := at.Index(i)
		often := r.MaxCardinality
		if n.times != nil {
			often = *n.times
		}
		c.spend(path.Child("rule"), "estimated rule cost", times(r.MaxCost, often))
		if r.Error != nil {
			if r.Error.Type == apiservercel.ErrorTypeRequired {
				c.errs = append(c.errs, field.Required(path.Child("rule"), r.Error.Detail))
			} else {
				c.errs = append(c.errs, field.Invalid(path.Child("rule"), rule, r.Error.Detail))
			}
		}
		if r.MessageExpressionError != nil {
			c.errs = append(c.errs, field.Invalid(path.Child("messageExpression"), rule, r.MessageExpressionError.Detail))
		} else if r.MessageExpression != nil {
			c.spend(path.Child("messageExpression"), "estimated messageExpression cost", r.MessageExpressionMaxCost)
		}
		switch {
		case r.UsesOldSelf && n.fleeting != nil:
			c.errs = append(c.errs, field.Invalid(path.Child("rule"), rule.Rule,
				fmt.Sprintf("oldSelf cannot be used on the uncorrelatable portion of the schema within %v", n.fleeting)))
		case !r.UsesOldSelf && rule.OptionalOldSelf != nil:
			c.errs = append(c.errs, field.Invalid(path.Child("optionalOldSelf"), *rule.OptionalOldSelf, "may not be set if oldSelf is not used in rule"))
		}
		if rule.FieldPath != "" {
			if _, _, err := cel.ValidFieldPath(rule.FieldPath, n.schema); err != nil {
				c.errs = append(c.errs, field.Invalid(path.Child("fieldPath"), rule.FieldPath, "must be a valid path"))
			}
		}
	}
}

// spend adds what an expression costs to what all of them do.
func (c *ruleCheck) spend(path *field.Path, what string, units uint64) {
	if units > maxRuleCost {
		c.errs = append(c.errs, field.Forbidden(path, tooExpensive(what, units, maxRuleCost)))
	}
	if c.total += units; c.total < units {
		c.total = math.MaxUint64
	}
	if units >= maxTotalCost/100 {
		c.expensive = append(c.expensive, cost{path, units})
	}
}

func tooExpensive(what string, units, limit uint64) string {
	factor, over := "more than 100x", float64(units)/float64(limit)
	switch {
	case over < 1.5:
		factor = fmt.Sprintf("%fx", over)
	case over <= 100:
		factor = fmt.Sprintf("%.1fx", over)
	}
	return fmt.Sprintf("%s exceeds budget by factor of %s (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, "+
		"maps, and strings are declared)", what, factor)
}
