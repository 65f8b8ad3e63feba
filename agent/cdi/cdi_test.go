package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const vendor = `{"cdiVersion": "0.6.0", "kind": "vendor.example/npu", "containerEdits": {"env": ["NPU=all"]}, "devices": [
  {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/npu0"}], "env": ["NPU0=1"]}},
  {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/npu", "hostPath": "/dev/npu1", "permissions": "rw"}],
    "mounts": [{"hostPath": "/opt/npu", "containerPath": "/usr/lib/npu", "options": ["ro", "nosuid", "bind"]}]}},
  {"name": "hook", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}},
  {"name": "group", "containerEdits": {"additionalGids": [44]}},
  {"name": "odd", "containerEdits": {"deviceNodes": [{"path": "dev/npu"}]}}]}`

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	static, dynamic := t.TempDir(), t.TempDir()
	write(t, filepath.Join(static, "vendor.json"), vendor)
	write(t, filepath.Join(static, "readme.txt"), "no spec")
	folders := []string{static, filepath.Join(static, "none"), dynamic}
	got, err := Resolve(folders, []string{"vendor.example/npu=0", "vendor.example/npu=1"})
	want := Edits{
		Env:         []string{"NPU=all", "NPU0=1"},
		DeviceNodes: []Node{{"/dev/npu0", "/dev/npu0", "rwm"}, {"/dev/npu", "/dev/npu1", "rw"}},
		Mounts:      []Mount{{"/opt/npu", "/usr/lib/npu", []string{"ro", "nosuid", "bind"}}},
	}
	if err != nil || !cmp.Equal(want, got) || !got.Mounts[0].ReadOnly() {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
	for name, want := range map[string]string{
		"vendor.example/npu=hook": "hooks", "vendor.example/npu=group": "groups", "vendor.example/npu=odd": "bad device node",
		"vendor.example/npu=7": "there is no device", "vendor.example/npu": "no name of a device",
	} {
		if _, err := Resolve(folders, []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Resolve(folders, []string{"vendor.example/npu=hook"}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}

	// What a tool writes at run time wins over what is installed.
	write(t, filepath.Join(dynamic, "vendor.yaml"), "cdiVersion: 0.6.0\nkind: vendor.example/npu\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [NEW=1]\n")
	got, err = Resolve(folders, []string{"vendor.example/npu=0"})
	if err != nil || !cmp.Equal(got.Env, []string{"NEW=1"}) {
		t.Errorf("%+v %v", got, err)
	}
	write(t, filepath.Join(dynamic, "broken.json"), "{")
	if _, err := Resolve(folders, []string{"vendor.example/npu=0"}); err == nil || !strings.Contains(err.Error(), "broken.json") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(vendor))
	f.Add([]byte("kind: a/b\ndevices: [{name: x, containerEdits: {mounts: [{}]}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		for _, d := range s.Devices {
			_, e := find([]Spec{s}, s.Kind, d.Name)
			if e.check() == nil {
				for _, n := range e.DeviceNodes {
					if !filepath.IsAbs(n.HostPath) || n.Permissions == "" {
						t.Errorf("%+v", n)
					}
				}
			}
		}
	})
}
