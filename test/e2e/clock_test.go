package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClocks has three servers whose clocks disagree as those of boards without a battery do: the founder's stands in 1970,
// one is ten years behind and one ten years ahead. Each of them leads for a while; what is written under one is there under the
// others, and nobody takes a device for dead.
func TestClocks(t *testing.T) {
	needs(t, "ip")
	s := newSite(t, buildWithClock(t))
	year := int64(365 * 24 * time.Hour / time.Second)
	s.Add("server-1", "server", clock(1000-time.Now().Unix())) // a quarter of an hour after the epoch
	s.Add("server-2", "server", clock(-10*year))
	s.Add("server-3", "server", clock(+10*year))
	s.Voters(3)
	var written []string
	for round := range 2 * len(s.Members) {
		leader := s.Leader()
		for _, at := range s.Members {
			name := fmt.Sprintf("round-%d-at-%s", round, at.Name)
			s.write(at, name)
			written = append(written, name)
		}
		leader.Kill()
		rest := s.others(leader)
		name := fmt.Sprintf("round-%d-without-%s", round, leader.Name)
		s.write(rest[round%len(rest)], name)
		written = append(written, name)
		s.Run(leader)
		s.Await(leader, "metrics", "\nshoal_raft_has_leader 1\n")
	}
	for _, at := range s.Members {
		out, err := s.kubectl(t.Context(), at, "get", "configmaps", "-o", "name")
		if err != nil {
			t.Fatalf("%s: %v: %s", at.Name, err, out)
		}
		for _, name := range written {
			if !strings.Contains(out, "configmap/"+name+"\n") {
				t.Errorf("%s does not have %s", at.Name, name)
			}
		}
	}
	out, err := s.kubectl(t.Context(), s.Members[0], "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
	if err != nil || strings.Contains(out, "Unknown") || strings.Count(out, " ") != 2 {
		t.Errorf("nodes are Ready=%q, %v: a clock made one look dead", out, err)
	}
	s.snapshotUnder()
}

// snapshotUnder saves the state of a server whose clock is wrong, and reads it where the clock is right.
func (s *ownSite) snapshotUnder() {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "state.snapshot")
	kubeconfig := s.Members[2].Kubeconfig()
	if out, err := exec.Command(s.Shoal, "snapshot", "save", file, "--kubeconfig", kubeconfig).CombinedOutput(); err != nil {
		s.t.Errorf("snapshot save: %v: %s", err, out)
		return
	}
	if out, err := exec.Command(s.Shoal, "snapshot", "inspect", file).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("configmaps")) {
		s.t.Errorf("snapshot inspect: %v: %s", err, out)
	}
}

// clock is the environment of a process whose clock differs by so many seconds.
func clock(seconds int64) string { return fmt.Sprintf("SHOAL_TEST_CLOCK_OFFSET=%d", seconds) }

// buildWithClock builds shoal with a standard library whose clock can be set, since nothing less changes what a whole process
// takes for the time. All packages are built anew for it, once; the build cache keeps them.
func buildWithClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(in, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const read = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(source, []byte(read)) != 1 {
		t.Fatal("time.Now of this Go is not as this test knows it")
	}
	dir := t.TempDir()
	files := map[string][]byte{
		"time.go": bytes.Replace(source, []byte(read), []byte(read+"\tsec += clockOffset\n"), 1),
		"zoffset.go": []byte(`package time

import "syscall"

var clockOffset = func() int64 {
	text, _ := syscall.Getenv("SHOAL_TEST_CLOCK_OFFSET")
	n, _ := atoi(text)
	return int64(n)
}()
`),
	}
	replace := map[string]string{}
	for name, content := range files {
		replace[filepath.Join(in, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	shoal := filepath.Join(dir, "shoal")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", shoal, "../../cmd/shoal")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return shoal
}
