package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const releaseFile = `apiVersion: firmware.shoal.dev/v1
kind: Release
metadata: {name: os-2.4.1}
spec:
  version: 2.4.1
  counter: 17
  hardwareIDs: [cm4-gw]
  artifacts:
  - {name: image, url: "https://releases.example/os-2.4.1.img"}
`

// firmwareCLI runs commands below 'shoal firmware': ones that have to succeed and print something, and ones that have to be refused.
func firmwareCLI(t *testing.T) (must func(want string, args ...string) string, wrong func(want string, args ...string)) {
	must = func(want string, args ...string) string {
		t.Helper()
		code, stdout, stderr := shoal(t, append([]string{"firmware"}, args...)...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("shoal firmware %v: exit %d: %s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	wrong = func(want string, args ...string) {
		t.Helper()
		if code, stdout, stderr := shoal(t, append([]string{"firmware"}, args...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("shoal firmware %v: exit %d: %s%s", args, code, stdout, stderr)
		}
	}
	return must, wrong
}

// TestFirmwareCommands makes keys, a root that two people sign, a release, and a change of keys.
func TestFirmwareCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	must, wrong := firmwareCLI(t)
	put := func(name, data string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ann", "bob", "builder", "builder2"} {
		must(name+".pub, key ", "key", name)
	}
	wrong("is there already", "key", "ann")
	roots := []string{"--root-key", "ann", "--root-key", "bob.pub", "--threshold", "2"}
	must("root 1 lacks 1 more signature", append([]string{"init", "repo", "--release-key", "builder.pub"}, roots...)...)
	put("release.yaml", releaseFile)
	put("os.img", "the whole system")
	sign := []string{"sign", "repo", "release.yaml", "--key", "builder", "--artifact", "image=os.img"}
	wrong("still lacks signatures", sign...)
	must("root 1 is in force", "sign-root", "repo", "--key", "bob")
	wrong("lacks its size or sha256", "sign", "repo", "release.yaml", "--key", "builder")
	wrong("may sign", "sign", "repo", "release.yaml", "--key", "builder.pub", "--artifact", "image=os.img")
	wrong("no artifact of that name", "sign", "repo", "release.yaml", "--key", "builder", "--artifact", "other=os.img")
	must("metadata:", sign...)
	must("", append(sign, "--to", "signed.yaml")...)
	must("Believed:  yes", "inspect", "signed.yaml", "--root", "repo/root.json")
	first := filepath.Join("repo", "1.root.json")

	must("root 2 lacks", append([]string{"rotate", "repo", "--release-key", "builder2.pub"}, roots...)...)
	must("root 2 is in force", "sign-root", "repo", "--key", "bob")
	put("next.yaml", strings.NewReplacer("2.4.1", "2.4.2", "17", "18").Replace(releaseFile))
	out := must("", "sign", "repo", "next.yaml", "--key", "builder2", "--artifact", "image=os.img", "-o", "json")
	var release struct {
		Spec struct{ Metadata struct{ Roots []string } }
	}
	if err := json.Unmarshal([]byte(out), &release); err != nil || len(release.Spec.Metadata.Roots) != 1 {
		t.Errorf("the release carries %d roots: %v", len(release.Spec.Metadata.Roots), err)
	}
	put("next.json", out)
	must(`"believed":true`, "inspect", "next.json", "--root", first, "-o", "json")
	put("tampered.json", strings.Replace(out, `"counter":18`, `"counter":19`, 1))
	wrong("a device of kind cm4-gw refuses it", "inspect", "tampered.json", "--root", first)
	put("typo.yaml", strings.Replace(releaseFile, "counter", "conter", 1))
	wrong(`unknown field "conter"`, "inspect", "typo.yaml")
}
