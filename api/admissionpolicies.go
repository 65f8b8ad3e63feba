package api

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissionv1defaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"github.com/shoal-edge/shoal/api/expression"
)

func validatingAdmissionPolicies() *Kind {
	return install[admissionv1.ValidatingAdmissionPolicy](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy"),
		Resource:      "validatingadmissionpolicies",
		Singular:      "validatingadmissionpolicy",
		Categories:    []string{"api-extensions"},
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Columns: []Column{
			nameColumn(), integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
			text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"), ageColumn(),
		},
	}, strategy[admissionv1.ValidatingAdmissionPolicy, admissionregistration.ValidatingAdmissionPolicy]{
		in:       admissionv1defaults.Convert_v1_ValidatingAdmissionPolicy_To_admissionregistration_ValidatingAdmissionPolicy,
		out:      admissionv1defaults.Convert_admissionregistration_ValidatingAdmissionPolicy_To_v1_ValidatingAdmissionPolicy,
		defaults: admissionv1defaults.SetObjectDefaults_ValidatingAdmissionPolicy,
		row: func(p *admissionv1.ValidatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Validations)), paramKind(p.Spec.ParamKind), age(p, now)}
		},
		create: func(n *admissionregistration.ValidatingAdmissionPolicy) {
			n.Status, n.Generation = admissionregistration.ValidatingAdmissionPolicyStatus{}, 1
		},
		update: func(n, o *admissionregistration.ValidatingAdmissionPolicy) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *admissionregistration.ValidatingAdmissionPolicy) {
			n.Spec = o.Spec
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		},
		validate: func(n *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkPolicy(n.Name, &n.Spec, nil)...)
		},
		validateUpdate: func(n, o *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkPolicy(n.Name, &n.Spec, &o.Spec)...)
		},
		validateStatus: func(n, o *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta)
		},
		declared: admissionv1defaults.Validate_ValidatingAdmissionPolicy,
		warn:     enforcedBy[admissionregistration.ValidatingAdmissionPolicy],
	})
}

// checkPolicy checks a policy of some name. Expressions that have not changed are not looked at again.
func checkPolicy(name string, s, older *admissionregistration.ValidatingAdmissionPolicySpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkScope(s.FailurePolicy, s.ParamKind, s.MatchConstraints, path)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const why = "validations or auditAnnotations must contain at least one item"
		errs = append(errs, field.Required(path.Child("validations"), why), field.Required(path.Child("auditAnnotations"), why))
	}
	if older != nil && reflect.DeepEqual(s, older) {
		return errs
	}
	return append(errs, checkExpressions(name, s, path)...)
}

// checkScope checks what all policies say of themselves: which requests they are about, which has to be said, what their parameters are, and what becomes
// of failures.
func checkScope(
	failure *admissionregistration.FailurePolicyType, params *admissionregistration.ParamKind, m *admissionregistration.MatchResources, path *field.Path,
) field.ErrorList {
	errs := oneOf(path.Child("failurePolicy"), failure, admissionregistration.Fail, admissionregistration.Ignore)
	if params != nil {
		errs = append(errs, checkParamKind(params, path.Child("paramKind"))...)
	}
	at := path.Child("matchConstraints")
	if m == nil {
		return append(errs, field.Required(at, ""))
	}
	errs = append(errs, checkResources(m, at)...)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(at.Child("resourceRules"), ""))
	}
	return errs
}

// checkResources checks which requests a policy or its binding is about.
func checkResources(m *admissionregistration.MatchResources, path *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	errs := oneOf(path.Child("matchPolicy"), m.MatchPolicy, admissionregistration.Equivalent, admissionregistration.Exact)
	strict := metav1validation.LabelSelectorValidationOptions{}
	errs = append(errs, metav1validation.ValidateLabelSelector(m.NamespaceSelector, strict, path.Child("namespaceSelector"))...)
	errs = append(errs, metav1validation.ValidateLabelSelector(m.ObjectSelector, strict, path.Child("objectSelector"))...)
	for _, list := range []struct {
		name  string
		rules []admissionregistration.NamedRuleWithOperations
	}{{"resourceRules", m.ResourceRules}, {"excludeResourceRules", m.ExcludeResourceRules}} {
		for i, r := range list.rules {
			at := path.Child(list.name).Index(i)
			errs = append(errs, checkResourceNames(r.ResourceNames, at.Child("resourceNames"))...)
			errs = append(errs, checkRule(&r.RuleWithOperations, at)...)
		}
	}
	return errs
}

func checkResourceNames(names []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		for _, why := range content.IsPathSegmentName(name) {
			errs = append(errs, field.Invalid(path.Index(i), name, why))
		}
		if slices.Contains(names[:i], name) {
			errs = append(errs, field.Duplicate(path.Index(i), name))
		}
	}
	return errs
}

