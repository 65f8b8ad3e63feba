//go:build !cel

package structural

import (
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// rules are those in CEL (x-kubernetes-validations), which this build does not evaluate.
type rules struct{}

func newRules(*schema.Structural) rules { return rules{} }

func (rules) check(_, _ map[string]any, errs field.ErrorList) field.ErrorList { return errs }

// CheckRules finds nothing wrong with any rule: this build does not understand them.
func CheckRules(*field.Path, *schema.Structural) field.ErrorList { return nil }
