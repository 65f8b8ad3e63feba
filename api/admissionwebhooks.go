package api

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissionv1defaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"

	"github.com/shoal-edge/shoal/api/expression"
)

// notEnforced is told to whoever writes a rule of admission: what is only stored must not be taken for protection.
const notEnforced = "stored, but not enforced: this server evaluates no admission policies; one that is built with the tag cel does"

func enforcedBy[I any](_, _ *I) []string {
	if expression.Evaluated {
		return nil
	}
	return []string{notEnforced}
}

func validatingWebhookConfigurations() *Kind {
	return install[admissionv1.ValidatingWebhookConfiguration](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"),
		Resource:      "validatingwebhookconfigurations",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} },
		Columns:       webhookColumns(),
	}, strategy[admissionv1.ValidatingWebhookConfiguration, admissionregistration.ValidatingWebhookConfiguration]{
		in:       admissionv1defaults.Convert_v1_ValidatingWebhookConfiguration_To_admissionregistration_ValidatingWebhookConfiguration,
		out:      admissionv1defaults.Convert_admissionregistration_ValidatingWebhookConfiguration_To_v1_ValidatingWebhookConfiguration,
		defaults: admissionv1defaults.SetObjectDefaults_ValidatingWebhookConfiguration,
		row: func(c *admissionv1.ValidatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), age(c, now)}
		},
		create: func(n *admissionregistration.ValidatingWebhookConfiguration) { n.Generation = 1 },
		update: func(n, o *admissionregistration.ValidatingWebhookConfiguration) {
			n.Generation = nextGeneration(o.Generation, n.Webhooks, o.Webhooks)
		},
		validate: func(n *admissionregistration.ValidatingWebhookConfiguration) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkWebhooks(validatingHooks(n), nil)...)
		},
		validateUpdate: func(n, o *admissionregistration.ValidatingWebhookConfiguration) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkWebhooks(validatingHooks(n), validatingHooks(o))...)
		},
		declared: admissionv1defaults.Validate_ValidatingWebhookConfiguration,
	})
}

func mutatingWebhookConfigurations() *Kind {
	return install[admissionv1.MutatingWebhookConfiguration](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"),
		Resource:      "mutatingwebhookconfigurations",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} },
		Columns:       webhookColumns(),
	}, strategy[admissionv1.MutatingWebhookConfiguration, admissionregistration.MutatingWebhookConfiguration]{
		in:       admissionv1defaults.Convert_v1_MutatingWebhookConfiguration_To_admissionregistration_MutatingWebhookConfiguration,
		out:      admissionv1defaults.Convert_admissionregistration_MutatingWebhookConfiguration_To_v1_MutatingWebhookConfiguration,
		defaults: admissionv1defaults.SetObjectDefaults_MutatingWebhookConfiguration,
		row: func(c *admissionv1.MutatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), age(c, now)}
		},
		create: func(n *admissionregistration.MutatingWebhookConfiguration) { n.Generation = 1 },
		update: func(n, o *admissionregistration.MutatingWebhookConfiguration) {
			n.Generation = nextGeneration(o.Generation, n.Webhooks, o.Webhooks)
		},
		validate: func(n *admissionregistration.MutatingWebhookConfiguration) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkWebhooks(mutatingHooks(n), nil)...)
		},
		validateUpdate: func(n, o *admissionregistration.MutatingWebhookConfiguration) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkWebhooks(mutatingHooks(n), mutatingHooks(o))...)
		},
		declared: admissionv1defaults.Validate_MutatingWebhookConfiguration,
	})
}

func webhookColumns() []Column {
	return []Column{
		nameColumn(), integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"), ageColumn(),
	}
}

func validatingHooks(c *admissionregistration.ValidatingWebhookConfiguration) []webhook {
	all := make([]webhook, len(c.Webhooks))
	for i, h := range c.Webhooks {
		all[i] = webhook{
			h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions,
			h.NamespaceSelector, h.ObjectSelector,
		}
	}
	return all
}

func mutatingHooks(c *admissionregistration.MutatingWebhookConfiguration) []webhook {
	all := make([]webhook, len(c.Webhooks))
	for i, h := range c.Webhooks {
		all[i] = webhook{
			h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions,
			h.NamespaceSelector, h.ObjectSelector,
		}
	}
	return all
}
