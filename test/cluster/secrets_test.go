package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/store/seal"
)

const (
	secretsPath = "/api/v1/namespaces/default/secrets"
	hidden      = "correct-horse-battery-staple"
)

func secret(name, content string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: base64.StdEncoding.EncodeToString([]byte(content))},
		},
		Data: map[string][]byte{"password": []byte(content)},
	}
}

// forms are a text as it may stand in a file: plain, and in base64 (as JSON has bytes) at any place of a longer text.
func forms(text string) [][]byte {
	out := [][]byte{[]byte(text)}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		out = append(out, []byte(encoded[shift+min(shift, 1):len(encoded)-2])) // the edges depend on what is beside the text
	}
	return out
}

func contains(data []byte, text string) bool {
	return slices.ContainsFunc(forms(text), func(form []byte) bool { return bytes.Contains(data, form) })
}

func TestForms(t *testing.T) {
	for before := range 4 {
		for after := range 4 {
			text := strings.Repeat("a", before) + hidden + strings.Repeat("z", after)
			for _, seen := range []string{text, base64.StdEncoding.EncodeToString([]byte(text))} {
				if !contains([]byte(seen), hidden) {
					t.Errorf("not found in %s", seen)
				}
			}
		}
	}
	if contains([]byte(base64.StdEncoding.EncodeToString([]byte("something else that is as long"))), hidden) {
		t.Error("found in another text")
	}
}

