#!/bin/sh
# Unpacks Debian packages into a folder instead of installing them, with lists and caches of its own: the machine's packages and
# architectures stay as they are, and no package's script runs.
#   unpack.sh DIR ARCHITECTURE PACKAGE...    of a package that only depends on others, the first of those is taken
set -eu
dir=$1
architecture=$2
shift 2
[ ! -e "$dir/.complete" ] || exit 0
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
private() {
	command=$1
	shift
	"$command" -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o Dir::State::lists="$apt/lists" \
		-o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}
echo "unpack: fetching $* ($architecture) from Debian's packages into $dir"
private apt-get update
for package in "$@"; do
	case $package in
	linux-image-*) package=$(private apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1) ;;
	esac
	[ -n "$package" ] || { echo "unpack: Debian's packages have no $* for $architecture" >&2; exit 1; }
	(cd "$apt" && private apt-get download "$package")
done
rm -rf "$dir"
mkdir -p "$dir"
for file in "$apt"/*.deb; do
	dpkg-deb -x "$file" "$dir"
done
: >"$dir/.complete"
