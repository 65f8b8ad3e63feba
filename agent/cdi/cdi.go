// Package cdi owns reading the files of the Container Device Interface (specification 0.8, github.com/cncf-tags/container-device-interface)
// for runtimes that do not: a vendor's tool says in /etc/cdi or /var/run/cdi what a container needs for a device, and a
// device plugin names the device. What cannot be said over CRI, such as hooks, is an error and not left out.
package cdi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is read.
const (
	maxFiles = 256
	maxFile  = 1 << 20 // bytes
)

// Spec is one file.
type Spec struct {
	Version string   `yaml:"cdiVersion"`
	Kind    string   `yaml:"kind"` // vendor.example/class
	Devices []Device `yaml:"devices"`
	// Edits are for every container that gets a device of the file.
	Edits Edits `yaml:"containerEdits"`
}

// Device is a named device.
type Device struct {
	Name  string `yaml:"name"`
	Edits Edits  `yaml:"containerEdits"`
}

// Edits are what is done to a container.
type Edits struct {
	Env         []string    `yaml:"env"` // NAME=value
	DeviceNodes []Node      `yaml:"deviceNodes"`
	Mounts      []Mount     `yaml:"mounts"`
	Hooks       []yaml.Node `yaml:"hooks"`
	GIDs        []uint32    `yaml:"additionalGids"`
	IntelRdt    yaml.Node   `yaml:"intelRdt"`
}

// Node is a device node.
type Node struct {
	Path        string `yaml:"path"`        // in the container
	HostPath    string `yaml:"hostPath"`    // empty: the same
	Permissions string `yaml:"permissions"` // of r, w, m; empty: rwm
}

// Mount is a bind mount.
type Mount struct {
	HostPath      string   `yaml:"hostPath"`
	ContainerPath string   `yaml:"containerPath"`
	Options       []string `yaml:"options"`
}

// ErrUnsupported: only a runtime that knows CDI itself can do that.
var ErrUnsupported = errors.New("this container runtime does not know CDI; containerd 2.0 does")

// Resolve says what a container needs for the devices of these names (vendor.example/class=name). A later folder's file wins over
// one of an earlier folder that has the same device.
func Resolve(folders, names []string) (Edits, error) {
	specs, err := load(folders)
	if err != nil {
		return Edits{}, fmt.Errorf("cdi: %w", err)
	}
	var all Edits
	used := map[int]bool{}
	for _, name := range names {
		kind, device, ok := strings.Cut(name, "=")
		if !ok {
			return Edits{}, fmt.Errorf("cdi: %q is no name of a device, such as vendor.example/class=name", name)
		}
		at, edits := find(specs, kind, device)
		if at < 0 {
			return Edits{}, fmt.Errorf("cdi: there is no device %s in %s", name, strings.Join(folders, ", "))
		}
		if !used[at] {
			used[at] = true
			all.add(specs[at].Edits)
		}
		all.add(edits)
	}
	return all, all.check()
}

func find(specs []Spec, kind, device string) (at int, edits Edits) {
	for i := len(specs) - 1; i >= 0; i-- {
		if specs[i].Kind != kind {
			continue
		}
		for _, d := range specs[i].Devices {
			if d.Name == device {
				return i, d.Edits
			}
		}
	}
	return -1, Edits{}
}

func (e *Edits) add(more Edits) {
	e.Env = append(e.Env, more.Env...)
	e.DeviceNodes = append(e.DeviceNodes, more.DeviceNodes...)
	e.Mounts = append(e.Mounts, more.Mounts...)
	e.Hooks = append(e.Hooks, more.Hooks...)
	e.GIDs = append(e.GIDs, more.GIDs...)
	if !more.IntelRdt.IsZero() {
		e.IntelRdt = more.IntelRdt
	}
}

func (e *Edits) check() error {
	switch {
	case len(e.Hooks) > 0:
		return fmt.Errorf("cdi: the device needs hooks: %w", ErrUnsupported)
	case len(e.GIDs) > 0:
		return fmt.Errorf("cdi: the device needs additional groups: %w", ErrUnsupported)
	case !e.IntelRdt.IsZero():
		return fmt.Errorf("cdi: the device needs intelRdt: %w", ErrUnsupported)
	}
	for _, v := range e.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fmt.Errorf("cdi: %q is no NAME=value", v)
		}
	}
	for i := range e.DeviceNodes {
		n := &e.DeviceNodes[i]
		if n.HostPath == "" {
			n.HostPath = n.Path
		}
		if n.Permissions == "" {
			n.Permissions = "rwm"
		}
		if !filepath.IsAbs(n.Path) || !filepath.IsAbs(n.HostPath) || strings.Trim(n.Permissions, "rwm") != "" {
			return fmt.Errorf("cdi: bad device node %+v", *n)
		}
	}
	for _, m := range e.Mounts {
		if !filepath.IsAbs(m.HostPath) || !filepath.IsAbs(m.ContainerPath) {
			return fmt.Errorf("cdi: bad mount %+v", m)
		}
	}
	return nil
}

// ReadOnly reports whether the options say so.
func (m Mount) ReadOnly() bool { return slices.Contains(m.Options, "ro") }

func load(folders []string) ([]Spec, error) {
	var specs []Spec
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if e.IsDir() || ext != ".json" && ext != ".yaml" && ext != ".yml" {
				continue
			}
			if len(specs) >= maxFiles {
				return nil, fmt.Errorf("more than %d files in %s", maxFiles, strings.Join(folders, ", "))
			}
			s, err := read(filepath.Join(folder, e.Name()))
			if err != nil {
				return nil, err
			}
			specs = append(specs, s)
		}
	}
	return specs, nil
}

func read(file string) (s Spec, err error) {
	f, err := os.Open(file)
	if err != nil {
		return s, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return s, err
	}
	if len(data) > maxFile {
		return s, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	s, err = Parse(data)
	if err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Parse reads a file's content, JSON or YAML.
func Parse(data []byte) (s Spec, err error) {
	if err := yaml.Unmarshal(data, &s); err != nil {
		return s, err
	}
	if !strings.Contains(s.Kind, "/") {
		return s, fmt.Errorf("kind %q must be vendor.example/class", s.Kind)
	}
	return s, nil
}
