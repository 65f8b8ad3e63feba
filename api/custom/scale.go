package custom

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Scale is the object as the subresource scale shows it.
func (o *Object) Scale() (*autoscalingv1.Scale, error) {
	paths := o.of.scale
	if paths == nil {
		return nil, fmt.Errorf("custom: %s has no scale", o.of.Kind.Resource)
	}
	content := o.Content()
	want, found, err := unstructured.NestedInt64(content, split(paths.SpecReplicasPath)...)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("the spec replicas field %q does not exist", paths.SpecReplicasPath)
	}
	have, _, err := unstructured.NestedInt64(content, split(paths.StatusReplicasPath)...)
	if err != nil {
		return nil, err
	}
	selector := ""
	if p := paths.LabelSelectorPath; p != nil && *p != "" {
		if selector, _, err = unstructured.NestedString(content, split(*p)...); err != nil {
			return nil, err
		}
	}
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: autoscalingv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{
			Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion, CreationTimestamp: o.CreationTimestamp,
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: int32(want)},
		Status: autoscalingv1.ScaleStatus{Replicas: int32(have), Selector: selector},
	}, nil
}

// SetReplicas writes the number of replicas to where the definition says.
func (o *Object) SetReplicas(n int32) error {
	if o.of.scale == nil {
		return fmt.Errorf("custom: %s has no scale", o.of.Kind.Resource)
	}
	content := runtime.DeepCopyJSON(o.Content())
	if err := unstructured.SetNestedField(content, int64(n), split(o.of.scale.SpecReplicasPath)...); err != nil {
		return err
	}
	o.SetContent(content)
	return nil
}
