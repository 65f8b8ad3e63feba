#!/bin/sh
# Installs from Debian's packages what is missing on this machine, and says so in a line. Starts no service: each device of the
# demo runs a containerd of its own, and a board runs shoal-containerd.service.
#   deps.sh COMMAND=PACKAGE...    COMMAND is a name on the PATH or an absolute path
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in "$@"; do
  command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
done
missing=${missing# }
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing on this machine: $missing. Install it (on Debian, as root: apt-get install $missing)." >&2
  exit 1
fi
echo "deps: installing $missing from Debian's packages (no service is started or enabled)"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # one word per package
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  rm -f "$log"
  echo "deps: apt-get could not install $missing" >&2
  exit 1
fi
rm -f "$log"
case " $missing " in
*" containerd "*) command -v systemctl >/dev/null && systemctl disable -q containerd.service >/dev/null 2>&1 || true ;;
esac
