package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

// defaultMode is for volumes that name none (the API fills it in).
const defaultMode = 0o644

// files is the content of a written volume.
func (m *Manager) files(p *corev1.Pod, v *corev1.Volume, f pod.Facts) (map[string]file, error) {
	w := writer{m: m, p: p, dir: m.Path(p, v), facts: f, files: map[string]file{}, mode: defaultMode}
	var err error
	switch {
	case v.ConfigMap != nil:
		w.setMode(v.ConfigMap.DefaultMode)
		err = w.configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.Secret != nil:
		w.setMode(v.Secret.DefaultMode)
		err = w.secret(v.Secret.SecretName, v.Secret.Items, v.Secret.Optional)
	case v.DownwardAPI != nil:
		w.setMode(v.DownwardAPI.DefaultMode)
		err = w.downward(v.DownwardAPI.Items)
	case v.Projected != nil:
		w.setMode(v.Projected.DefaultMode)
		err = w.projected(v.Projected.Sources)
	}
	if sc := p.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		for name, f := range w.files {
			f.mode |= 0o440 // the group is there to read, whatever the volume's mode says
			w.files[name] = f
		}
	}
	return w.files, err
}

type writer struct {
	m     *Manager
	p     *corev1.Pod
	dir   string // where the volume is, or will be
	facts pod.Facts
	files map[string]file
	mode  fs.FileMode
}

func (w *writer) setMode(mode *int32) {
	if mode != nil {
		w.mode = fs.FileMode(*mode)
	}
}

func (w *writer) put(path string, data []byte, mode *int32) error {
	path = filepath.Clean(path)
	if !filepath.IsLocal(path) {
		return fmt.Errorf("path %q leaves the volume", path)
	}
	f := file{data: data, mode: w.mode}
	if mode != nil {
		f.mode = fs.FileMode(*mode)
	}
	w.files[path] = f
	return nil
}

func (w *writer) projected(sources []corev1.VolumeProjection) error {
	for _, s := range sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = w.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional)
		case s.Secret != nil:
			err = w.secret(s.Secret.Name, s.Secret.Items, s.Secret.Optional)
		case s.DownwardAPI != nil:
			err = w.downward(s.DownwardAPI.Items)
		case s.ServiceAccountToken != nil:
			err = w.token(s.ServiceAccountToken)
		case s.ClusterTrustBundle != nil:
			err = w.anchors(s.ClusterTrustBundle)
		default:
			err = fmt.Errorf("this kind of projection is not supported")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// token puts the service account's token in its place. Without one the older one stays, and a pod that never had one runs without
// rather than not at all: a device that has no link starts its pods too.
func (w *writer) token(projection *corev1.ServiceAccountTokenProjection) error {
	var value []byte
	var soon bool
	if w.m.Tokens != nil {
		value, soon = w.m.Tokens.Token(w.p, projection)
	}
	if value == nil {
		older, err := os.ReadFile(filepath.Join(w.dir, "..data", filepath.Clean(projection.Path)))
		switch {
		case err == nil:
			value = older
		case soon:
			return ErrTokenSoon
		default:
			return nil
		}
	}
	return w.put(projection.Path, value, nil)
}

// anchors puts the certificates of trust bundles in their place. An optional projection of none is an empty file.
func (w *writer) anchors(p *corev1.ClusterTrustBundleProjection) error {
	var value []byte
	var found bool
	if w.m.Anchors != nil {
		value, found = w.m.Anchors(p)
	}
	switch optional := p.Optional != nil && *p.Optional; {
	case found || optional:
		return w.put(p.Path, value, nil)
	case p.Name != nil:
		return fmt.Errorf("clustertrustbundle %q not found", *p.Name)
	case p.SignerName != nil:
		return fmt.Errorf("no clustertrustbundle of signer %q matches the label selector", *p.SignerName)
	}
	return errors.New("a projection of a clustertrustbundle names neither it nor a signer")
}

func (w *writer) configMap(name string, items []corev1.KeyToPath, optional *bool) error {
	c := w.m.Source.ConfigMap(w.p.Namespace, name)
	if c == nil {
		if optional != nil && *optional {
			return nil
		}
		return fmt.Errorf("configmap %q not found", name)
	}
	data := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
	for k, v := range c.Data {
		data[k] = []byte(v)
	}
	for k, v := range c.BinaryData {
		data[k] = v
	}
	return w.keys("configmap", name, data, items, optional)
}

func (w *writer) secret(name string, items []corev1.KeyToPath, optional *bool) error {
	s := w.m.Source.Secret(w.p.Namespace, name)
	if s == nil {
		if optional != nil && *optional {
			return nil
		}
		return fmt.Errorf("secret %q not found", name)
	}
	return w.keys("secret", name, s.Data, items, optional)
}

func (w *writer) keys(kind, name string, data map[string][]byte, items []corev1.KeyToPath, optional *bool) error {
	if len(items) == 0 {
		for k, v := range data {
			if err := w.put(k, v, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("%s %q references non-existent key: %s", kind, name, item.Key)
		}
		if err := w.put(item.Path, v, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) downward(items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = pod.Field(w.p, item.FieldRef.FieldPath, w.facts)
		case item.ResourceFieldRef != nil:
			c := pod.Find(w.p, item.ResourceFieldRef.ContainerName)
			if c == nil {
				return fmt.Errorf("container %q not found", item.ResourceFieldRef.ContainerName)
			}
			value, err = pod.Resource(c, item.ResourceFieldRef, w.facts)
		}
		if err != nil {
			return err
		}
		if err := w.put(item.Path, []byte(value), item.Mode); err != nil {
			return err
		}
	}
	return nil
}
