//go:build !cel

package expression

import "k8s.io/apimachinery/pkg/util/validation/field"

// Evaluated reports whether this build evaluates expressions.
const Evaluated = false

// Compiler checks nothing.
type Compiler struct{}

// NewCompiler returns a compiler.
func NewCompiler(bool) *Compiler { return &Compiler{} }

// CheckCondition finds nothing wrong.
func CheckCondition(bool, string, *field.Path) field.ErrorList { return nil }

// Check finds nothing wrong.
func (c *Compiler) Check(Use, string, string, *field.Path) field.ErrorList { return nil }
