package pod

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// Source looks up what pods refer to; nil means that there is none.
type Source interface {
	ConfigMap(namespace, name string) *corev1.ConfigMap
	Secret(namespace, name string) *corev1.Secret
}

// Var is one environment variable.
type Var struct{ Name, Value string }

// Env is a container's environment, in the order the pod gives it, with $(VAR) expanded. Before it come the variables by which
// Kubernetes' clients find the API in a pod (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
func Env(p *corev1.Pod, c *corev1.Container, src Source, f Facts) ([]Var, error) {
	e := environment{p: p, c: c, src: src, facts: f, values: map[string]string{}}
	if host, port, err := net.SplitHostPort(f.Server); err == nil {
		e.set("KUBERNETES_SERVICE_HOST", host)
		e.set("KUBERNETES_SERVICE_PORT", port)
		e.set("KUBERNETES_SERVICE_PORT_HTTPS", port)
	}
	for _, from := range c.EnvFrom {
		if err := e.from(from); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		value, ok, err := e.value(v)
		if err != nil {
			return nil, err
		}
		if ok {
			e.set(v.Name, value)
		}
	}
	vars := make([]Var, 0, len(e.order))
	for _, name := range e.order {
		vars = append(vars, Var{name, e.values[name]})
	}
	return vars, nil
}

// Expand replaces $(VAR) in a command or its arguments.
func Expand(values []string, vars []Var) []string {
	known := make(map[string]string, len(vars))
	for _, v := range vars {
		known[v.Name] = v.Value
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = expansion.Expand(v, expansion.MappingFuncFor(known))
	}
	return out
}

type environment struct {
	p      *corev1.Pod
	c      *corev1.Container
	src    Source
	facts  Facts
	order  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, known := e.values[name]; !known {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environment) from(from corev1.EnvFromSource) error {
	switch {
	case from.ConfigMapRef != nil:
		m := e.src.ConfigMap(e.p.Namespace, from.ConfigMapRef.Name)
		if m == nil {
			return unlessOptional(from.ConfigMapRef.Optional, "configmap %q not found", from.ConfigMapRef.Name)
		}
		for _, k := range slices.Sorted(maps.Keys(m.Data)) {
			e.set(from.Prefix+k, m.Data[k])
		}
	case from.SecretRef != nil:
		s := e.src.Secret(e.p.Namespace, from.SecretRef.Name)
		if s == nil {
			return unlessOptional(from.SecretRef.Optional, "secret %q not found", from.SecretRef.Name)
		}
		for _, k := range slices.Sorted(maps.Keys(s.Data)) {
			e.set(from.Prefix+k, string(s.Data[k]))
		}
	}
	return nil
}

// value is the variable's value; not ok when it comes from something optional that is not there.
func (e *environment) value(v corev1.EnvVar) (value string, ok bool, err error) {
	if v.ValueFrom == nil {
		return expansion.Expand(v.Value, expansion.MappingFuncFor(e.values)), true, nil
	}
	switch from := v.ValueFrom; {
	case from.FieldRef != nil:
		value, err = Field(e.p, from.FieldRef.FieldPath, e.facts)
	case from.ResourceFieldRef != nil:
		c := e.c
		if name := from.ResourceFieldRef.ContainerName; name != "" {
			if c = Find(e.p, name); c == nil {
				return "", false, fmt.Errorf("container %q not found", name)
			}
		}
		value, err = Resource(c, from.ResourceFieldRef, e.facts)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m := e.src.ConfigMap(e.p.Namespace, ref.Name)
		if m == nil {
			return "", false, unlessOptional(ref.Optional, "configmap %q not found", ref.Name)
		}
		if value, ok = m.Data[ref.Key]; !ok {
			return "", false, unlessOptional(ref.Optional, "couldn't find key %s in ConfigMap %s/%s", ref.Key, e.p.Namespace, ref.Name)
		}
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s := e.src.Secret(e.p.Namespace, ref.Name)
		if s == nil {
			return "", false, unlessOptional(ref.Optional, "secret %q not found", ref.Name)
		}
		data, found := s.Data[ref.Key]
		if !found {
			return "", false, unlessOptional(ref.Optional, "couldn't find key %s in Secret %s/%s", ref.Key, e.p.Namespace, ref.Name)
		}
		value = string(data)
	default:
		return "", false, errors.New("environment variable " + v.Name + " has an unsupported source")
	}
	return value, err == nil, err
}

func unlessOptional(optional *bool, format string, a ...any) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf(format, a...)
}
