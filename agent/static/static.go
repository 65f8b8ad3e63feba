// Package static owns the pods that come from a folder on the device: what is in the folder runs, whether there is a control plane or
// not. It reads the files, says what is wrong with them, and watches the folder without polling.
package static

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/agent/incoming"
	"github.com/shoal-edge/shoal/agent/pod"
)

// Annotations of static pods and of the objects that show them in the API, as kubelet has them.
const (
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationMirror = "kubernetes.io/config.mirror"
)

// Limits of the folder.
const (
	maxFiles = 100
	maxFile  = 1 << 20
)

// Folder is where static pods come from.
type Folder struct {
	Dir      string
	NodeName string
	Logger   *slog.Logger

	pods   map[string]*corev1.Pod // by file
	failed map[string]string      // what was wrong with a file, as last told
}

// Read returns the pods of the folder by their uids. A file that is wrong has the pod that it had when it was right; a folder that
// cannot be read has all that it had.
func (f *Folder) Read() map[string]*corev1.Pod {
	names, err := f.list()
	if err != nil {
		f.tell("", err)
		return f.byUID()
	}
	f.tell("", nil)
	fresh := map[string]*corev1.Pod{}
	for _, name := range names {
		p, err := f.read(name)
		f.tell(name, err)
		if err != nil {
			p = f.pods[name]
		}
		if p != nil {
			fresh[name] = p
		}
	}
	f.pods = fresh
	return f.byUID()
}

// byUID leaves out pods of a name that another file has too: of two, that of the first file runs.
func (f *Folder) byUID() map[string]*corev1.Pod {
	all, taken := map[string]*corev1.Pod{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.pods)) {
		p := f.pods[name]
		key := p.Namespace + "/" + p.Name
		if other := taken[key]; other != "" {
			f.tell(name+" twice", fmt.Errorf("the pod %s is in %s already", key, other))
			continue
		}
		f.tell(name+" twice", nil)
		taken[key] = name
		all[string(p.UID)] = p
	}
	return all
}

// tell logs what is wrong with a file, once for each thing.
func (f *Folder) tell(what string, err error) {
	if f.failed == nil {
		f.failed = map[string]string{}
	}
	if err == nil {
		delete(f.failed, what)
		return
	}
	if f.failed[what] != err.Error() {
		name, _, _ := strings.Cut(what, " ")
		f.Logger.Error("a static pod is not as its file says", "file", filepath.Join(f.Dir, name), "err", err)
		f.failed[what] = err.Error()
	}
}

func (f *Folder) list() ([]string, error) {
	entries, err := os.ReadDir(f.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		names = append(names, name)
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%d files are more than %d", len(names), maxFiles)
	}
	return names, nil
}

func (f *Folder) read(name string) (*corev1.Pod, error) {
	file, err := os.Open(filepath.Join(f.Dir, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return Parse(data, f.NodeName)
}

// Parse reads a pod as a file has it, in YAML or JSON, and makes it the static pod of a device: its name ends with the device's, and
// its uid follows from the file's content, so that a changed file is another pod.
func Parse(data []byte, nodeName string) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("it is empty")
	}
	if err := yaml.UnmarshalStrict(data, p); err != nil {
		return nil, err
	}
	if p.Kind != "Pod" || p.APIVersion != "v1" {
		return nil, fmt.Errorf("it holds a %s of %s, not a Pod of v1", p.Kind, p.APIVersion)
	}
	if p.Name == "" {
		return nil, errors.New("metadata.name is missing")
	}
	sum := sha256.Sum256(append([]byte(nodeName+"\x00"), data...))
	hash := hex.EncodeToString(sum[:16])
	p.Name += "-" + nodeName
	if p.Namespace == "" {
		p.Namespace = corev1.NamespaceDefault
	}
	p.UID, p.GenerateName, p.ResourceVersion, p.DeletionTimestamp = types.UID(hash), "", "", nil
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[pod.AnnotationSource], p.Annotations[AnnotationHash] = "file", hash
	p.Spec.NodeName = nodeName
	// As upstream does: taints are about who is sent to a device, and this one is there already.
	p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	p.Status = corev1.PodStatus{}
	return p, validate(p)
}

func validate(p *corev1.Pod) error {
	// What is kept in the API may not be there when the pod is to start.
	if err := selfContained(p); err != nil {
		return err
	}
	corev1defaults.SetObjectDefaults_Pod(p)
	internal := &core.Pod{}
	if err := corev1defaults.Convert_v1_Pod_To_core_Pod(p, internal, nil); err != nil {
		return err
	}
	return validation.ValidatePodCreate(internal, validation.PodValidationOptions{}).ToAggregate()
}

func selfContained(p *corev1.Pod) error {
	var found error
	refuse := func(kind, name string) bool {
		found = fmt.Errorf("a static pod cannot use the %s %q, which is in the API", kind, name)
		return false
	}
	podutil.VisitPodSecretNames(p, func(name string) bool { return refuse("secret", name) })
	podutil.VisitPodConfigmapNames(p, func(name string) bool { return refuse("configmap", name) })
	if p.Spec.ServiceAccountName != "" {
		refuse("service account", p.Spec.ServiceAccountName)
	}
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			refuse("persistent volume claim", v.PersistentVolumeClaim.ClaimName)
		}
	}
	return found
}

// Watch calls changed when something in the folder may have changed, until ctx ends. A folder that is not there is made.
func (f *Folder) Watch(ctx context.Context, changed func()) error {
	if err := incoming.Watch(ctx, f.Dir, changed); err != nil {
		return fmt.Errorf("static pods: %w", err)
	}
	return nil
}
