package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/agent/runtime/containerdtest"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// TestImageCommands takes an image into a device, out of it, and into another card's folder, and finds out when it is damaged.
func TestImageCommands(t *testing.T) {
	daemon := containerdtest.Start(t)
	dir := t.TempDir()
	img, err := image.Build(image.Config{Ref: "factory.example/press:1", Files: []image.File{{Path: "/press", Content: bytes.Repeat([]byte("press "), 1<<20)}}})
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := img.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	file, copied := filepath.Join(dir, "press.tar"), filepath.Join(dir, "copy.tar")
	if err := os.WriteFile(file, data.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) (images []string) {
		t.Helper()
		code, stdout, stderr := shoal(t, append([]string{"image", "-o", "json", "--containerd", daemon.Socket}, args...)...)
		if code != 0 {
			t.Fatalf("shoal image %v: exit %d: %s", args, code, stderr)
		}
		var out struct {
			Images []struct{ Name, Digest string }
		}
		if err := json.Unmarshal([]byte(stdout), &out); err != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
		for _, i := range out.Images {
			if i.Digest == img.Manifest.Digest {
				images = append(images, i.Name)
			}
		}
		return images
	}
	wrong := func(want string, args ...string) {
		t.Helper()
		code, _, stderr := shoal(t, append([]string{"image", "--containerd", daemon.Socket}, args...)...)
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("shoal image %v: exit %d, says %s", args, code, stderr)
		}
	}
	is := func(got []string, want ...string) {
		t.Helper()
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	is(must("import", file), "factory.example/press:1")
	is(must("import", "--name", "other.example/press", file), "other.example/press:latest")
	if got, err := daemon.Runtime.Image(t.Context(), "factory.example/press:1"); err != nil || got.ID != img.ID() {
		t.Errorf("pods see %+v, %v", got, err)
	}
	is(must("export", copied, "factory.example/press:1"), "factory.example/press:1")
	is(must("verify"), "factory.example/press:1", "other.example/press:latest")

	// Another device gets the copy, on its card.
	card := filepath.Join(dir, "card")
	if code, stdout, stderr := shoal(t, "image", "seed", "--root", card, copied); code != 0 || !strings.Contains(stdout, "/var/lib/shoal/images/copy.tar") {
		t.Errorf("seed: exit %d, %s%s", code, stdout, stderr)
	}
	seed := filepath.Join(card, "var/lib/shoal/images/copy.tar")
	if a, _ := os.ReadFile(copied); len(a) == 0 {
		t.Error("nothing was exported")
	} else if b, err := os.ReadFile(seed); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the card has another archive: %v", err)
	}
	for _, name := range []string{"factory.example/press:1", "other.example/press:latest"} {
		remove(t, daemon, name)
	}
	is(must("list"))
	is(must("import", seed), "factory.example/press:1")

	if err := os.WriteFile(copied, data.Bytes()[:data.Len()/2], 0o644); err != nil {
		t.Fatal(err)
	}
	wrong("no whole tar", "seed", "--root", card, copied)
	if after, err := os.ReadFile(seed); err != nil || len(after) < data.Len()/2 {
		t.Errorf("half an archive took the place of a whole one: %v", err)
	}
	wrong("no whole tar", "import", copied)
	wrong("image docker.io/library/nothing:latest is not on this device", "export", copied, "nothing")
	blob := filepath.Join(daemon.Dir, "root/io.containerd.content.v1.content/blobs/sha256", img.Blobs[0].Digest[len("sha256:"):])
	if err := os.WriteFile(blob, bytes.Repeat([]byte("x"), int(img.Blobs[0].Size)), 0o644); err != nil {
		t.Fatal(err)
	}
	wrong("blob "+img.Blobs[0].Digest+" is damaged", "verify")
	wrong("this command runs on the device, as root", "list", "--containerd", filepath.Join(dir, "none.sock"))
}

func remove(t *testing.T, daemon *containerdtest.Daemon, name string) {
	t.Helper()
	if err := daemon.Runtime.RemoveImage(context.Background(), name); err != nil {
		t.Fatal(err)
	}
}
