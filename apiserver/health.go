package apiserver

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// Kubernetes is the version of the API that is served.
const (
	kubernetesMajor = "1"
	kubernetesMinor = "37"
	kubernetesPatch = "2"
)

func (s *Server) serveVersion(w http.ResponseWriter, req *request) error {
	own := s.cfg.Version
	if own == "" {
		own = "devel"
	}
	build := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, own)
	return s.writePlain(w, req, version.Info{
		Major: kubernetesMajor, Minor: kubernetesMinor,
		GitVersion:   fmt.Sprintf("v%s.%s.%s+shoal-%s", kubernetesMajor, kubernetesMinor, kubernetesPatch, build),
		GitTreeState: "clean", GoVersion: runtime.Version(), Compiler: runtime.Compiler,
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
}

// checks are what a health path looks at: a live server answers, a ready one can also serve reads and writes.
func (s *Server) checks(path string) map[string]func() error {
	checks := map[string]func() error{"ping": func() error { return nil }}
	if path != "/readyz" {
		return checks
	}
	maps.Copy(checks, s.cfg.Ready)
	checks["leader"] = func() error {
		if _, _, ok := s.cfg.Consensus.Leader(); !ok && !s.cfg.Consensus.IsLeader() {
			return errors.New("no leader is known")
		}
		return nil
	}
	return checks
}

func (s *Server) serveHealth(w http.ResponseWriter, req *request) error {
	path := req.URL.Path
	checks := s.checks(path)
	var told strings.Builder
	failed := false
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if err := checks[name](); err != nil {
			failed = true
			fmt.Fprintf(&told, "[-]%s failed: %v\n", name, err)
			continue
		}
		fmt.Fprintf(&told, "[+]%s ok\n", name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	name := strings.Trim(path, "/")
	switch _, verbose := req.query["verbose"]; {
	case failed:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(&told, "%s check failed\n", name)
	case verbose:
		fmt.Fprintf(&told, "%s check passed\n", name)
	default:
		told.Reset()
		told.WriteString("ok")
	}
	_, _ = io.WriteString(w, told.String()) // the client has gone: there is nobody to tell
	return nil
}
