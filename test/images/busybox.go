package images

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Busybox is Debian's static busybox with a link for each of its commands, and the files that a system has.
func Busybox(ctx context.Context) (*Layer, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("images: %w: install busybox-static", err)
	}
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("images: busybox --list: %w", err)
	}
	files := []File{
		{Path: "bin", Dir: true},
		{Path: "etc", Dir: true},
		{Path: "root", Dir: true, Mode: 0o700},
		{Path: "tmp", Dir: true, Mode: 0o1777},
		{Path: "var/run", Dir: true},
		{Path: "usr/bin", Dir: true},
		{Path: "usr/bin/env", Link: "/bin/busybox"},
		{Path: "bin/busybox", Source: busybox},
		{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" +
			"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"},
		{Path: "etc/group", Mode: 0o644, Content: "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n" +
			"group-defined-in-image:x:50000:user-defined-in-image\n"},
	}
	for _, name := range strings.Fields(string(out)) {
		if name != "busybox" {
			files = append(files, File{Path: "bin/" + name, Link: "busybox"})
		}
	}
	return &Layer{Files: files}, nil
}
