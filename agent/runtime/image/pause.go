package image

import (
	"fmt"
	"os"
)

// PauseRef is the sandbox image that shoal's containerd configuration names.
const PauseRef = "shoal.dev/pause:1"

// Catatonit is where Debian's package puts the small init that serves as the pause process.
const Catatonit = "/usr/bin/catatonit"

// Pause is the sandbox image, made from Debian's catatonit: it waits for signals and reaps zombies.
func Pause(ref, binary string) (Image, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return Image{}, fmt.Errorf("the sandbox image %s is not on this device and is made from catatonit: install it (apt-get install catatonit): %w", ref, err)
	}
	return Build(Config{Ref: ref, Files: []File{{Path: "/catatonit", Content: content}}, Entrypoint: []string{"/catatonit", "-P"}})
}
