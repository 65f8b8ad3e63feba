// Package gates tests rules about the daemon as a whole that no package can test of itself: what may be linked into it.
package gates

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const daemon = "github.com/shoal-edge/shoal/cmd/shoal"

// TestImports keeps what breaks the memory and size promises out of the daemon.
func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", daemon).Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		n++
		// Validation reads feature gates from k8s.io/apiserver/pkg/features and client-go/features; nothing else of the two. go-tuf's
		// signatures bring the names of images along, and nothing else of go-containerregistry.
		for _, forbidden := range []string{
			"k8s.io/client-go/kubernetes", "k8s.io/client-go/rest", "k8s.io/client-go/tools", "k8s.io/apiserver/pkg/server",
			"k8s.io/apiserver/pkg/endpoints", "k8s.io/kubectl", "github.com/google/go-containerregistry/pkg/v1",
			"github.com/google/cel-go", "github.com/containerd/containerd/v2/pkg/oci", "github.com/hanwen/go-fuse",
		} {
			if pkg := strings.TrimSpace(line); pkg == forbidden || strings.HasPrefix(pkg, forbidden+"/") {
				t.Errorf("the daemon imports %s", pkg)
			}
		}
	}
	if n < 100 {
		t.Errorf("the daemon has %d packages only: is this its list?", n)
	}
}

// TestNoTemplates reads what the linker kept: a reachable text/template makes it keep every method of every type, 13 MB.
func TestNoTemplates(t *testing.T) {
	if testing.Short() {
		t.Skip("links the daemon")
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", "/dev/null", "-ldflags=-dumpdep", daemon)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	edges := 0
	var found string
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		edges++
		if found == "" && strings.Contains(lines.Text(), "-> text/template.(*Template).Execute") {
			found = lines.Text()
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if edges < 10000 {
		t.Fatalf("the linker told of %d edges only", edges)
	}
	if found != "" {
		t.Errorf("text/template is reachable: %s", found)
	}
}
