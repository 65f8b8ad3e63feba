#!/bin/sh
# Checks that every relative link in a Markdown file of the repository names a file.
set -eu
broken=0
for file in $(git ls-files '*.md'); do
  for target in $(grep -o '](\([^)# ]*\)' "$file" | cut -c3- | grep -v '^[a-z]*:' || true); do
    [ -e "$(dirname "$file")/$target" ] || { echo "$file: no such file: $target" >&2; broken=1; }
  done
done
exit $broken
