package custom

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
)

// install gives the kind its rules.
func (v *Version) install() {
	k := v.Kind
	k.New = func() api.Object {
		o := &Object{of: v, normal: true}
		o.SetGroupVersionKind(k.GVK)
		return o
	}
	k.Default = func(o api.Object) {
		if _, err := o.(*Object).normalize(); err != nil {
			o.(*Object).normal = true // Validate tells
		}
	}
	k.PrepareCreate = func(o api.Object) {
		if v.status {
			o.(*Object).setField("status", nil)
		}
		o.SetGeneration(1)
	}
	k.PrepareUpdate = func(newer, older api.Object) { v.prepareUpdate(newer.(*Object), older.(*Object)) }
	k.Validate = func(o api.Object) field.ErrorList { return v.validate(o.(*Object)) }
	k.ValidateUpdate = func(newer, older api.Object) field.ErrorList {
		return v.validateUpdate(newer.(*Object), older.(*Object))
	}
	if v.status {
		k.PrepareStatus = func(newer, older api.Object) { prepareStatus(newer.(*Object), older.(*Object)) }
		k.ValidateStatus = func(newer, older api.Object) field.ErrorList {
			return v.validateStatus(newer.(*Object), older.(*Object))
		}
	}
	k.Warn = warnOfFinalizers
}

// setField changes one field at the top; nil takes it away.
func (o *Object) setField(name string, value any) {
	if reflect.DeepEqual(o.Content()[name], value) {
		return
	}
	content, normal := maps.Clone(o.Content()), o.normal
	if value == nil {
		delete(content, name)
	} else {
		content[name] = value
	}
	o.SetContent(content)
	o.normal = normal
}

// prepareUpdate keeps the status for who has it as a subresource, and counts the changes of all but the metadata.
func (v *Version) prepareUpdate(newer, older *Object) {
	newer.SetGeneration(older.GetGeneration())
	older, err := older.as(newer.of)
	if err != nil {
		return // validation fails, too
	}
	if v.status {
		newer.setField("status", older.Content()["status"])
	}
	if !reflect.DeepEqual(newer.Content(), older.Content()) {
		newer.SetGeneration(older.GetGeneration() + 1)
	}
}

// prepareStatus keeps everything but the status, and who owns which field.
func prepareStatus(newer, older *Object) {
	status, fields := newer.Content()["status"], newer.GetManagedFields()
	kept, err := older.as(newer.of)
	if err != nil {
		return // validation fails, too
	}
	kept = kept.DeepCopyObject().(*Object)
	kept.setField("status", status)
	kept.normal = older.of == newer.of && newer.normal
	kept.SetManagedFields(fields)
	kept.of, kept.TypeMeta = newer.of, newer.TypeMeta
	*newer = *kept
}

func (v *Version) validate(o *Object) field.ErrorList {
	whole, err := v.seen(o)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	errs := apivalidation.ValidateObjectMeta(&o.ObjectMeta, v.Kind.Namespaced, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, v.schema().Validate(whole)...)
	return append(errs, v.validateScale(whole, true)...)
}

func (v *Version) validateUpdate(newer, older *Object) field.ErrorList {
	now, then, err := v.both(newer, older)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	errs := apivalidation.ValidateObjectMetaUpdate(&newer.ObjectMeta, &older.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, v.schema().ValidateUpdate(now, then)...)
	return append(errs, v.validateScale(now, true)...)
}

func (v *Version) validateStatus(newer, older *Object) field.ErrorList {
	now, then, err := v.both(newer, older)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	errs := apivalidation.ValidateObjectMetaUpdate(&newer.ObjectMeta, &older.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, v.schema().ValidateStatus(now, then)...)
	return append(errs, v.validateScale(now, false)...)
}

// seen is the whole object as this version names it: an object in the stored version is checked by the rules of the version that
// its author speaks.
func (v *Version) seen(o *Object) (map[string]any, error) {
	shown, err := o.as(v)
	if err != nil {
		return nil, err
	}
	whole, err := shown.Whole()
	if err != nil {
		return nil, err
	}
	whole["apiVersion"], whole["kind"] = v.Kind.GVK.GroupVersion().String(), v.Kind.GVK.Kind
	return whole, nil
}

func (v *Version) both(newer, older *Object) (now, then map[string]any, err error) {
	if now, err = v.seen(newer); err != nil {
		return nil, nil, err
	}
	then, err = v.seen(older)
	return now, then, err
}

// validateScale checks that the fields that the subresource scale shows are numbers of replicas and a selector.
func (v *Version) validateScale(whole map[string]any, spec bool) field.ErrorList {
	if v.scale == nil {
		return nil
	}
	var errs field.ErrorList
	count := func(path string) {
		n, _, err := unstructured.NestedInt64(whole, split(path)...)
		switch at := field.NewPath(path); {
		case err != nil:
			errs = append(errs, field.Invalid(at, n, err.Error()))
		case n < 0:
			errs = append(errs, field.Invalid(at, n, "should be a non-negative integer"))
		case n > math.MaxInt32:
			errs = append(errs, field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)))
		}
	}
	if spec {
		count(v.scale.SpecReplicasPath)
	}
	count(v.scale.StatusReplicasPath)
	if p := v.scale.LabelSelectorPath; p != nil {
		if text, _, err := unstructured.NestedString(whole, split(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), text, err.Error()))
		}
	}
	return errs
}

// split takes a path in dots apart.
func split(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// warnOfFinalizers tells of new finalizers whose names may be somebody else's too.
func warnOfFinalizers(newer, older api.Object) []string {
	var before []string
	if older != nil {
		before = older.GetFinalizers()
	}
	known := []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes)}
	var warnings []string
	for _, name := range newer.GetFinalizers() {
		if slices.Contains(before, name) || slices.Contains(known, name) {
			continue
		}
		for _, wrong := range validation.IsQualifiedName(name) {
			warnings = append(warnings, fmt.Sprintf("metadata.finalizers: %q: %s", name, wrong))
		}
		if !strings.Contains(name, "/") {
			hint := ""
			if strings.Contains(name, ".") {
				hint = " including a path (/)"
			}
			warnings = append(warnings, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name%s "+
				"to avoid accidental conflicts with other finalizer writers", name, hint))
		}
	}
	return warnings
}
