package agent

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// A device that boots without a link runs again what it ran before, also what is to be pulled each time; a registry that says no is
// believed, and a pod that never ran here has to wait.
func TestAlwaysPullWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[error]
		say := func(err error) { answer.Store(&err) }
		say(nil)
		d := newDevice(t, fake.Config{
			Missing: func(string) bool { return true },
			PullErr: func(string) error { return *answer.Load() },
		})
		d.start()
		defer func() { d.end() }()
		always := func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways }
		old, young := newPod("old", always), newPod("young", always)
		d.apply(set(t, old))
		if got := d.phase(old); got != "Running" {
			t.Fatalf("at first: %s", got)
		}
		say(errors.New("dial tcp 192.0.2.7:443: connect: network is unreachable"))
		d.end()
		d.runtime.Reboot()
		d.start()
		d.apply(set(t, young))
		pass(time.Second)
		if s := d.status(old).ContainerStatuses[0]; !s.Ready || s.RestartCount != 1 {
			t.Errorf("after a boot without a link: %+v", s)
		}
		if w := d.status(young).ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ErrImagePull" {
			t.Errorf("a pod that never ran here: %+v", d.status(young).ContainerStatuses[0])
		}
		say(errors.New("pull access denied, repository does not exist or may require authorization"))
		d.end()
		d.runtime.Reboot()
		d.start()
		pass(time.Second)
		if w := d.status(old).ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ErrImagePull" {
			t.Errorf("a registry said no, and the pod runs: %+v", d.status(old).ContainerStatuses[0])
		}
	})
}

func secret(name, key, data string) transport.Item {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string][]byte{key: []byte(data)}}
	value, _ := s.Marshal()
	return transport.Item{Key: "secrets/default/" + name, Value: value}
}

func TestCredentials(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newIdle(t, func(c *Config) {
		c.Registries = []Registry{{Host: "registry.example.com:5000", Username: "device", PasswordFile: password}}
	})
	packed := base64.StdEncoding.EncodeToString([]byte("packed:with:colon"))
	if err := a.Apply(t.Context(), 1, 1, true, []transport.Item{
		secret("one", corev1.DockerConfigJsonKey, `{"auths": {
			"https://registry.example.com:5000/v2/": {"username": "all", "password": "p"},
			"registry.example.com:5000/team": {"username": "team", "password": "p"},
			"*.example.org": {"auth": "`+packed+`"}}}`),
		secret("two", corev1.DockerConfigKey, `{"https://index.docker.io/v1/": {"username": "hub", "password": "p"}}`),
		secret("broken", corev1.DockerConfigJsonKey, `{"auths": [`),
	}); err != nil {
		t.Fatal(err)
	}
	p := newPod("web", func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "none"}, {Name: "broken"}, {Name: "one"}, {Name: "two"}}
	})
	for image, want := range map[string]string{
		"registry.example.com:5000/team/app:1":       "team:p all:p device:own none",
		"registry.example.com:5000/teams/app@sha256": "all:p device:own none",
		"registry.example.com/team/app":              "none",
		"eu.example.org/app":                         "packed:with:colon none",
		"a.eu.example.org/app":                       "none",
		"busybox":                                    "hub:p none",
		"docker.io/library/busybox:1":                "hub:p none",
		"user/app":                                   "hub:p none",
		"localhost/app":                              "none",
	} {
		var got []string
		for _, auth := range a.credentials(p, image) {
			if auth == nil {
				got = append(got, "none")
			} else {
				got = append(got, auth.Username+":"+auth.Password)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", image, s, want)
		}
	}
}

func TestSplitImage(t *testing.T) {
	for image, want := range map[string][2]string{
		"busybox":                         {"docker.io", "library/busybox"},
		"busybox:1@sha256:ab":             {"docker.io", "library/busybox"},
		"user/app:v1":                     {"docker.io", "user/app"},
		"host:5000/app":                   {"host:5000", "app"},
		"registry.example.com/a/b/c:v1.2": {"registry.example.com", "a/b/c"},
		"localhost/app@sha256:ab":         {"localhost", "app"},
	} {
		host, repository := splitImage(image)
		if got := [2]string{host, repository}; got != want {
			t.Errorf("%s: %v, want %v", image, got, want)
		}
	}
}

func TestRegistryHosts(t *testing.T) {
	const near = "http://127.0.0.1:6447"
	for _, tc := range []struct {
		registry Registry
		near     string
		want     string
	}{
		{Registry{Host: "r.example.com", Endpoint: "http://192.0.2.2:5000"}, "", ours + `server = "http://192.0.2.2:5000"
capabilities = ["pull", "resolve"]

[host."http://192.0.2.2:5000"]
capabilities = ["pull", "resolve"]
`},
		{Registry{Host: "docker.io", Mirrors: []string{"http://192.0.2.2:5001"}, CAFile: "/ca.pem", InsecureSkipVerify: true}, near, ours + `server = "https://registry-1.docker.io"
capabilities = ["pull", "resolve"]
ca = "/ca.pem"
skip_verify = true

[host."http://127.0.0.1:6447"]
capabilities = ["pull"]

[host."http://192.0.2.2:5001"]
capabilities = ["pull", "resolve"]
ca = "/ca.pem"
skip_verify = true
`},
		{Registry{Host: everyRegistry}, near, ours + `
[host."http://127.0.0.1:6447"]
capabilities = ["pull"]
`},
	} {
		if diff := cmp.Diff(tc.want, tc.registry.hosts(tc.near)); diff != "" {
			t.Error(diff)
		}
	}
}

// What somebody else has set up for every registry stays.
func TestSettingsOfOthers(t *testing.T) {
	dir := t.TempDir()
	a := &Agent{c: Config{RegistryConfDir: dir, Mirror: "http://127.0.0.1:6447", Logger: slog.New(slog.DiscardHandler)}}
	file := filepath.Join(dir, everyRegistry, "hosts.toml")
	write := func(want string) {
		t.Helper()
		if err := a.writeRegistries(); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); !strings.Contains(string(got), want) {
			t.Errorf("got %s", got)
		}
	}
	write(ours + "\n[host.")
	a.c.Mirror = ""
	write(ours)
	if err := os.WriteFile(file, []byte("server = \"https://proxy.example\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.c.Mirror = "http://127.0.0.1:6447"
	write("server = \"https://proxy.example\"\n")
}
