package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
)

// TestRolloutCommands plans, follows and steers a rollout whose artifact never comes.
func TestRolloutCommands(t *testing.T) {
	f, err := fleet.New(fleet.Config{
		Dir: t.TempDir(), Servers: 1, Agents: 1, Version: "test", Logger: slog.New(slog.DiscardHandler),
		Firmware: &fleet.FirmwareConfig{HardwareID: "board", SlotSize: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForLeader(t, f)
	client, err := kube.Load(f.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	release := &firmwarev1.Release{
		TypeMeta: metav1.TypeMeta{APIVersion: "firmware.shoal.dev/v1", Kind: "Release"}, ObjectMeta: metav1.ObjectMeta{Name: "r2"},
		Spec: firmwarev1.ReleaseSpec{
			Version: "2", Counter: 2, HardwareIDs: []string{"board"},
			Artifacts: []firmwarev1.Artifact{{Name: "image", URL: empty.URL, Size: 2e6, SHA256: strings.Repeat("a", 64)}},
		},
	}
	rollout := &fleetv1.Rollout{
		TypeMeta: metav1.TypeMeta{APIVersion: "fleet.shoal.dev/v1", Kind: "Rollout"}, ObjectMeta: metav1.ObjectMeta{Name: "up"},
		Spec: fleetv1.RolloutSpec{Release: "r2"},
	}
	if err := client.Do(t.Context(), http.MethodPost, releasesPath, release, nil); err != nil {
		t.Fatal(err)
	}
	kubeconfig := "--kubeconfig=" + f.Kubeconfig()
	until := func(what string, args ...string) (stdout string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			code, stdout, stderr := shoal(t, append(args, kubeconfig)...)
			if code == 0 && strings.Contains(stdout, what) {
				return stdout
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: exit %d, %s%s", args, code, stdout, stderr)
			}
		}
	}
	out := until(`"":4000000`, "rollout", "plan", "r2", "-o", "json")
	var p plan
	if err := json.Unmarshal([]byte(out), &p); err != nil || len(p.Waves) != 4 || len(p.Waves[0].Devices) != 1 || p.Waves[0].Devices[0] != "agent-1" {
		t.Errorf("%v: %s", err, out)
	}
	if err := client.Do(t.Context(), http.MethodPost, rolloutsPath, rollout, nil); err != nil {
		t.Fatal(err)
	}
	out = until("0/1 updated, 1 on their way", "rollout", "status", "up")
	if !strings.Contains(out, "canary       [>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>] 0/1 updated") {
		t.Errorf("no bar:\n%s", out)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"pause", "up"}, 0, "rollout up edited"},
		{[]string{"resume", "up"}, 0, "rollout up edited"},
		{[]string{"retry", "up"}, 0, "rollout up edited"},
		{[]string{"skip", "up", "server-1"}, 0, "rollout up edited"},
		{[]string{"skip", "up"}, 2, "use: shoal rollout skip"},
		{[]string{"approve", "up", "nowhere"}, 1, `there is no wave "nowhere"`},
		{[]string{"approve", "up", "all"}, 0, "rollout up edited"},
		{[]string{"abort", "up"}, 0, "rollout up edited"},
		{[]string{"abort", "down"}, 1, `"down" not found`},
	} {
		code, stdout, stderr := shoal(t, append(append([]string{"rollout"}, c.args...), kubeconfig)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%v: exit %d, %s%s", c.args, code, stdout, stderr)
		}
	}
	var edited fleetv1.Rollout
	if err := client.Do(t.Context(), http.MethodGet, rolloutsPath+"/up", nil, &edited); err != nil {
		t.Fatal(err)
	}
	if s := edited.Spec; s.Paused || !s.Aborted || s.Retries != 1 || len(s.Skip) != 1 || len(s.Approved) != 1 {
		t.Errorf("%+v", s)
	}
	until("Aborted", "rollout", "status", "up")
	if code, _, stderr := shoal(t, "rollout", "watch", "up", kubeconfig); code != 1 || !strings.Contains(stderr, "Aborted: a person aborted it") {
		t.Errorf("watch: exit %d, %s", code, stderr)
	}
}
