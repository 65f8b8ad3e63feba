package image

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	c := Config{
		Ref: "shoal.dev/x:2", Arch: "arm64", Entrypoint: []string{"/bin/x"},
		Files: []File{{Path: "/bin/x", Content: []byte("program")}, {Path: "/bin/y", Link: "/bin/x"}},
	}
	first, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(c)
	if err != nil || first.Manifest.Digest != again.Manifest.Digest {
		t.Errorf("the same files make another image: %s, %s, %v", first.Manifest.Digest, again.Manifest.Digest, err)
	}
	if !strings.HasPrefix(first.ID(), "sha256:") || first.Blobs[1].MediaType != TypeConfig {
		t.Errorf("id: %s", first.ID())
	}
	r := tar.NewReader(bytes.NewReader(first.Blobs[0].Data))
	var names []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name+h.Linkname)
	}
	if got := strings.Join(names, " "); got != "bin/ bin/x bin/y/bin/x" {
		t.Errorf("layer: %s", got)
	}
	var layout bytes.Buffer
	if _, err := first.WriteTo(&layout); err != nil || !strings.Contains(layout.String(), `"io.containerd.image.name":"shoal.dev/x:2"`) {
		t.Errorf("layout: %v", err)
	}
	if _, err := Build(Config{Files: []File{{Path: "bin/x"}}}); err == nil {
		t.Error("a relative path is no error")
	}
}

func TestPauseNamesThePackage(t *testing.T) {
	if _, err := Pause(PauseRef, "/nonexistent"); err == nil || !strings.Contains(err.Error(), "apt-get install catatonit") {
		t.Errorf("got %v", err)
	}
}

func TestFamiliar(t *testing.T) {
	for name, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:2": "docker.io/a/b:2", "localhost/x": "localhost/x:latest",
		"r.example:5000/x": "r.example:5000/x:latest", "x@sha256:1": "docker.io/library/x@sha256:1",
	} {
		if got := Familiar(name); got != want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
