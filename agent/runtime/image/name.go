package image

import (
	"path"
	"strings"
)

// Hub is the registry of names that have none.
const Hub = "docker.io"

// Split parts an image's name into the registry's host and the rest, with its tag or digest: docker.io and library/busybox for busybox.
func Split(name string) (host, rest string) {
	host, rest, found := strings.Cut(name, "/")
	switch {
	case !found:
		return Hub, "library/" + name
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return Hub, name
	}
	return host, rest
}

// Familiar is the full form of a name, as containerd keeps it: docker.io/library/busybox:latest for busybox.
func Familiar(name string) string {
	host, rest := Split(name)
	if !strings.Contains(rest, "@") && !strings.Contains(path.Base(rest), ":") {
		rest += ":latest"
	}
	return host + "/" + rest
}
