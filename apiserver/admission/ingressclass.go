package admission

import (
	"context"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/shoal-edge/shoal/store"
)

// ingressClassAnnotation names the class of an ingress in the way that was there before the field.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// defaultIngressClass gives ingresses that name no class the default one, the newest should there be several.
func defaultIngressClass() Plugin {
	return Plugin{Name: "DefaultIngressClass", Admit: created(func(_ context.Context, a *store.Admission, ingress *networkingv1.Ingress) error {
		if _, named := ingress.Annotations[ingressClassAnnotation]; named || ingress.Spec.IngressClassName != nil {
			return nil
		}
		classes := slices.DeleteFunc(store.List[networkingv1.IngressClass](a.Reader, ""), func(c *networkingv1.IngressClass) bool {
			return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true"
		})
		if class := newest(classes); class != nil {
			ingress.Spec.IngressClassName = &class.Name
		}
		return nil
	})}
}
