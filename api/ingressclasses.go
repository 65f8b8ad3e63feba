package api

import (
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1defaults "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/networking/validation"
)

func ingressClasses() *Kind {
	return install[networkingv1.IngressClass](&Kind{
		GVK:      networkingv1.SchemeGroupVersion.WithKind("IngressClass"),
		Resource: "ingressclasses",
		NewList:  func() runtime.Object { return &networkingv1.IngressClassList{} },
		Columns: []Column{
			nameColumn(), text("Controller", "Controller that is responsible for handling this class"),
			text("Parameters", "A reference to a resource with additional parameters"), ageColumn(),
		},
	}, strategy[networkingv1.IngressClass, networking.IngressClass]{
		in:       networkingv1defaults.Convert_v1_IngressClass_To_networking_IngressClass,
		out:      networkingv1defaults.Convert_networking_IngressClass_To_v1_IngressClass,
		defaults: networkingv1defaults.SetObjectDefaults_IngressClass,
		row:      ingressClassRow,
		create:   func(n *networking.IngressClass) { n.Generation = 1 },
		update: func(n, o *networking.IngressClass) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate:       validation.ValidateIngressClass,
		validateUpdate: validation.ValidateIngressClassUpdate,
		declared:       networkingv1defaults.Validate_IngressClass,
	})
}

func ingressClassRow(c *networkingv1.IngressClass, now time.Time) []any {
	name, parameters := c.Name, "<none>"
	if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
		name += " (default)"
	}
	if p := c.Spec.Parameters; p != nil {
		parameters = p.Kind
		if p.APIGroup != nil {
			parameters += "." + *p.APIGroup
		}
		parameters += "/" + p.Name
	}
	return []any{name, c.Spec.Controller, parameters, age(c, now)}
}