// shows finds a text in the files of a folder.
func shows(t *testing.T, dir, text string) (where []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !entry.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if contains(data, text) {
			where = append(where, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}

func (c *cluster) keys(method, action string) (status wire.SecretsStatus, err error) {
	path := apiserver.SecretsPath
	if action != "" {
		path += "?action=" + action
	}
	return status, c.kube.Do(c.Context(), method, path, nil, &status)
}

func (c *cluster) sealedAnew() {
	c.Helper()
	c.eventually("all Secrets are encrypted with the primary key", func() error {
		status, err := c.keys(http.MethodGet, "")
		if err == nil && (status.Pending != 0 || status.Unreadable != 0) {
			err = fmt.Errorf("%+v", status)
		}
		return err
	})
}

func (c *cluster) holds(name, content string) {
	c.Helper()
	var s corev1.Secret
	c.eventually(name+" can be read", func() error {
		err := c.kube.Do(c.Context(), http.MethodGet, secretsPath+"/"+name, nil, &s)
		if err == nil && string(s.Data["password"]) != content {
			err = fmt.Errorf("it holds %q", s.Data["password"])
		}
		return err
	})
}

// TestSecretsAreNotOnTheDisk looks for a Secret in everything that the servers write, and in a snapshot, and rotates the key while
// clients write.
func TestSecretsAreNotOnTheDisk(t *testing.T) {
	c := start(t, 3, 0)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	const control = "a-text-that-is-no-secret"
	c.do(http.MethodPost, "/api/v1/namespaces/default/configmaps", &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "control"}, Data: map[string]string{"k": control},
	}, nil)
	absent := func() {
		t.Helper()
		dir := filepath.Dir(c.fleet.Member("server-1").Config.DataDir)
		snapshot := c.saveSnapshot()
		if where := shows(t, dir, hidden); len(where) > 0 || contains(snapshot, hidden) {
			t.Errorf("the Secret is in %v, or in the snapshot", where)
		}
		if where := shows(t, dir, control); len(where) < 3 || !bytes.Contains(snapshot, []byte(control)) {
			t.Errorf("the search finds nothing that is there: %v", where)
		}
	}
	absent()
	before := c.keyFile("server-1")

	stop := c.writeSecrets(4)
	for range 2 {
		if _, err := c.keys(http.MethodPost, "rotate"); err != nil {
			t.Fatal(err)
		}
		c.sealedAnew()
		status, err := c.keys(http.MethodPost, "drop-old")
		if err != nil || len(status.Keys) != 1 || status.Keys[0].State != "primary" {
			t.Fatalf("%+v, %v", status, err)
		}
	}
	stop()
	c.holds("a", hidden)
	absent()
	old := must(seal.Parse(before))
	for _, name := range []string{"server-1", "server-2", "server-3"} {
		ring := must(seal.Parse(c.keyFile(name)))
		primary, _ := old.Primary()
		if ring.Has(primary.ID) || len(ring.Keys()) != 1 {
			t.Errorf("%s has %v", name, ring)
		}
	}

	// Followers answer too, and all of it outlives the processes.
	c.useFollower()
	c.holds("a", hidden)
	for _, name := range []string{"server-3", "server-2", "server-1"} {
		if err := c.fleet.StopMember(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"server-1", "server-2", "server-3"} {
		if err := c.fleet.StartMember(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	c.use(c.fleet.Member("server-2"))
	c.holds("a", hidden)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (c *cluster) keyFile(server string) []byte {
	c.Helper()
	path := filepath.Join(c.fleet.Member(server).Config.DataDir, "pki", "secrets.keys")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		c.Fatalf("%s: %v, %v", path, info, err)
	}
	return must(os.ReadFile(path))
}

// writeSecrets has clients write and read Secrets of their own until stop, which fails the test if one ever read something else
// than it had written last.
func (c *cluster) writeSecrets(clients int) (stop func()) {
	ctx, cancel := context.WithCancel(c.Context())
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			name := fmt.Sprint("load-", i)
			for n := 0; ctx.Err() == nil; n++ {
				if err := writeAndRead(ctx, c.kube, name, fmt.Sprint(hidden, n), n == 0); err != nil && ctx.Err() == nil {
					c.Errorf("%s, write %d: %v", name, n, err)
					return
				}
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

func writeAndRead(ctx context.Context, client *kube.Client, name, content string, first bool) error {
	method, path := http.MethodPut, secretsPath+"/"+name
	if first {
		method, path = http.MethodPost, secretsPath
	}
	if err := client.Do(ctx, method, path, secret(name, content), nil); err != nil {
		return err
	}
	var list corev1.SecretList
	if err := client.Do(ctx, http.MethodGet, secretsPath, nil, &list); err != nil {
		return err
	}
	at := slices.IndexFunc(list.Items, func(s corev1.Secret) bool { return s.Name == name })
	if at < 0 || string(list.Items[at].Data["password"]) != content {
		return fmt.Errorf("read back something else")
	}
	return nil
}

// TestRotationNeedsEveryServer keeps the present key while a server is away, and goes on with the same new one later.
func TestRotationNeedsEveryServer(t *testing.T) {
	c := start(t, 3, 0)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	away := "server-3"
	if c.fleet.Leader() == away {
		away = "server-2"
	}
	if err := c.fleet.StopMember(away); err != nil {
		t.Fatal(err)
	}
	c.eventually("a leader answers", func() error { _, err := c.keys(http.MethodGet, ""); return err })
	_, err := c.keys(http.MethodPost, "rotate")
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), away) {
		t.Fatalf("rotated without %s: %v", away, err)
	}
	c.do(http.MethodPost, secretsPath, secret("b", hidden), nil)
	status, err := c.keys(http.MethodGet, "")
	if err != nil || len(status.Keys) != 2 || status.Keys[0].Secrets < 2 || status.Keys[1].State != "staged" || status.Keys[1].Secrets != 0 {
		t.Errorf("%+v, %v", status, err)
	}
	if err := c.fleet.StartMember(t.Context(), away); err != nil {
		t.Fatal(err)
	}
	c.eventually("the rotation goes on", func() error { _, err := c.keys(http.MethodPost, "rotate"); return err })
	c.sealedAnew()
	again, err := c.keys(http.MethodGet, "")
	if err != nil || len(again.Keys) != 2 || again.Keys[1].ID != status.Keys[1].ID || again.Keys[1].State != "primary" || again.Keys[0].Secrets != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	c.use(c.fleet.Member(away))
	c.holds("a", hidden)
	c.holds("b", hidden)
}

// TestRotationOutlivesTheLeader stops the leader in the middle: the next one goes on by itself.
func TestRotationOutlivesTheLeader(t *testing.T) {
	c := start(t, 3, 0)
	const count = 40
	for i := range count {
		c.do(http.MethodPost, secretsPath, secret(fmt.Sprint("s-", i), fmt.Sprint(hidden, i)), nil)
	}
	leader := c.fleet.Leader()
	c.useFollower()
	status, err := c.keys(http.MethodPost, "rotate")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.fleet.StopMember(leader); err != nil {
		t.Fatal(err)
	}
	if status.Pending == 0 {
		t.Log("the leader was done before it was stopped")
	}
	c.sealedAnew()
	for i := range count {
		c.holds(fmt.Sprint("s-", i), fmt.Sprint(hidden, i))
	}
	if status, err := c.keys(http.MethodPost, "drop-old"); !apierrors.IsConflict(err) {
		t.Errorf("dropped keys that a server still has: %+v, %v", status, err)
	}
}

// TestServerGetsMissingKeys gives a server the keys of another cluster: it mends itself from its peers. A server that is alone, or
// whose file is gone or not its own, says so and does not start.
func TestServerGetsMissingKeys(t *testing.T) {
	c := start(t, 3, 0)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	c.eventually("server-3 has it", func() error {
		c.use(c.fleet.Member("server-3"))
		return c.kube.Do(t.Context(), http.MethodGet, secretsPath+"/a?resourceVersion=0", nil, nil)
	})
	member := c.fleet.Member("server-3")
	if err := c.fleet.StopMember("server-3"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(member.Config.DataDir, "pki")
	right := c.keyFile("server-3")
	foreign := must(must(seal.NewRing(time.Now())).Marshal())
	for name, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"missing":           {nil, "secrets.keys is missing"},
		"damaged":           {right[:len(right)/2], "it is no keyring"},
		"another cluster's": {foreign, "has not the key"},
	} {
		if err := os.Remove(filepath.Join(dir, "secrets.keys")); err != nil {
			t.Fatal(err)
		}
		if tc.content != nil {
			if err := os.WriteFile(filepath.Join(dir, "secrets.keys"), tc.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := c.fleet.StartMember(t.Context(), "server-3")
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%s: %v", name, err)
		}
		if tc.content == nil { // the next round removes it again
			if err := os.WriteFile(filepath.Join(dir, "secrets.keys"), right, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Without the mark the server cannot know that the keys are not its own; the others do.
	if err := os.WriteFile(filepath.Join(dir, "secrets.keys"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "secrets.primary")); err != nil {
		t.Fatal(err)
	}
	if err := c.fleet.StartMember(t.Context(), "server-3"); err != nil {
		t.Fatal(err)
	}
	c.use(member)
	c.holds("a", hidden)
}

// TestLoneServerWithoutItsKeys does not start rather than answer nonsense.
func TestLoneServerWithoutItsKeys(t *testing.T) {
	c := start(t, 1, 0)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	c.saveSnapshot() // so that it is in the checkpoint
	member := c.fleet.Member("server-1")
	right := c.keyFile("server-1")
	if err := c.fleet.StopMember("server-1"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(member.Config.DataDir, "pki")
	for _, name := range []string{"secrets.keys", "secrets.primary"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	err := c.fleet.StartMember(t.Context(), "server-1")
	if err == nil || !strings.Contains(err.Error(), "1 Secrets cannot be decrypted: put the keys of their time into") {
		t.Fatalf("started with new keys: %v", err)
	}
	wrong := c.keyFile("server-1")
	restart := func(keys []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "secrets.keys"), keys, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "secrets.primary")); err != nil {
			t.Fatal(err)
		}
		if err := c.fleet.StartMember(t.Context(), "server-1"); err != nil {
			t.Fatal(err)
		}
	}
	restart(right)
	c.holds("a", hidden)

	// Somebody says that the keys are lost for good.
	if err := c.fleet.StopMember("server-1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets.lost"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	restart(wrong)
	if err := c.kube.Do(t.Context(), http.MethodGet, secretsPath+"/a", nil, nil); !apierrors.IsInternalError(err) {
		t.Errorf("read without its key: %v", err)
	}
	c.do(http.MethodDelete, secretsPath+"/a", nil, nil)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	c.holds("a", hidden)
}

// TestKeysOnAnotherMedium keeps the keys out of the data folder. What a thief of the card has shows no Secret, before and after a
// rotation, and does not start.
func TestKeysOnAnotherMedium(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	var logs lockedBuffer
	f, err := fleet.New(fleet.Config{
		Dir: t.TempDir(), Servers: 1, Version: "test", Logger: slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Edit: func(c *configs.Config) { c.Server.SecretsKeyFile = path },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, fleet: f, kube: must(kube.Load(f.Kubeconfig()))}
	dir := f.Member("server-1").Config.DataDir
	const control = "a-text-that-is-no-secret"
	var keys []seal.Key
	absent := func() {
		t.Helper()
		keys = append(keys, must(seal.Parse(must(os.ReadFile(path)))).Keys()...)
		data := c.saveSnapshot() // and with that the checkpoint
		if err := os.WriteFile(filepath.Join(dir, "backup.snapshot"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		metrics := must(c.kube.Stream(t.Context(), http.MethodGet, "/metrics", nil, 0))
		defer metrics.Body.Close()
		for name, data := range map[string][]byte{"the log": logs.Bytes(), "the metrics": must(io.ReadAll(metrics.Body))} {
			if contains(data, hidden) {
				t.Errorf("the Secret is in %s", name)
			}
			for _, key := range keys {
				if contains(data, string(key.Secret)) || bytes.Contains(data, []byte(hex.EncodeToString(key.Secret))) {
					t.Errorf("the key %s is in %s", key.ID, name)
				}
			}
		}
		if where := shows(t, dir, hidden); len(where) > 0 {
			t.Errorf("the Secret is in %v", where)
		}
		for _, key := range keys {
			if where := slices.Concat(shows(t, dir, string(key.Secret)), shows(t, dir, hex.EncodeToString(key.Secret))); len(where) > 0 {
				t.Errorf("the key %s is in %v", key.ID, where)
			}
		}
		if where := shows(t, dir, control); len(where) < 3 {
			t.Errorf("the search finds nothing that is there: %v", where)
		}
	}
	c.do(http.MethodPost, "/api/v1/namespaces/default/configmaps", &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "control"}, Data: map[string]string{"k": control},
	}, nil)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	absent()
	if _, err := c.keys(http.MethodPost, "rotate"); err != nil {
		t.Fatal(err)
	}
	c.sealedAnew()
	absent()
	if _, err := c.keys(http.MethodPost, "drop-old"); err != nil {
		t.Fatal(err)
	}
	c.do(http.MethodPost, secretsPath, secret("b", hidden), nil)
	absent()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	if err := f.StopMember("server-1"); err != nil {
		t.Fatal(err)
	}
	if where := shows(t, dir, hidden); len(where) > 0 {
		t.Errorf("after the stop, the Secret is in %v", where)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := f.StartMember(t.Context(), "server-1"); err == nil || !strings.Contains(err.Error(), "keys.json is missing") {
		t.Errorf("started without the medium: %v", err)
	}
	// A power cut may have left a file half written.
	if err := errors.Join(os.Rename(path+".away", path), os.WriteFile(path+".tmp-1", []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := f.StartMember(t.Context(), "server-1"); err != nil {
		t.Fatal(err)
	}
	c.holds("a", hidden)
	if _, err := os.Stat(path + ".tmp-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file of keys stays: %v", err)
	}
}

// lockedBuffer takes the log of several goroutines.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buffer.Bytes())
}

// TestRotationResumes stops the whole cluster at every step of a rotation: it comes back with all Secrets, and the rotation goes on
// from where it was.
func TestRotationResumes(t *testing.T) {
	c := start(t, 3, 0)
	for i := range 5 {
		c.do(http.MethodPost, secretsPath, secret(fmt.Sprint("s-", i), fmt.Sprint(hidden, i)), nil)
	}
	servers := []string{"server-1", "server-2", "server-3"}
	rings := func() (out []seal.Ring) {
		for _, name := range servers {
			out = append(out, must(seal.Parse(c.keyFile(name))))
		}
		return out
	}
	for _, step := range []struct {
		name   string
		sealed bool // everything is encrypted with the new key before
		files  func(old, staged, active, rest seal.Ring) [3]seal.Ring
	}{
		{"the new key is on one server", false, func(old, staged, _, _ seal.Ring) [3]seal.Ring { return [3]seal.Ring{old, staged, old} }},
		{"the new key is on all", false, func(_, staged, _, _ seal.Ring) [3]seal.Ring { return [3]seal.Ring{staged, staged, staged} }},
		{"one knows that it is in use", false, func(_, staged, active, _ seal.Ring) [3]seal.Ring { return [3]seal.Ring{staged, active, staged} }},
		{"all know that it is in use", false, func(_, _, active, _ seal.Ring) [3]seal.Ring { return [3]seal.Ring{active, active, active} }},
		{"the old key is dropped on one", true, func(_, _, active, rest seal.Ring) [3]seal.Ring { return [3]seal.Ring{active, rest, active} }},
	} {
		old := rings()[0]
		staged, id, err := old.Stage(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		active := must(staged.Activate(id))
		rest, _ := active.DropOld()
		put := func(files [3]seal.Ring) {
			t.Helper()
			for _, name := range servers {
				if err := c.fleet.StopMember(name); err != nil {
					t.Fatal(err)
				}
			}
			for i, name := range servers {
				path := filepath.Join(c.fleet.Member(name).Config.DataDir, "pki", "secrets.keys")
				if err := os.WriteFile(path, must(files[i].Marshal()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range servers {
				if err := c.fleet.StartMember(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if step.sealed {
			put([3]seal.Ring{active, active, active})
			c.sealedAnew()
		}
		put(step.files(old, staged, active, rest))
		for _, name := range servers {
			c.use(c.fleet.Member(name))
			for i := range 5 {
				c.holds(fmt.Sprint("s-", i), fmt.Sprint(hidden, i))
			}
		}
		c.eventually(step.name+": the servers have the same keys", func() error {
			if got := rings(); !got[0].Equal(got[1]) || !got[0].Equal(got[2]) {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
		if _, pending := rings()[0].Staged(); pending {
			c.eventually(step.name+": rotate goes on", func() error { _, err := c.keys(http.MethodPost, "rotate"); return err })
		}
		c.sealedAnew()
		c.eventually(step.name+": the old key goes", func() error { _, err := c.keys(http.MethodPost, "drop-old"); return err })
		for i, ring := range rings() {
			if primary, _ := ring.Primary(); primary.ID != id || len(ring.Keys()) != 1 {
				t.Errorf("%s: in the end %s has %v, not only %s", step.name, servers[i], ring, id)
			}
		}
		for i := range 5 {
			c.holds(fmt.Sprint("s-", i), fmt.Sprint(hidden, i))
		}
	}
}

// TestRestoreWithLostKeys restores what was encrypted with keys that are dropped: it says so, and everything else is there.
func TestRestoreWithLostKeys(t *testing.T) {
	c := start(t, 1, 0)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	c.write("plain")
	snapshot := c.saveSnapshot()
	if restored, err := c.restoreSnapshot(snapshot); err != nil || restored.Unreadable != 0 {
		t.Fatalf("restored with its keys: %+v, %v", restored, err)
	}
	c.holds("a", hidden)
	if _, err := c.keys(http.MethodPost, "rotate"); err != nil {
		t.Fatal(err)
	}
	c.sealedAnew()
	if _, err := c.keys(http.MethodPost, "drop-old"); err != nil {
		t.Fatal(err)
	}
	restored, err := c.restoreSnapshot(snapshot)
	if err != nil || restored.Unreadable == 0 {
		t.Fatalf("restored without its keys: %+v, %v", restored, err)
	}
	c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps/plain", nil, nil)
	if err := c.kube.Do(t.Context(), http.MethodGet, secretsPath+"/a", nil, nil); !apierrors.IsInternalError(err) {
		t.Errorf("read without its key: %v", err)
	}
	if status, err := c.keys(http.MethodPost, "drop-old"); !apierrors.IsConflict(err) {
		t.Errorf("dropped keys while a Secret cannot be read: %+v, %v", status, err)
	}

	// It starts again like this, and who has the Secret's content can bring it back.
	if err := c.fleet.StopMember("server-1"); err != nil {
		t.Fatal(err)
	}
	if err := c.fleet.StartMember(t.Context(), "server-1"); err != nil {
		t.Fatal(err)
	}
	c.do(http.MethodDelete, secretsPath+"/a", nil, nil)
	c.do(http.MethodPost, secretsPath, secret("a", hidden), nil)
	c.holds("a", hidden)
}

// TestKeysAreForServers keeps devices from the keys.
func TestKeysAreForServers(t *testing.T) {
	c := start(t, 1, 1)
	id, err := pki.Load(filepath.Join(c.fleet.Member("agent-1").Config.DataDir, "pki"), "node")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: id.ClientConfig("http/1.1"), DisableKeepAlives: true}}
	for _, path := range []string{apiserver.SecretsPath, apiserver.SecretsPath + "?action=rotate", "/shoal/v1/secrets/exchange"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+c.fleet.Member("server-1").Config.Server.Listen+path,
			bytes.NewReader(must(must(seal.NewRing(time.Now())).Marshal())))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("%s as a device: %s", path, response.Status)
		}
	}
	if _, err := os.Stat(filepath.Join(c.fleet.Member("agent-1").Config.DataDir, "pki", "secrets.keys")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an agent has keys: %v", err)
	}
}
