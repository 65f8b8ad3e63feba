package dev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolPath is where the system's tools are; a root shell made with su may lack the sbin folders in its own.
const toolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what processes of the lab see: nothing of the caller's.
func environment() []string {
	return []string{"PATH=" + toolPath, "HOME=/root", "LANG=C.UTF-8"}
}

// tool finds a program on toolPath, or returns its bare name.
func tool(name string) string {
	for _, dir := range filepath.SplitList(toolPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return name
}

// needTools names the Debian packages that are missing on this machine.
func needTools(withoutContainerd bool) error {
	type program struct{ name, debian string }
	programs := []program{{"ip", "iproute2"}, {"catatonit", "catatonit"}, {"nsenter", "util-linux"}}
	if !withoutContainerd {
		programs = append(programs, program{"containerd", "containerd"}, program{"runc", "runc"})
	}
	var missing []string
	for _, p := range programs {
		if !filepath.IsAbs(tool(p.name)) {
			missing = append(missing, p.debian)
		}
	}
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil && !withoutContainerd {
		missing = append(missing, "containernetworking-plugins")
	}
	if len(missing) > 0 {
		return fmt.Errorf("lab: missing on this machine: apt-get install %s (or: shoal dev --fake-runtime)", strings.Join(missing, " "))
	}
	return nil
}

// run runs a program of this machine, with its complaint in the error.
func run(ctx context.Context, name string, args ...string) error {
	return runCommand(exec.CommandContext(ctx, tool(name), args...))
}

func runCommand(cmd *exec.Cmd) error {
	var stderr complaint
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// complaint keeps the first bytes of a small process's complaints.
type complaint struct{ b []byte }

func (t *complaint) Write(p []byte) (int, error) {
	if room := 4096 - len(t.b); room > 0 {
		t.b = append(t.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *complaint) String() string { return string(t.b) }
