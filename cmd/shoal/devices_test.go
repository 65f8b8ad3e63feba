package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/agent/hardware/hardwaretest"
	"github.com/shoal-edge/shoal/configs"
)

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := "nodeName: pi\nadvertiseAddress: 192.0.2.1\nagent: {discover: {classes: [none]}, devices: [{resource: shoal.dev/null, path: /dev/null}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"devices", "-c", file, "-o", "json"}, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	var found []hardware.Device
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	offered := slices.DeleteFunc(found, func(d hardware.Device) bool { return !d.Offered() })
	if len(offered) != 1 || offered[0].Resource != "shoal.dev/null" || offered[0].Nodes[0] != "/dev/null" {
		t.Errorf("%+v", offered)
	}
	if code := run(context.Background(), []string{"devices", "-o", "yaml"}, &out, &errs); code != 2 {
		t.Errorf("exit status %d", code)
	}
}

func TestDevicesTable(t *testing.T) {
	found, err := hardware.Scan(hardwaretest.Pi4(t).Config)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printDevices(&out, found, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shoal.dev/serial", "usb-serial=A50285BI", "it is the kernel's console", "agent.discover.classes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// The configuration checks the classes by a list of its own, since it imports nothing of the agent's.
func TestClassesOfTheConfiguration(t *testing.T) {
	known := []string{"all", "none"}
	for _, class := range hardware.Classes() {
		known = append(known, class.Name)
	}
	slices.Sort(known)
	if !slices.Equal(known, configs.Classes()) {
		t.Errorf("%v, %v", known, configs.Classes())
	}
}
