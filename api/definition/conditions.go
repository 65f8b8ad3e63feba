package definition

import (
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition finds a condition; nil when there is none of that type.
func Condition(d *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) *apiextensionsv1.CustomResourceDefinitionCondition {
	for i := range d.Status.Conditions {
		if d.Status.Conditions[i].Type == t {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}

// Holds reports whether a condition is true.
func Holds(d *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	c := Condition(d, t)
	return c != nil && c.Status == apiextensionsv1.ConditionTrue
}

// SetCondition adds or changes a condition. Its time is that of the last change of its status.
func SetCondition(d *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	older := Condition(d, c.Type)
	if older == nil {
		d.Status.Conditions = append(d.Status.Conditions, c)
		return
	}
	if older.Status == c.Status && !older.LastTransitionTime.IsZero() {
		c.LastTransitionTime = older.LastTransitionTime
	}
	*older = c
}
