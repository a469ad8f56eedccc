#!/usr/bin/env bash
# Installs what scripts/package.sh needs, at the versions named here, into folder $1. A second run with the same versions
# does nothing.
set -euo pipefail
cache=${1:?folder}
mkdir -p "$cache"

# zig is a C compiler and linker that brings glibc's symbols of every version, so that a binary from a
# new machine runs on old ones. cargo-zigbuild lets Cargo use it.
zig_requirements=(ziglang==0.17.0 cargo-zigbuild==0.24.0)
cargo_deb_version=3.8.0
cargo_cyclonedx_version=0.5.9

is_current() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

install_system_packages() {
  local missing=()
  command -v cc >/dev/null || missing+=(build-essential)
  command -v buildah >/dev/null || missing+=(buildah)
  command -v dpkg-deb >/dev/null || missing+=(dpkg)
  command -v xz >/dev/null || missing+=(xz-utils)
  python3 -m venv --help >/dev/null 2>&1 || missing+=(python3-venv)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. Install them and run this again." >&2
    return 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

install_zig() {
  local wanted=${zig_requirements[*]}
  is_current "$cache/zig" "$wanted" && return
  rm -rf "$cache/zig"
  python3 -m venv "$cache/zig"
  "$cache/zig/bin/pip" install --quiet --disable-pip-version-check "${zig_requirements[@]}"
  echo "$wanted" > "$cache/zig/.stamp"
}

# The tools are compiled without optimisation: that takes half the time, and they have little to do.
install_cargo_tool() {
  local name=$1 version=$2
  is_current "$cache/$name" "$version" && return
  rm -rf "${cache:?}/$name"
  (cd "$cache" && CARGO_TARGET_DIR=$cache/build cargo install --locked --debug --quiet --root "$cache/$name" "$name@$version")
  rm -rf "$cache/build"
  echo "$version" > "$cache/$name/.stamp"
}

install_system_packages
install_zig
install_cargo_tool cargo-deb "$cargo_deb_version"
install_cargo_tool cargo-cyclonedx "$cargo_cyclonedx_version"
