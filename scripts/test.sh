#!/usr/bin/env bash
# Runs every check: format, lints, unit tests, the gateway's own tests, its tests with real peers,
# documents. Installs missing peers into a cache (TENANTD_TEST_CACHE, default: <target>/peers) and
# compiles no tools.
#
#   ./scripts/test.sh            everything, as CI runs it
#   ./scripts/test.sh quick      without the peers and PostgreSQL (no downloads)
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

# System packages of the checks: a C compiler for the crypto library, curl for the demo's command,
# an ACME CA (pebble), a TLS scanner (testssl), a portal (nginx), podman for podman-compose,
# Prometheus for its rules, rsyslog for the audit, systemd's tools for its units, a browser, PostgreSQL
# for logins, tools of network namespaces, and Python for peers.
system_packages() {
  local missing=()
  command -v cc >/dev/null || missing+=(build-essential)
  command -v curl >/dev/null || missing+=(curl)
  command -v pebble >/dev/null || missing+=(pebble)
  command -v testssl >/dev/null || missing+=(testssl.sh)
  command -v npm >/dev/null || missing+=(npm)
  command -v nginx >/dev/null || missing+=(nginx-light)
  command -v podman >/dev/null || missing+=(podman)
  command -v prometheus >/dev/null || missing+=(prometheus)
  [ -x /usr/sbin/rsyslogd ] && [ -e /usr/lib/"$(uname -m)"-linux-gnu/rsyslog/lmnsd_gtls.so ] || missing+=(rsyslog rsyslog-gnutls)
  command -v systemd-socket-activate >/dev/null || missing+=(systemd)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v nft >/dev/null || missing+=(nftables)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
  [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
  python3 -m venv --help >/dev/null 2>&1 || missing+=(python3-venv)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. Install them and run this again." >&2
    return 1
  fi
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
}

install_peers() {
  ./scripts/install-peers.sh "$TENANTD_TEST_CACHE"
}

deploy_files() {
  ./scripts/install-deploy-tools.sh "$TENANTD_TEST_CACHE"
  ./scripts/check-deploy.sh "$TENANTD_TEST_CACHE"
  ./tests/deploy/broken.sh "$TENANTD_TEST_CACHE"
}

# nextest runs every test in a process of its own, which keeps gateways and their ports apart. The
# output of all tests is kept and searched for the mark of secrets, see
# tests/gateway/harness/secret.rs.
tests() {
  local log=$target/test-output.log status=0
  mkdir -p "$target"
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "${features[@]}" --no-fail-fast --success-output immediate --failure-output immediate-final "$@" 2>&1 |
      tee "$log" | grep --line-buffered -E '^ +(Starting|PASS|FAIL|SIGNAL|TIMEOUT|SLOW|ABORT|Summary|Compiling tenantd)|^error' ||
      status=${PIPESTATUS[0]}
  else
    echo "cargo-nextest is not installed; using cargo test"
    cargo test "${features[@]}" "$@" 2>&1 | tee "$log" || status=$?
  fi
  if [ "$status" -ne 0 ]; then
    echo "tests failed; the end of $log:"
    tail -n 400 "$log"
    return 1
  fi
  if grep -n -F "$(sed -n 's/^const MARK: &str = "\(.*\)";$/\1/p' tests/gateway/harness/secret.rs)" "$log"; then
    echo "a secret of a test was printed, see above" >&2
    return 1
  fi
}

documents() {
  # Private items are documented too, so that links to them resolve.
  RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --no-deps --document-private-items "${features[@]}"
}

if [ "${1:-}" = quick ]; then
  step "tests without peers" tests -E 'not test(/^peers::/) and not test(/postgres/) and not test(/^cluster_proof::/)'
  exit 0
fi

step "format" cargo fmt --check
step "system packages" system_packages
step "peers: Node 22, MCP clients, frameworks for agents, the conformance suite" install_peers
step "deploy/: Compose, Kubernetes, Helm, the Dockerfile" deploy_files
step "models: what several gateways agree on" ./scripts/models.sh
step "lints" env RUSTFLAGS="${RUSTFLAGS:-}" cargo clippy "${features[@]}" --all-targets --quiet -- -D warnings
step "tests" tests
step "documents" documents

printf '\n== all checks passed\n'
printf '%s\n' "${timings[@]}"
