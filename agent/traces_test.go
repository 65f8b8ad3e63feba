package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

// A crash between the end of a pod's containers and that of its files leaves files, which nobody else would remove.
func TestFilesOfLostPodsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		lost := []string{
			filepath.Join(d.dir, "pods", "lost-1", "volumes", "data"), filepath.Join(d.dir, "logs", "default_web_lost-1", "main"),
			filepath.Join(d.dir, "logs", "default_web_lost-2", "main"), filepath.Join(d.dir, "pods", "lost-3"),
		}
		for _, dir := range lost {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		d.start()
		defer d.end()
		if left := append(entries(d.a.volumes.Root), entries(d.a.logDir)...); len(left) != 4 {
			t.Fatalf("before anything is known of what should run, files were removed: only %v are left", left)
		}
		p := newPod("web")
		d.apply(set(t, p))
		time.Sleep(time.Second)
		synctest.Wait()
		if left := entries(d.a.volumes.Root); len(left) != 1 || left[0] != string(p.UID) {
			t.Errorf("folders of pods: %v", left)
		}
		if left := entries(d.a.logDir); len(left) != 1 || left[0] != "default_web_"+string(p.UID) {
			t.Errorf("folders of logs: %v", left)
		}
		if len(d.deleted) != 2 { // of those whose names are known; the control plane has forgotten them
			t.Errorf("reported as gone: %v", d.deleted)
		}
	})
}
