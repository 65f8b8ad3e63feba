// Package need says what a test needs of the machine. Where that is missing a test is skipped; in CI, which sets SHOAL_E2E, it fails:
// a test that nobody runs proves nothing.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Missing ends a test that cannot run here.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("SHOAL_E2E") != "" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// Root is for tests that make namespaces, mounts, devices or other people's files.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "needs root")
	}
}

// Command finds a program, also among the administrator's, and returns its path.
func Command(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	Missing(tb, "%v; run make deps", err)
	return ""
}

// Built is a program that make builds into bin/; root is the way from the test's folder to the top one.
func Built(tb testing.TB, root, name string) string {
	tb.Helper()
	path, err := filepath.Abs(filepath.Join(root, "bin", name))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		Missing(tb, "%v; run make %s", err, name)
	}
	return path
}
