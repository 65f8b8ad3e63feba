package api

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api/expression"
)

// Upstream's package of these checks depends on all of client-go. What follows says the same.

const staticSuffix = ".static.k8s.io"

// checkAdmissionMeta checks the metadata of a rule of admission, which is no file of the server's own.
func checkAdmissionMeta(newer, older *metav1.ObjectMeta) field.ErrorList {
	path := field.NewPath("metadata")
	if older != nil {
		return genericvalidation.ValidateObjectMetaUpdate(newer, older, path)
	}
	errs := genericvalidation.ValidateObjectMeta(newer, false, genericvalidation.NameIsDNSSubdomain, path)
	if strings.HasSuffix(newer.Name, staticSuffix) {
		errs = append(errs, field.Invalid(path.Child("name"), newer.Name, fmt.Sprintf(
			"names ending with %q are reserved for static manifest-based configurations and cannot be managed via the API", staticSuffix)))
	}
	return errs
}

// webhook is what validating and mutating webhooks have in common.
type webhook struct {
	name           string
	client         admissionregistration.WebhookClientConfig
	rules          []admissionregistration.RuleWithOperations
	failurePolicy  *admissionregistration.FailurePolicyType
	matchPolicy    *admissionregistration.MatchPolicyType
	sideEffects    *admissionregistration.SideEffectClass
	timeout        *int32
	reviewVersions []string
	conditions     []admissionregistration.MatchCondition
	namespaces     *metav1.LabelSelector
	objects        *metav1.LabelSelector
}

// checkWebhooks checks what is new: what was stored before a rule was made must stay changeable elsewhere.
func checkWebhooks(newer, older []webhook) field.ErrorList {
	var errs field.ErrorList
	seen, path := map[string]bool{}, field.NewPath("webhooks")
	for i, h := range newer {
		at := path.Index(i)
		errs = append(errs, h.check(at)...)
		if i >= len(older) || !reflect.DeepEqual(h.conditions, older[i].conditions) {
			errs = append(errs, checkHookConditions(h.conditions, at.Child("matchConditions"))...)
		}
		if h.name != "" && seen[h.name] && unique(older) {
			errs = append(errs, field.Duplicate(at.Child("name"), h.name))
		}
		seen[h.name] = true
	}
	return errs
}

// checkHookConditions refuses the conditions of a webhook in a build that does not evaluate them: to ignore them would call it about what it is
// not meant for.
func checkHookConditions(all []admissionregistration.MatchCondition, path *field.Path) field.ErrorList {
	if len(all) > 0 && !expression.Evaluated {
		return field.ErrorList{field.Forbidden(path, "this server evaluates no CEL expressions; one that is built with the tag cel does")}
	}
	return checkConditions(all, false, path)
}

// checkConditions checks which requests somebody is asked about, or which a policy is about.
func checkConditions(all []admissionregistration.MatchCondition, params bool, path *field.Path) field.ErrorList {
	const most = 64
	var errs field.ErrorList
	if len(all) > most {
		errs = append(errs, field.TooMany(path, len(all), most))
	}
	seen := map[string]bool{}
	for i, c := range all {
		at := path.Index(i)
		if text := strings.TrimSpace(c.Expression); text == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, expression.CheckCondition(params, text, at.Child("expression"))...)
		}
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		errs = append(errs, validation.ValidateQualifiedName(c.Name, at.Child("name"))...)
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}

func unique(all []webhook) bool {
	names := map[string]bool{}
	for _, h := range all {
		names[h.name] = true
	}
	return len(names) == len(all)
}

func (h *webhook) check(path *field.Path) field.ErrorList {
	errs := utilvalidation.IsFullyQualifiedName(path.Child("name"), h.name)
	for i := range h.rules {
		errs = append(errs, checkRule(&h.rules[i], path.Child("rules").Index(i))...)
	}
	errs = append(errs, oneOf(path.Child("failurePolicy"), h.failurePolicy, admissionregistration.Fail, admissionregistration.Ignore)...)
	errs = append(errs, oneOf(path.Child("matchPolicy"), h.matchPolicy, admissionregistration.Equivalent, admissionregistration.Exact)...)
	none := []admissionregistration.SideEffectClass{admissionregistration.SideEffectClassNone, admissionregistration.SideEffectClassNoneOnDryRun}
	if h.sideEffects == nil {
		errs = append(errs, field.Required(path.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	}
	errs = append(errs, oneOf(path.Child("sideEffects"), h.sideEffects, none...)...)
	if t := ptr.Deref(h.timeout, 1); t < 1 || t > 30 {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), t, "the timeout value must be between 1 and 30 seconds"))
	}
	strict := metav1validation.LabelSelectorValidationOptions{}
	errs = append(errs, metav1validation.ValidateLabelSelector(h.namespaces, strict, path.Child("namespaceSelector"))...)
	errs = append(errs, metav1validation.ValidateLabelSelector(h.objects, strict, path.Child("objectSelector"))...)
	switch c := h.client; {
	case (c.URL == nil) == (c.Service == nil):
		errs = append(errs, field.Required(path.Child("clientConfig"), "exactly one of url or service is required"))
	case c.Service != nil:
		errs = append(errs, checkService(c.Service, path.Child("clientConfig", "service"))...)
	default:
		errs = append(errs, checkWebhookURL(*c.URL, path.Child("clientConfig", "url"))...)
	}
	return append(errs, checkReviewVersions(h.reviewVersions, path.Child("admissionReviewVersions"))...)
}

