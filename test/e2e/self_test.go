package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/test/site"
)

// watchdogTime is how long the manager hears nothing of a process before it ends it.
const watchdogTime = 8 * time.Second

// manager starts a member's launcher again whenever it ends, and ends it when it does not say that it is alive, as systemd does
// (sd_notify(3), WatchdogSec=).
func manager(t *testing.T, s *ownSite, m *site.Member, dir string) {
	t.Helper()
	config := filepath.Join(filepath.Dir(m.Data()), "config.yaml")
	log, err := os.OpenFile(filepath.Join(filepath.Dir(m.Data()), "log"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = log.Close() }()
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, s.Shoal, "launch", "--dir", dir, "server", "--config", config)
			cmd.Stdout, cmd.Stderr = log, log
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notes.LocalAddr().String(), fmt.Sprint("WATCHDOG_USEC=", watchdogTime.Microseconds()))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if cmd.Start() == nil {
				watch(notes, cmd)
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; _ = notes.Close() })
}

// watch returns when a process has ended: when it likes, or because it does not say that it is alive.
func watch(notes *net.UnixConn, cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it ends how it likes
		close(ended)
		_ = notes.SetReadDeadline(time.Now())
	}()
	note := make([]byte, 1<<10)
	for heard := time.Now(); ; {
		_ = notes.SetReadDeadline(time.Now().Add(watchdogTime / 4))
		n, err := notes.Read(note)
		if err == nil && strings.Contains(string(note[:n]), "WATCHDOG=1") {
			heard = time.Now()
		}
		select {
		case <-ended:
			return
		default:
		}
		if time.Since(heard) > watchdogTime {
			_ = cmd.Process.Kill()
			<-ended
			return
		}
	}
}

// TestSelfUpdate has a real server update its own binary by a rollout: to a good one, which stays; to one that is no program, to one that ends
// at once and to one that hangs, from which it falls back.
func TestSelfUpdate(t *testing.T) {
	shoal, err := filepath.Abs(need.Built(t, "../..", "shoal"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, shoal)
	m := s.Add("one", "server")
	s.Leader()
	m.Kill()
	dir := filepath.Join(filepath.Dir(m.Data()), "self")
	config := filepath.Join(filepath.Dir(m.Data()), "config.yaml")
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	firmware := fmt.Sprintf("agent: {firmware: {backend: self, hardwareID: shoal, version: '1', tries: 2, self: {dir: %s}}, ", dir)
	if err := os.WriteFile(config, bytes.Replace(data, []byte("agent: {"), []byte(firmware), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	manager(t, s, m, dir)
	s.Leader()

	own, err := os.ReadFile(shoal)
	if err != nil {
		t.Fatal(err)
	}
	images := map[string][]byte{
		"2": append(bytes.Clone(own), "two"...), "3": []byte("no program"), "4": []byte("#!/bin/sh\nexit 1\n"), "5": append(bytes.Clone(own), "five"...),
		"6": []byte("#!/bin/sh\nexec sleep 1000\n"),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(images[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	defer server.Close()
	for _, c := range []struct{ version, phase, device string }{
		{"2", "Completed", "2 b Confirmed"},
		{"3", "Halted", "2 b RolledBack"},
		{"4", "Halted", "2 b RolledBack"},
		{"5", "Completed", "5 a Confirmed"},
		{"6", "Halted", "5 a RolledBack"},
	} {
		s.rollout(m, c.version, server.URL, images[c.version])
		site.Eventually(t, func() error {
			out, err := s.kubectl(t.Context(), m, "get", "rollout", "to-"+c.version, "-o", "jsonpath={.status.phase} {.status.why}")
			if err == nil && !strings.HasPrefix(out, c.phase) {
				err = fmt.Errorf("%s: %s", c.version, out)
			}
			return err
		})
		site.Eventually(t, func() error {
			out, err := s.kubectl(t.Context(), m, "get", "devicefirmware", "one", "-o", "jsonpath={.status.version} {.status.slot} {.status.state}")
			if err == nil && out != c.device {
				err = fmt.Errorf("the device says %s, want %s", out, c.device)
			}
			return err
		})
		if out, err := s.kubectl(t.Context(), m, "patch", "rollout", "to-"+c.version, "--type=merge", `-p={"spec":{"aborted":true}}`); err != nil {
			t.Fatal(out)
		}
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pidOf(t, dir)))
	if err != nil || exe != filepath.Join(dir, "shoal-a") {
		t.Errorf("%s runs: %v", exe, err)
	}
}

// pidOf is the process of a copy in the folder.
func pidOf(t *testing.T, dir string) (pid int) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range found {
		if exe, err := os.Readlink(link); err == nil && filepath.Dir(exe) == dir {
			_, _ = fmt.Sscanf(link, "/proc/%d/exe", &pid)
		}
	}
	return pid
}

// rollout has every device have a release, as soon as that is allowed.
func (s *ownSite) rollout(m *site.Member, version, url string, content []byte) {
	s.t.Helper()
	manifest := fmt.Sprintf(`
apiVersion: firmware.shoal.dev/v1
kind: Release
metadata: {name: shoal-%[1]s}
spec:
  version: "%[1]s"
  counter: %[1]s
  hardwareIDs: [shoal]
  artifacts: [{name: binary, url: "%[2]s/%[1]s", size: %[3]d, sha256: %[4]x}]
---
apiVersion: fleet.shoal.dev/v1
kind: Rollout
metadata: {name: to-%[1]s}
spec:
  release: shoal-%[1]s
  allowQuorumLoss: true
  waves: [{name: all, percent: 100, soak: 100ms, haltFailed: 1}]
  health: {pods: false, probation: 500ms, deadline: 1m}
`, version, url, len(content), sha256.Sum256(content))
	file := filepath.Join(s.t.TempDir(), "rollout.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		s.t.Fatal(err)
	}
	site.Eventually(s.t, func() error {
		out, err := s.kubectl(s.t.Context(), m, "apply", "-f", file)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}
