package api

import (
	"fmt"
	"time"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// same is the conversion of a kind of our own: the type that is served is the one that is checked.
func same[T any](from, to *T, _ conversion.Scope) error {
	*to = *from
	return nil
}

// checkMeta checks the metadata of an object without a namespace.
func checkMeta(meta *metav1.ObjectMeta) field.ErrorList {
	return apivalidation.ValidateObjectMeta(meta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func checkMetaUpdate(newer, older *metav1.ObjectMeta) field.ErrorList {
	return apivalidation.ValidateObjectMetaUpdate(newer, older, field.NewPath("metadata"))
}

// atLeast and within check a number.
func atLeast(least, n int64, path *field.Path) field.ErrorList {
	if n < least {
		return field.ErrorList{field.Invalid(path, n, fmt.Sprintf("must be at least %d", least))}
	}
	return nil
}

func within(least, most, n int64, path *field.Path) field.ErrorList {
	if n < least || n > most {
		return field.ErrorList{field.Invalid(path, n, fmt.Sprintf("must be from %d to %d", least, most))}
	}
	return nil
}

// notNegative checks a duration; nil is fine.
func notNegative(d *metav1.Duration, path *field.Path) field.ErrorList {
	if d != nil && d.Duration < 0 {
		return field.ErrorList{field.Invalid(path, d.Duration.String(), "must not be negative")}
	}
	return nil
}

// distinct checks that no name of a list is empty or there twice.
func distinct(names []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range names {
		switch {
		case name == "":
			errs = append(errs, field.Required(path.Index(i), ""))
		case seen[name]:
			errs = append(errs, field.Duplicate(path.Index(i), name))
		}
		seen[name] = true
	}
	return errs
}

func defaultDuration(d **metav1.Duration, standard time.Duration) {
	if *d == nil {
		*d = &metav1.Duration{Duration: standard}
	}
}
