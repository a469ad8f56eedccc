#!/usr/bin/env bash
# Installs the peers that tests talk to, at the versions named here and in tests/peers/package.json, into folder $1.
# A second run with the same versions does nothing.
set -euo pipefail
cache=${1:?folder}
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$cache"

# What was installed is stamped with what asked for it.
is_current() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

# Node 22 comes as an npm package, because the conformance suite and the inspector need it and systems have older ones.
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

# Each Python client has an environment of its own: their requirements exclude one another.
install_python() {
  local name=$1 requirement=$2
  is_current "$cache/$name" "$requirement" && return
  rm -rf "${cache:?}/$name"
  python3 -m venv "$cache/$name"
  "$cache/$name/bin/pip" install --quiet --disable-pip-version-check "$requirement"
  echo "$requirement" > "$cache/$name/.stamp"
}

install_npm
install_python python-mcp2 mcp==2.3.0
install_python python-mcp1 mcp==1.30.0
install_python python-fastmcp fastmcp==4.1.2
echo "peers are in $cache"
