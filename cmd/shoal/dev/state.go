package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// state is what the next lab of the same name must know to clean up after a SIGKILL of this one. The inits end with their lab,
// so this is the second line of defence: it names them, each with its start time, because pids are used again.
type state struct {
	mu    sync.Mutex
	file  string
	Boot  string   `json:"boot"`
	Dir   string   `json:"dir"`
	Inits []holder `json:"inits"`
}

type holder struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

func stateFile(name string) string { return filepath.Join(runRoot, name+".json") }

func newState(name, dir string) *state {
	return &state{file: stateFile(name), Boot: bootID(), Dir: dir}
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// add records one more init.
func (s *state) add(name string, pid int) error {
	start, err := startOf(pid)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Inits = append(s.Inits, holder{Name: name, PID: pid, Start: start})
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(s.file+".new", s.file)
}

// labLock is a lock file, which is removed with the lock.
type labLock struct{ f *os.File }

func (l labLock) Close() error { return errors.Join(os.Remove(l.f.Name()), l.f.Close()) }

// lockLab makes this process the only owner of the name.
func lockLab(name string) (io.Closer, error) {
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	path := filepath.Join(runRoot, name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("lab: a lab named %q runs already on this machine: end it first", name), f.Close())
		}
		// The last owner may have removed the file between its opening and its locking here.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(mine, now) {
			return labLock{f}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// sweep removes all that a lab of this name made, from its state file and from what is there. The caller holds the lock.
func sweep(name string, log *slog.Logger) error {
	var old state
	data, err := os.ReadFile(stateFile(name))
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &old); err != nil {
			log.Warn("The state file of the last lab cannot be read", "error", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var errs []error
	if old.Boot == bootID() {
		for _, h := range old.Inits {
			errs = append(errs, h.end())
		}
	}
	dir := filepath.Join(dataRoot, name)
	errs = append(errs, removeLink(linkOf(name)), removeCgroups(cgroupOf(name)), unmountBelow(dir), removeFolder(dir))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(stateFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The parent goes too when this was the last lab; it stays when it holds another.
	_ = os.Remove(dataRoot)
	return nil
}

// end kills a recorded init if it is still that process, and waits for it to go.
func (h holder) end() error {
	deadline := time.Now().Add(startLimit)
	for killed := false; ; {
		start, err := startOf(h.PID)
		if err != nil || start != h.Start {
			return nil
		}
		if !killed {
			if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %s (process %d): %w", h.Name, h.PID, err)
			}
			killed = true
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s (process %d) is still there %s after its kill", h.Name, h.PID, startLimit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unmountBelow detaches mounts of this namespace under a folder. The lab makes none, but a person may have.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			errs = append(errs, syscall.Unmount(fields[1], syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// removeFolder is RemoveAll with patience: the last mounts of a killed device go a moment after its processes.
func removeFolder(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := os.RemoveAll(dir)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
