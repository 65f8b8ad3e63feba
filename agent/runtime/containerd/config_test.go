package containerd

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write configs/containerd.toml")

const (
	template = "../../../configs/containerd.toml"
	head     = `# containerd for a shoal device, for Debian's and Raspberry Pi OS's package (1.6 or later):
#   cp configs/containerd.toml /etc/containerd/config.toml && systemctl restart containerd
# Made by: go test ./agent/runtime/containerd -update

`
)

// The template for boards is what the generator makes by default, so that both are tested by one.
func TestTemplate(t *testing.T) {
	want := head + Config{}.TOML()
	if *update {
		if err := os.WriteFile(template, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("configs/containerd.toml is not what the generator makes; run go test ./agent/runtime/containerd -update")
	}
}

func TestFoldersAreOneDevicesOwn(t *testing.T) {
	c := Config{Root: "/a/root", State: "/a/state", CNIConfDir: "/a/net.d", RegistryDir: "/a/certs.d"}
	for line := range strings.Lines(c.TOML()) {
		for _, shared := range []string{"/var/lib", "/run", "/etc"} {
			if strings.Contains(line, `"`+shared) {
				t.Errorf("two devices on one machine share %s", strings.TrimSpace(line))
			}
		}
	}
}
