package api

import (
	"crypto/tls"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func secrets() *Kind {
	return install[corev1.Secret](&Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:   "secrets",
		Singular:   "secret",
		Namespaced: true,
		Sensitive:  true,
		Verbs:      crud(),
		New:        func() Object { return &corev1.Secret{} },
		NewList:    func() runtime.Object { return &corev1.SecretList{} },
		Default: func(o Object) {
			s := o.(*corev1.Secret)
			for key, text := range s.StringData { // so whoever writes it owns the field of data
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[key] = []byte(text)
			}
			s.StringData = nil
			corev1defaults.SetObjectDefaults_Secret(s)
		},
		Fields: func(o Object) map[string]string { return map[string]string{"type": string(o.(*corev1.Secret).Type)} },
		Columns: []Column{
			nameColumn(), text("Type", corev1.Secret{}.SwaggerDoc()["type"]), text("Data", corev1.Secret{}.SwaggerDoc()["data"]), ageColumn(),
		},
		Row: func(o Object, now time.Time) []any {
			s := o.(*corev1.Secret)
			return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s, now)}
		},
	}, strategy[corev1.Secret, core.Secret]{
		in:  corev1defaults.Convert_v1_Secret_To_core_Secret,
		out: corev1defaults.Convert_core_Secret_To_v1_Secret,
		update: func(n, o *core.Secret) {
			if n.Type == "" {
				n.Type = o.Type
			}
		},
		declared:       corev1defaults.Validate_Secret,
		validate:       validation.ValidateSecret,
		validateUpdate: validation.ValidateSecretUpdate,
		warn: func(n, _ *core.Secret) []string {
			if n.Type != core.SecretTypeTLS {
				return nil
			}
			if _, err := tls.X509KeyPair(n.Data[core.TLSCertKey], n.Data[core.TLSPrivateKeyKey]); err != nil {
				return []string{err.Error()}
			}
			return nil
		},
	})
}
