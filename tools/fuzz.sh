#!/bin/sh
# Runs every fuzz test for the given time, one after the other: fuzz.sh TIME
set -eu
for package in $(go list ./...); do
  for name in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    echo "$package $name"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "$1" "$package"
  done
done