// checkWebhookURL checks where a webhook outside of the cluster is.
func checkWebhookURL(text string, path *field.Path) field.ErrorList {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(path, "url must be a valid URL: "+err.Error()+form)}
	}
	var errs field.ErrorList
	for _, c := range []struct {
		wrong       bool
		value, says string
	}{
		{u.Scheme != "https", u.Scheme, "'https' is the only allowed URL scheme" + form},
		{u.Host == "", u.Host, "host must be specified" + form},
		{u.User != nil, u.User.String(), "user information is not permitted in the URL"},
		{u.Fragment != "", u.Fragment, "fragments are not permitted in the URL"},
		{u.RawQuery != "", u.RawQuery, "query parameters are not permitted in the URL"},
	} {
		if c.wrong {
			errs = append(errs, field.Invalid(path, c.value, c.says))
		}
	}
	return errs
}

func checkService(s *admissionregistration.ServiceReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if s.Namespace == "" {
		errs = append(errs, field.Required(path.Child("namespace"), ""))
	}
	if why := utilvalidation.IsValidPortNum(int(s.Port)); why != nil {
		errs = append(errs, field.Invalid(path.Child("port"), s.Port, "port is not valid: "+strings.Join(why, ", ")))
	}
	return append(errs, checkServicePath(s.Path, path.Child("path"))...)
}

// checkServicePath checks the path of an HTTP request, each segment of which has to be a DNS subdomain.
func checkServicePath(p *string, path *field.Path) field.ErrorList {
	if p == nil || *p == "/" || *p == "" {
		return nil
	}
	whole := *p
	var errs field.ErrorList
	if !strings.HasPrefix(whole, "/") {
		errs = append(errs, field.Invalid(path, whole, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(whole[1:], "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(path, whole, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, why := range utilvalidation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(path, whole, fmt.Sprintf("segment[%d]: %v", i, why)))
		}
	}
	return errs
}

func checkReviewVersions(versions []string, path *field.Path) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of v1, v1beta1")}
	}
	var errs field.ErrorList
	for i, v := range versions {
		if slices.Contains(versions[:i], v) {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		for _, why := range utilvalidation.IsDNS1035Label(v) {
			errs = append(errs, field.Invalid(path.Index(i), v, why))
		}
	}
	if !slices.Contains(versions, "v1") && !slices.Contains(versions, "v1beta1") {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of v1, v1beta1"))
	}
	return errs
}

// checkRule checks which requests a rule is about: nothing may be left open, and a wildcard stands alone.
func checkRule(r *admissionregistration.RuleWithOperations, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	list := func(name, plural string, values []string, mayBeEmpty bool) {
		at := path.Child(name)
		switch {
		case len(values) == 0:
			errs = append(errs, field.Required(at, ""))
		case len(values) > 1 && slices.Contains(values, "*") && name != "resources":
			errs = append(errs, field.Invalid(at, values, "if '*' is present, must not specify other "+plural))
		}
		for i, v := range values {
			if v == "" && !mayBeEmpty {
				errs = append(errs, field.Required(at.Index(i), ""))
			}
		}
	}
	operations := make([]string, len(r.Operations))
	for i, o := range r.Operations {
		operations[i] = string(o)
		errs = append(errs, oneOf(path.Child("operations").Index(i), &o, admissionregistration.OperationAll, admissionregistration.Connect,
			admissionregistration.Create, admissionregistration.Delete, admissionregistration.Update)...)
	}
	list("operations", "operations", operations, true)
	list("apiGroups", "API groups", r.APIGroups, true)
	list("apiVersions", "API versions", r.APIVersions, false)
	list("resources", "resources", r.Resources, false)
	return append(errs, oneOf(path.Child("scope"), r.Scope, admissionregistration.AllScopes, admissionregistration.ClusterScope,
		admissionregistration.NamespacedScope)...)
}

// oneOf refuses a value that is set and is none of those allowed.
func oneOf[T ~string](path *field.Path, value *T, allowed ...T) field.ErrorList {
	if value == nil || slices.Contains(allowed, *value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *value, allowed)}
}
