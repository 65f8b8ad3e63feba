package maker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware/trust"
)

var today = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// makers are people with keys.
type makers struct {
	t    *testing.T
	dir  string
	keys map[string]*Key
}

func newMakers(t *testing.T) *makers {
	return &makers{t: t, dir: t.TempDir(), keys: map[string]*Key{}}
}

// key is somebody's whole key, made when it is first named.
func (m *makers) key(name string) *Key {
	m.t.Helper()
	if m.keys[name] == nil {
		k, err := NewKey(filepath.Join(m.dir, name))
		if err != nil {
			m.t.Fatal(err)
		}
		m.keys[name] = k
	}
	return m.keys[name]
}

// public is the half that others have.
func (m *makers) public(name string) *Key {
	m.t.Helper()
	m.key(name)
	k, err := LoadKey(filepath.Join(m.dir, name+".pub"))
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

func (m *makers) roles(threshold int, release string, root ...string) Roles {
	r := Roles{Threshold: threshold, Release: []*Key{m.public(release)}, Expires: today.AddDate(5, 0, 0)}
	for _, name := range root {
		r.Root = append(r.Root, m.public(name))
	}
	return r
}

// sign signs the root that is to come, and says how many signatures are missing then.
func (m *makers) sign(f *Folder, names ...string) int {
	m.t.Helper()
	var keys []*Key
	for _, name := range names {
		keys = append(keys, m.key(name))
	}
	_, missing, err := f.SignRoot(keys)
	if err != nil {
		m.t.Fatal(err)
	}
	return missing
}

func release(counter int64) *firmwarev1.Release {
	r := &firmwarev1.Release{Spec: firmwarev1.ReleaseSpec{
		Version: fmt.Sprint("2.4.", counter), Counter: counter, HardwareIDs: []string{"cm4", "pi5"},
		Artifacts: []firmwarev1.Artifact{
			{Name: "image", HardwareIDs: []string{"cm4"}}, {Name: "image-pi5", HardwareIDs: []string{"pi5"}},
		},
	}}
	r.Name = fmt.Sprint("os-", counter)
	for i := range r.Spec.Artifacts {
		if err := Measure(&r.Spec.Artifacts[i], strings.NewReader(fmt.Sprint("content ", counter, i))); err != nil {
			panic(err)
		}
	}
	return r
}

// TestRelease takes releases from their makers to devices, through a change of keys.
func TestRelease(t *testing.T) {
	m := newMakers(t)
	f, err := Init(filepath.Join(m.dir, "repo"), m.roles(2, "builder", "ann", "bob", "eve"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SignRelease(release(1), []*Key{m.key("builder")}, today, today.AddDate(1, 0, 0)); err == nil || !strings.Contains(err.Error(), "lacks signatures") {
		t.Errorf("a release without a root: %v", err)
	}
	if got := m.sign(f, "ann"); got != 1 {
		t.Errorf("after one of two, %d are missing", got)
	}
	if _, _, err := f.SignRoot([]*Key{m.key("ann"), m.key("builder")}); err == nil {
		t.Error("one person signs twice")
	}
	if got := m.sign(f, "bob"); got != 0 {
		t.Errorf("after two of two, %d are missing", got)
	}
	first, err := os.ReadFile(f.path(rootFile))
	if err != nil {
		t.Fatal(err)
	}
	one, two := release(1), release(2)
	for _, r := range []*firmwarev1.Release{one, two} {
		if err := f.SignRelease(r, []*Key{m.key("builder")}, today, today.AddDate(1, 0, 0)); err != nil {
			t.Fatal(err)
		}
		if err := Verify(first, r, today); err != nil {
			t.Error(err)
		}
	}
	changed := release(2)
	changed.Spec.Artifacts[0].SHA256 = strings.Repeat("e", 64)
	if err := f.SignRelease(changed, []*Key{m.key("builder")}, today, today.AddDate(1, 0, 0)); err == nil || !strings.Contains(err.Error(), "another release") {
		t.Errorf("other content under the same name: %v", err)
	}
	if err := f.SignRelease(release(3), []*Key{m.public("builder"), m.key("ann")}, today, today.AddDate(1, 0, 0)); err == nil || !strings.Contains(err.Error(), "may sign") {
		t.Errorf("signed without the key: %v", err)
	}

	// The builder's key and one person's are replaced. Devices with the first root follow.
	if err := f.Rotate(m.roles(2, "newbuilder", "ann", "bob", "dan")); err != nil {
		t.Fatal(err)
	}
	if got := m.sign(f, "dan"); got != 2 {
		t.Errorf("with none of the old keys, %d are missing", got)
	}
	m.sign(f, "ann")
	if got := m.sign(f, "bob"); got != 0 {
		t.Errorf("%d are missing", got)
	}
	three := release(3)
	if err := f.SignRelease(three, []*Key{m.key("builder")}, today, today.AddDate(1, 0, 0)); err == nil {
		t.Error("the key that was replaced signs on")
	}
	if err := f.SignRelease(three, []*Key{m.key("newbuilder")}, today, today.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := Verify(first, three, today); err != nil || len(three.Spec.Metadata.Roots) != 1 {
		t.Errorf("a device with the first root: %v, roots %d", err, len(three.Spec.Metadata.Roots))
	}
	// A device that has seen the third release takes none before.
	told := func(r *firmwarev1.Release) *firmwarev1.Assignment {
		return &firmwarev1.Assignment{Release: r.Name, Version: r.Spec.Version, Counter: r.Spec.Counter, Artifact: r.Spec.Artifacts[0]}
	}
	state, err := trust.Verify(trust.State{Root: first}, told(three), three.Spec.Metadata, "cm4", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(state, told(two), two.Spec.Metadata, "cm4", today); err == nil {
		t.Error("a release of a key that was replaced is believed")
	}
	tampered := release(3)
	tampered.Spec.Metadata = three.Spec.Metadata
	tampered.Spec.Counter = 9
	if err := Verify(first, tampered, today); !errors.Is(err, trust.ErrTarget) {
		t.Errorf("a counter that was not signed: %v", err)
	}
	if err := Verify(first, three, today.AddDate(2, 0, 0)); err == nil {
		t.Error("metadata that has ended is believed")
	}
}

func TestMistakes(t *testing.T) {
	m := newMakers(t)
	for name, r := range map[string]Roles{
		"no key for releases": {Root: []*Key{m.key("ann")}, Threshold: 1},
		"threshold too high":  {Root: []*Key{m.key("ann")}, Threshold: 2, Release: []*Key{m.key("builder")}},
		"threshold of none":   {Root: []*Key{m.key("ann")}, Release: []*Key{m.key("builder")}},
		"twice":               {Root: []*Key{m.key("ann"), m.public("ann")}, Threshold: 2, Release: []*Key{m.key("builder")}},
	} {
		if _, err := Init(filepath.Join(m.dir, name), r); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, err := NewKey(filepath.Join(m.dir, "ann")); err == nil {
		t.Error("a key was overwritten")
	}
	if stat, err := os.Stat(filepath.Join(m.dir, "ann")); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v, %v", stat.Mode(), err)
	}
	if _, err := Open(m.dir); err == nil {
		t.Error("any folder will do")
	}
	if err := os.WriteFile(filepath.Join(m.dir, "text"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(filepath.Join(m.dir, "text")); err == nil {
		t.Error("any file is a key")
	}
	a := &firmwarev1.Artifact{Name: "image", Size: 3}
	if err := Measure(a, strings.NewReader("four")); err == nil {
		t.Error("another size will do")
	}
}
