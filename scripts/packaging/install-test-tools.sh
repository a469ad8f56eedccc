#!/usr/bin/env bash
# Installs what scripts/test-packages.sh needs, and makes the root of the oldest system that the
# packages must run on, as a tarball in folder $1.
set -euo pipefail
cache=${1:?folder}
mkdir -p "$cache"

# Debian 11 has glibc 2.31, as Ubuntu 20.04 has.
suite=bullseye
missing=()
for tool in buildah podman runc mmdebstrap lintian unshare openssl; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v systemd-analyze >/dev/null || missing+=(systemd)
if [ ${#missing[@]} -gt 0 ]; then
  missing=("${missing[@]/unshare/util-linux}")
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ ! -f "$cache/$suite.tar" ]; then
  # systemd makes the service's user and checks the units there, which name procps' `kill`.
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,systemd,procps "$suite" "$cache/$suite.tmp.tar"
  mv "$cache/$suite.tmp.tar" "$cache/$suite.tar"
fi
