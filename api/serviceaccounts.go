package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func serviceAccounts() *Kind {
	return install[corev1.ServiceAccount](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Resource:     "serviceaccounts",
		Singular:     "serviceaccount",
		ShortNames:   []string{"sa"},
		Namespaced:   true,
		Verbs:        crud(),
		Subresources: []string{"token"},
		New:          func() Object { return &corev1.ServiceAccount{} },
		NewList:      func() runtime.Object { return &corev1.ServiceAccountList{} },
		Columns:      []Column{nameColumn(), ageColumn()},
		Row:          func(o Object, now time.Time) []any { return []any{o.GetName(), age(o, now)} },
	}, strategy[corev1.ServiceAccount, core.ServiceAccount]{
		in:             corev1defaults.Convert_v1_ServiceAccount_To_core_ServiceAccount,
		out:            corev1defaults.Convert_core_ServiceAccount_To_v1_ServiceAccount,
		create:         nameSecretsOnly,
		update:         func(n, _ *core.ServiceAccount) { nameSecretsOnly(n) },
		declared:       corev1defaults.Validate_ServiceAccount,
		validate:       validation.ValidateServiceAccount,
		validateUpdate: validation.ValidateServiceAccountUpdate,
	})
}

// nameSecretsOnly keeps of the references to secrets only what has a meaning: the name.
func nameSecretsOnly(a *core.ServiceAccount) {
	for i := range a.Secrets {
		a.Secrets[i] = core.ObjectReference{Name: a.Secrets[i].Name}
	}
}
