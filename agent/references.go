package agent

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/volume"
	"github.com/shoal-edge/shoal/api"
)

// uses reports whether a pod refers to a configMap, a secret, a claim or, by their key, trust anchors.
func uses(p *corev1.Pod, kind, name string) bool {
	switch kind {
	case "secrets":
		return usesSecret(p, name)
	case "anchors":
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return usesAnchors(&v, name) })
	case "claims":
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return volume.ClaimName(p, &v) == name })
	}
	return usesConfigMap(p, name)
}

func usesAnchors(v *corev1.Volume, key string) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ClusterTrustBundle != nil && api.AnchorsKey(s.ClusterTrustBundle) == key
	})
}

func usesConfigMap(p *corev1.Pod, name string) bool {
	found := false
	for _, v := range p.Spec.Volumes {
		found = found || v.ConfigMap != nil && v.ConfigMap.Name == name
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				found = found || s.ConfigMap != nil && s.ConfigMap.Name == name
			}
		}
	}
	for c := range pod.All(p) {
		for _, e := range c.EnvFrom {
			found = found || e.ConfigMapRef != nil && e.ConfigMapRef.Name == name
		}
		for _, e := range c.Env {
			found = found || e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil && e.ValueFrom.ConfigMapKeyRef.Name == name
		}
	}
	return found
}

func usesSecret(p *corev1.Pod, name string) bool {
	found := false
	for _, ref := range p.Spec.ImagePullSecrets {
		found = found || ref.Name == name
	}
	for _, v := range p.Spec.Volumes {
		found = found || v.Secret != nil && v.Secret.SecretName == name
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				found = found || s.Secret != nil && s.Secret.Name == name
			}
		}
	}
	for c := range pod.All(p) {
		for _, e := range c.EnvFrom {
			found = found || e.SecretRef != nil && e.SecretRef.Name == name
		}
		for _, e := range c.Env {
			found = found || e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == name
		}
	}
	return found
}
