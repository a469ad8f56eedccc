#!/usr/bin/env bash
# Runs the long proof of several gateways on one database: ROUNDS rounds in which a gateway or the
# database is killed, frozen or cut off under 200 clients (tests/gateway/cluster_proof.rs), and prints
# at the end what happened, by fault.
#
#   ./scripts/cluster-proof.sh 1000
#
# Needs root, PostgreSQL, Pebble, iproute2 and nftables. Logs of rounds with violations are kept in
# $TENANTD_PROOF_LOGS (default: <target>/cluster-proof). Further variables: TENANTD_PROOF_WORLDS (1:
# worlds side by side, each with gateways, database, CA and clients of its own, that share the rounds),
# TENANTD_PROOF_CLIENTS (200, in each world), TENANTD_PROOF_GATEWAYS (3), TENANTD_PROOF_PACE_MS (3000,
# between two steps of a client), TENANTD_PROOF_SEED (1), TENANTD_ROLLING_ROUNDS (rolling restarts under
# load first, default 3). The gateways and the clients are built for release.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 1 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=${CARGO_TARGET_DIR:-$PWD/target}
worlds=${TENANTD_PROOF_WORLDS:-1}
export TENANTD_PROOF_ROUNDS=$((($1 + worlds - 1) / worlds))
export TENANTD_PROOF_CLIENTS=${TENANTD_PROOF_CLIENTS:-200}
export TENANTD_PROOF_GATEWAYS=${TENANTD_PROOF_GATEWAYS:-3}
export TENANTD_PROOF_PACE_MS=${TENANTD_PROOF_PACE_MS:-3000}
export TENANTD_ROLLING_ROUNDS=${TENANTD_ROLLING_ROUNDS:-3}
logs=${TENANTD_PROOF_LOGS:-$target/cluster-proof}
seed=${TENANTD_PROOF_SEED:-1}
# In a namespace, a proof that cannot be made is no success.
export CI=true

# The program of the tests, and what it starts, stay as they are while the proof runs.
mkdir -p "$logs"
cargo test --quiet --release --all-features --test gateway --no-run
tests=$(cargo test --release --all-features --test gateway --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*gateway-[^"]*\)".*/\1/p')
cp "$tests" "$logs/tests"
cp "$target/release/tenantd" "$logs/tenantd"
export TENANTD_TEST_BINARY=$logs/tenantd

prove() {
  "$logs/tests" --exact --nocapture "cluster_proof::$1"
}

prove a_rolling_restart_loses_no_call | tee "$logs/rolling.log" | grep -v '^{'
running=()
for world in $(seq "$worlds"); do
  mkdir -p "$logs/world-$world"
  TENANTD_PROOF_SEED=$((seed + world - 1)) TENANTD_PROOF_LOGS=$logs/world-$world \
    prove clients_survive_every_fault_of_gateways_and_the_database >"$logs/world-$world/output.log" 2>&1 &
  running+=($!)
done
failed=0
for world in $(seq "$worlds"); do
  wait "${running[world - 1]}" || failed=1
  echo "world $world:"
  grep -v '^{' "$logs/world-$world/output.log"
done
exit "$failed"