func checkExpressions(name string, s *admissionregistration.ValidatingAdmissionPolicySpec, path *field.Path) field.ErrorList {
	compiler, errs := checkNamed(s.ParamKind != nil, s.MatchConditions, s.Variables, path)
	for i, v := range s.Validations {
		errs = append(errs, checkValidation(compiler, &v, path.Child("validations").Index(i))...)
	}
	return append(errs, checkAnnotations(compiler, name, s.AuditAnnotations, path.Child("auditAnnotations"))...)
}

// checkNamed checks the conditions and the variables of a policy, and returns a compiler that knows the variables.
func checkNamed(
	params bool, conditions []admissionregistration.MatchCondition, variables []admissionregistration.Variable, path *field.Path,
) (*expression.Compiler, field.ErrorList) {
	compiler := expression.NewCompiler(params)
	errs := checkConditions(conditions, params, path.Child("matchConditions"))
	for i, v := range variables {
		errs = append(errs, checkVariable(compiler, &v, path.Child("variables").Index(i))...)
	}
	return compiler, errs
}

func checkVariable(c *expression.Compiler, v *admissionregistration.Variable, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case strings.TrimSpace(v.Name) == "":
		errs = append(errs, field.Required(path.Child("name"), "name is not specified"))
	case !identifier.MatchString(v.Name) || slices.Contains(reserved, v.Name):
		errs = append(errs, field.Invalid(path.Child("name"), v.Name, "must be a valid CEL identifier"))
	}
	if strings.TrimSpace(v.Expression) == "" {
		return append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	}
	return append(errs, c.Check(expression.Variable, v.Name, v.Expression, path.Child("expression"))...)
}

// identifier is what a name in CEL looks like, and reserved are the names that mean something else (the language's definition, "Syntax").
var (
	identifier = regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$")
	reserved   = []string{
		"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
		"namespace", "return", "var", "void", "while",
	}
)

func checkValidation(c *expression.Compiler, v *admissionregistration.Validation, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.Check(expression.Test, "", v.Expression, path.Child("expression"))...)
	}
	const empty = "must be non-empty if specified"
	if at := path.Child("messageExpression"); v.MessageExpression != "" {
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(at, v.MessageExpression, empty))
		} else {
			errs = append(errs, c.Check(expression.Message, "", v.MessageExpression, at)...)
		}
	}
	switch at, message := path.Child("message"), strings.TrimSpace(v.Message); {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(at, v.Message, empty))
	case strings.Contains(message, "\n"):
		errs = append(errs, field.Invalid(at, v.Message, "must not contain line breaks"))
	}
	return append(errs, oneOf(path.Child("reason"), v.Reason,
		metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnauthorized)...)
}

func checkAnnotations(c *expression.Compiler, policy string, all []admissionregistration.AuditAnnotation, path *field.Path) field.ErrorList {
	const most, longest = 20, 5 << 10
	var errs field.ErrorList
	if len(all) > most {
		errs = append(errs, field.Invalid(path, all, fmt.Sprintf("must not have more than %d auditAnnotations", most)))
	}
	seen := map[string]bool{}
	for i, a := range all {
		key, value := path.Index(i).Child("key"), path.Index(i).Child("valueExpression")
		if policy == "" {
			errs = append(errs, field.Invalid(key, a.Key, "requires metadata.name be non-empty"))
		} else {
			errs = append(errs, validation.ValidateQualifiedName(policy+"/"+a.Key, key)...)
		}
		switch text := strings.TrimSpace(a.ValueExpression); {
		case text == "":
			errs = append(errs, field.Required(value, "valueExpression is not specified"))
		case len(text) > longest:
			errs = append(errs, field.Required(value, fmt.Sprintf("must not exceed %d bytes in length", longest)))
		default:
			errs = append(errs, c.Check(expression.Annotation, "", text, value)...)
		}
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(key, a.Key))
		}
		seen[a.Key] = true
	}
	return errs
}

// checkParamKind checks of which kind the parameters of a policy are.
func checkParamKind(k *admissionregistration.ParamKind, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	invalid := func(at, value string, why []string, prefix string) {
		if len(why) > 0 {
			errs = append(errs, field.Invalid(path.Child(at), value, prefix+strings.Join(why, ",")))
		}
	}
	group, version, grouped := strings.Cut(k.APIVersion, "/")
	if !grouped {
		group, version = "", k.APIVersion
	}
	switch {
	case k.APIVersion == "":
		errs = append(errs, field.Required(path.Child("apiVersion"), ""))
	case strings.Contains(version, "/"):
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "unexpected GroupVersion string: "+k.APIVersion))
	default:
		if group != "" {
			invalid("apiVersion", group, utilvalidation.IsDNS1123Subdomain(group), "")
		}
		if version == "" {
			errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "version must be specified"))
		} else {
			invalid("apiVersion", version, utilvalidation.IsDNS1035Label(version), "")
		}
	}
	if k.Kind == "" {
		return append(errs, field.Required(path.Child("kind"), ""))
	}
	invalid("kind", k.Kind, utilvalidation.IsDNS1035Label(strings.ToLower(k.Kind)), "may have mixed case, but should otherwise match: ")
	return errs
}

