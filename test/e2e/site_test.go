package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/test/site"
)

// ownSite is a control plane of real processes that a test drives with kubectl.
type ownSite struct {
	*site.Site
	t *testing.T
}

func newSite(t *testing.T, shoal string) *ownSite { return &ownSite{site.New(t, shoal), t} }

func (s *ownSite) others(than *site.Member) []*site.Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m *site.Member) bool { return m == than })
}

// write creates a ConfigMap at a server, as soon as there is a leader.
func (s *ownSite) write(at *site.Member, name string) {
	s.t.Helper()
	if err := s.tryWrite(at, name, site.Patience); err != nil {
		s.t.Fatal(err)
	}
}

func (s *ownSite) tryWrite(at *site.Member, name string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		out, err := s.kubectl(ctx, at, "create", "configmap", name)
		if err == nil || strings.Contains(out, "AlreadyExists") {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("create %s at %s: %w: %s", name, at.Name, err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *ownSite) kubectl(ctx context.Context, at *site.Member, args ...string) (string, error) {
	kubectl := need.Built(s.t, "../..", "kubectl")
	args = append([]string{"--kubeconfig", at.Kubeconfig(), "--request-timeout=5s"}, args...)
	out, err := exec.CommandContext(ctx, kubectl, args...).CombinedOutput()
	return string(out), err
}

// holds reports whether a member's data folder has some text in it.
func (s *ownSite) holds(m *site.Member, text string) (found bool) {
	err := filepath.WalkDir(m.Data(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return found
}
