#!/bin/sh
# Packs the built binaries with units and examples into .build/release: release.sh VERSION
set -eu
out=.build/release
rm -rf "$out"
mkdir -p "$out"
pack() { # BINARY ARCHITECTURE
  name=shoal-$version-linux-$2
  mkdir -p "$out/$name"
  cp "$1" "$out/$name/shoal"
  cp -r LICENSE README.md configs/examples configs/systemd "$out/$name/"
  tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -czf "$out/$name.tar.gz" "$name"
  rm -rf "${out:?}/$name"
}
version=$1
pack bin/shoal "$(go env GOARCH)"
for arch in arm64 armv7 armv6; do
  pack "bin/shoal-linux-$arch" "$arch"
done
(cd "$out" && sha256sum ./*.tar.gz >SHA256SUMS && cat SHA256SUMS)