// checkParamRef checks which objects are the parameters.
func checkParamRef(r *admissionregistration.ParamRef, path *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	const exclusive = "name and selector are mutually exclusive"
	if r.Name != "" {
		for _, why := range content.IsPathSegmentName(r.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), r.Name, why))
		}
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(path.Child("name"), exclusive))
		}
	}
	if r.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(r.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
		if r.Name != "" {
			errs = append(errs, field.Forbidden(path.Child("selector"), exclusive))
		}
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(path, "one of name or selector must be specified"))
	}
	at := path.Child("parameterNotFoundAction")
	switch action := r.ParameterNotFoundAction; {
	case action == nil || *action == "":
		errs = append(errs, field.Required(at, ""))
	case *action != admissionregistration.DenyAction && *action != admissionregistration.AllowAction:
		errs = append(errs, field.NotSupported(at, action, []string{string(admissionregistration.DenyAction), string(admissionregistration.AllowAction)}))
	}
	return errs
}

func validatingAdmissionPolicyBindings() *Kind {
	return install[admissionv1.ValidatingAdmissionPolicyBinding](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding"),
		Resource:      "validatingadmissionpolicybindings",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Columns: []Column{
			nameColumn(), text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
			text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"), ageColumn(),
		},
	}, strategy[admissionv1.ValidatingAdmissionPolicyBinding, admissionregistration.ValidatingAdmissionPolicyBinding]{
		in:       admissionv1defaults.Convert_v1_ValidatingAdmissionPolicyBinding_To_admissionregistration_ValidatingAdmissionPolicyBinding,
		out:      admissionv1defaults.Convert_admissionregistration_ValidatingAdmissionPolicyBinding_To_v1_ValidatingAdmissionPolicyBinding,
		defaults: admissionv1defaults.SetObjectDefaults_ValidatingAdmissionPolicyBinding,
		row: func(b *admissionv1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramName(b.Spec.ParamRef), age(b, now)}
		},
		create: func(n *admissionregistration.ValidatingAdmissionPolicyBinding) { n.Generation = 1 },
		update: func(n, o *admissionregistration.ValidatingAdmissionPolicyBinding) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate: func(n *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkBinding(&n.Spec)...)
		},
		validateUpdate: func(n, o *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkBinding(&n.Spec)...)
		},
		declared: admissionv1defaults.Validate_ValidatingAdmissionPolicyBinding,
		warn:     enforcedBy[admissionregistration.ValidatingAdmissionPolicyBinding],
	})
}

func checkBinding(s *admissionregistration.ValidatingAdmissionPolicyBindingSpec) field.ErrorList {
	return append(checkBound(s.PolicyName, s.ParamRef, s.MatchResources), checkActions(s)...) // that there is a name is declared
}

// checkBound checks what all bindings say: of which policy they are, with which parameters, and which requests they are about.
func checkBound(policy string, params *admissionregistration.ParamRef, m *admissionregistration.MatchResources) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if policy != "" {
		for _, why := range genericvalidation.NameIsDNSSubdomain(policy, false) {
			errs = append(errs, field.Invalid(path.Child("policyName"), policy, why))
		}
	}
	errs = append(errs, checkParamRef(params, path.Child("paramRef"))...)
	return append(errs, checkResources(m, path.Child("matchResources"))...)
}

func checkActions(s *admissionregistration.ValidatingAdmissionPolicyBindingSpec) field.ErrorList {
	var errs field.ErrorList
	path, seen := field.NewPath("spec", "validationActions"), map[admissionregistration.ValidationAction]bool{}
	for i, action := range s.ValidationActions {
		errs = append(errs, oneOf(path.Index(i), &action, admissionregistration.Audit, admissionregistration.Deny, admissionregistration.Warn)...)
		if seen[action] {
			errs = append(errs, field.Duplicate(path.Index(i), action))
		}
		seen[action] = true
	}
	if seen[admissionregistration.Deny] && seen[admissionregistration.Warn] {
		errs = append(errs, field.Invalid(path, s.ValidationActions, "must not contain both Deny and Warn "+
			"(repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

// paramName is the object that a binding takes its parameters from. One without a namespace may be of any, or of none.
func paramName(ref *admissionv1.ParamRef) string {
	switch {
	case ref == nil:
	case ref.Name != "":
		return orElse(ref.Namespace, "*") + "/" + ref.Name
	case ref.Selector != nil:
		return ref.Selector.String()
	}
	return "<unset>"
}
