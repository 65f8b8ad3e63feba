package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
)

// TestSnapshotCommands saves a cluster, restores it while it runs, restores it into a new data folder, and recovers that one.
func TestSnapshotCommands(t *testing.T) {
	f, err := fleet.New(fleet.Config{Dir: t.TempDir(), Servers: 1, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cluster.snapshot")
	kubeconfig := "--kubeconfig=" + f.Kubeconfig()
	must := func(into any, args ...string) {
		t.Helper()
		code, stdout, stderr := shoal(t, append(args, "-o", "json")...)
		if code != 0 {
			t.Fatalf("shoal %v: exit %d: %s", args, code, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), into); err != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
	}
	var saved, inspected struct {
		Cluster           string
		Revision, Objects int
		Resources         []struct{ Resource string }
	}
	waitForLeader(t, f)
	must(&saved, "snapshot", "save", file, kubeconfig)
	must(&inspected, "snapshot", "inspect", file)
	if saved.Cluster == "" || saved.Revision == 0 || saved.Cluster != inspected.Cluster || saved.Revision != inspected.Revision {
		t.Errorf("saved %+v, inspected %+v", saved, inspected)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
	_, stdout, _ := shoal(t, "snapshot", "inspect", file)
	if !strings.Contains(stdout, "namespaces") || !strings.Contains(stdout, saved.Cluster) {
		t.Errorf("inspect says %s", stdout)
	}
	var restored struct {
		Cluster, Before string
		Revision        int
	}
	must(&restored, "snapshot", "restore", file, kubeconfig, "--force")
	if restored.Revision <= saved.Revision {
		t.Errorf("restored at %d, saved at %d", restored.Revision, saved.Revision)
	}

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, data[:len(data)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	server := f.Members()[0]
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"snapshot", "inspect", cut}, 1, "cut off"},
		{[]string{"snapshot", "restore", cut, kubeconfig, "--force"}, 1, "cut off"},
		{[]string{"snapshot", "restore", file, kubeconfig}, 2, "say --force"},
		{[]string{"snapshot", "inspect", os.Args[0]}, 1, "not a snapshot of shoal"},
		{[]string{"snapshot", "restore", file, "--data-dir", server.Config.DataDir}, 1, "in use"},
		{[]string{"snapshot", "restore", file, "--data-dir", t.TempDir()}, 1, "not the data folder of a server"},
	} {
		if code, _, stderr := shoal(t, tc.args...); code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("shoal %v: exit %d, %q; want %d and %q", tc.args, code, stderr, tc.code, tc.want)
		}
	}

	if err := f.StopMember(server.Name); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := shoal(t, "snapshot", "restore", file, "--data-dir", server.Config.DataDir); code != 1 || !strings.Contains(stderr, "already") {
		t.Errorf("a folder with a state: exit %d, %s", code, stderr)
	}
	if err := os.RemoveAll(filepath.Join(server.Config.DataDir, "raft")); err != nil {
		t.Fatal(err)
	}
	first := restored.Cluster
	must(&restored, "snapshot", "restore", file, "--data-dir", server.Config.DataDir)
	if restored.Cluster == first {
		t.Error("a restore from nothing is no new cluster")
	}
	second := restored.Cluster
	config := writeConfig(t, server.Config)
	if code, _, stderr := shoal(t, "recover", "--config", config); code != 2 || !strings.Contains(stderr, "say --yes") {
		t.Errorf("recover without a terminal: exit %d, %s", code, stderr)
	}
	must(&restored, "recover", "--config", config, "--yes")
	if restored.Cluster == second || restored.Before == "" {
		t.Errorf("recovered: %+v", restored)
	}
	if err := f.StartMember(t.Context(), server.Name); err != nil {
		t.Fatal(err)
	}
	waitForLeader(t, f)
	must(&saved, "snapshot", "save", file, kubeconfig)
	if saved.Cluster != restored.Cluster || saved.Revision < restored.Revision {
		t.Errorf("saved %+v after the recovery as %+v", saved, restored)
	}
}

// waitForLeader waits until the cluster takes writes in its first namespaces.
func waitForLeader(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	for {
		client, err := kube.Load(f.Kubeconfig())
		if err == nil && client.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/kube-system", nil, nil) == nil {
			return // it leads, and its controllers have begun
		}
		if t.Context().Err() != nil {
			t.Fatal("no leader")
		}
	}
}

func writeConfig(t *testing.T, c configs.Config) string {
	t.Helper()
	text := "nodeName: " + c.NodeName + "\ndataDir: " + c.DataDir + "\nadvertiseAddress: " + c.AdvertiseAddress +
		"\nserver: {listen: '" + c.Server.Listen + "'}\n"
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
