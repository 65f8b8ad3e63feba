#!/bin/sh
# Unpacks Debian's arm64 kernel into a folder, with lists and caches of its own: the machine's packages and architectures stay as they are.
# Usage: kernel.sh DIR
set -eu
dir=$1
[ ! -e "$dir/.complete" ] || exit 0
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
private() {
	command=$1
	shift
	"$command" -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$apt/lists" \
		-o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}
echo "kernel: fetching Debian's linux-image-arm64 into $dir"
private apt-get update
package=$(private apt-cache depends linux-image-arm64 | sed -n 's/^ *Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1)
[ -n "$package" ] || { echo "kernel: Debian's archive has no linux-image-arm64" >&2; exit 1; }
(cd "$apt" && private apt-get download "$package")
rm -rf "$dir"
mkdir -p "$dir"
dpkg-deb -x "$apt"/linux-image-*.deb "$dir"
# What the board does not need is most of it.
find "$dir" -mindepth 1 -maxdepth 1 ! -name boot ! -name lib -exec rm -rf {} +
: >"$dir/.complete"
