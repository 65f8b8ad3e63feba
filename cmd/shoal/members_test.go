package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

func TestMembersCommands(t *testing.T) {
	f, err := fleet.New(fleet.Config{Dir: t.TempDir(), Servers: 1, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForLeader(t, f)
	kubeconfig := "--kubeconfig=" + f.Kubeconfig()
	address := f.Members()[0].Config.Server.Listen
	code, stdout, stderr := shoal(t, "members", kubeconfig)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 2 || strings.Join(strings.Fields(lines[1]), " ") != "server-1 "+address+" server leader ok" {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	var members []wire.Member
	code, stdout, _ = shoal(t, "members", kubeconfig, "-o", "json")
	want := wire.Member{Name: "server-1", Address: address, Kind: "server", Role: "leader", Healthy: true}
	if err := json.Unmarshal([]byte(stdout), &members); err != nil || code != 0 || len(members) != 1 || members[0] != want {
		t.Errorf("exit %d, %s: %v", code, stdout, err)
	}
	if code, _, stderr = shoal(t, "members", "remove", "server-1", kubeconfig); code != 1 || !strings.Contains(stderr, "it is alive: stop shoal there first") {
		t.Errorf("the leader was taken out: exit %d, %s", code, stderr)
	}
	if code, _, stderr = shoal(t, "members", "remove", "server-9", kubeconfig); code != 1 || !strings.Contains(stderr, `"server-9" not found`) {
		t.Errorf("nobody was taken out: exit %d, %s", code, stderr)
	}
}
