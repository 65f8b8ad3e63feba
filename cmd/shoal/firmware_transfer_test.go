package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFirmwareTransfer packs a release, and carries it on a stick to a device that has no network.
func TestFirmwareTransfer(t *testing.T) {
	t.Chdir(t.TempDir())
	image := bytes.Repeat([]byte("the whole system, "), 40_000)
	if err := os.WriteFile("os.img", image, 0o644); err != nil {
		t.Fatal(err)
	}
	makers := httptest.NewServer(http.FileServer(http.Dir(".")))
	defer makers.Close()
	release := strings.Replace(releaseFile, "https://releases.example/os-2.4.1.img", makers.URL+"/os.img", 1)
	if err := os.WriteFile("release.yaml", []byte(release), 0o644); err != nil {
		t.Fatal(err)
	}
	must, wrong := firmwareCLI(t)
	wrong("--artifact NAME=FILE", "pack", "release.yaml")
	wrong("no artifact of that name", "pack", "release.yaml", "--artifact", "x=os.img")
	must("", "pack", "release.yaml", "--artifact", "image=os.img", "--to", "packed.yaml")
	packed, err := readRelease("packed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := packed.Spec.Artifacts[0]
	stat, err := os.Stat("image.pack")
	if err != nil || a.Chunks == nil || a.Chunks.Size != stat.Size() || a.Chunks.URL != makers.URL+"/os.img.pack" || a.Chunks.Size > a.Size/10 {
		t.Fatalf("%v: %+v", err, a.Chunks)
	}

	must("builder", "key", "builder")
	must("root 1 is in force", "init", "repo", "--root-key", "builder", "--release-key", "builder")
	must("", "sign", "repo", "packed.yaml", "--key", "builder", "--to", "signed.yaml")
	must("in chunks", "inspect", "signed.yaml", "--root", "repo/root.json")
	wrong("signed already", "pack", "signed.yaml", "--artifact", "image=os.img")
	signed, err := os.ReadFile("signed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(signed), a.Chunks.IndexSHA256, strings.Repeat("0", 64), 1)
	if err := os.WriteFile("other.yaml", []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	wrong("index of chunks", "inspect", "other.yaml", "--root", "repo/root.json")

	must(a.SHA256, "export", "signed.yaml", "stick", "--artifact", "image=os.img")
	must(a.SHA256, "export", "signed.yaml", "stick2") // from where the makers have it
	must("there already", "export", "signed.yaml", "stick2")
	wrong("nothing for hardware", "import", "stick", "--root", "device", "--hardware", "pi5")
	out := must(a.SHA256, "import", "stick", "--root", "device", "--hardware", "cm4-gw", "-o", "json")
	var result struct {
		Artifacts []struct{ File string }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Artifacts) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	if want := filepath.Join("device", "var/lib/shoal/artifacts", a.SHA256); result.Artifacts[0].File != want {
		t.Errorf("imported as %s, want %s", result.Artifacts[0].File, want)
	}
	if got, err := os.ReadFile(result.Artifacts[0].File); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%v: other content was imported", err)
	}
	if err := os.WriteFile(filepath.Join("stick", a.SHA256), append(image[:len(image)-1], 'x'), 0o644); err != nil {
		t.Fatal(err)
	}
	wrong("other content", "import", "stick", "--root", "device2")
	wrong("no such file", "import", "nowhere")
}
