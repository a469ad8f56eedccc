#!/usr/bin/env bash
# Runs every check: format, lints, unit tests, the gateway's own tests, its tests with real peers, documents.
# Installs what is missing into a cache (TENANTD_TEST_CACHE, default: <target>/peers) and compiles no tools.
#
#   ./scripts/test.sh            everything, as CI runs it
#   ./scripts/test.sh quick      without the peers (no downloads)
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
export TENANTD_TEST_CACHE=${TENANTD_TEST_CACHE:-$target/peers}
# One profile and one set of features for all checks, so that they share one build.
features=(--all-features)
timings=()

step() {
  local name=$1 started=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@"
  timings+=("$(printf '%5d s  %s' $((SECONDS - started)) "$name")")
}

install_peers() {
  ./scripts/install-peers.sh "$TENANTD_TEST_CACHE"
}

# nextest runs every test in a process of its own, which keeps gateways and their ports apart.
tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "${features[@]}" "$@"
  else
    echo "cargo-nextest is not installed; using cargo test"
    cargo test "${features[@]}" "$@"
  fi
}

documents() {
  # Private items are documented too, so links to them lead somewhere.
  RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --no-deps --document-private-items "${features[@]}"
}

if [ "${1:-}" = quick ]; then
  step "tests without peers" tests --lib --test architecture --test documents --test gateway
  exit 0
fi

step "format" cargo fmt --check
step "peers: Node 22, MCP clients of three languages, the conformance suite" install_peers
step "lints" env RUSTFLAGS="${RUSTFLAGS:-}" cargo clippy "${features[@]}" --all-targets --quiet -- -D warnings
step "tests" tests
step "documents" documents

printf '\n== all checks passed\n'
printf '%s\n' "${timings[@]}"
