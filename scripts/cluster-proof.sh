#!/usr/bin/env bash
# Runs the long proof of several gateways on one database: ROUNDS rounds in which a gateway or the
# database is killed, frozen or cut off under 200 clients (tests/gateway/cluster_proof.rs).
#
#   ./scripts/cluster-proof.sh 1000
#
# Needs root, PostgreSQL, iproute2 and nftables. Logs of rounds with violations are kept in
# $TENANTD_PROOF_LOGS (default: <target>/cluster-proof). Further variables: TENANTD_PROOF_CLIENTS
# (200), TENANTD_PROOF_GATEWAYS (3), TENANTD_PROOF_PACE_MS (3000, between two steps of a client),
# TENANTD_PROOF_SEED, TENANTD_ROLLING_ROUNDS (rolling restarts under load first, default 3).
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=${CARGO_TARGET_DIR:-$PWD/target}
export TENANTD_PROOF_ROUNDS=$1
export TENANTD_PROOF_CLIENTS=${TENANTD_PROOF_CLIENTS:-200}
export TENANTD_PROOF_GATEWAYS=${TENANTD_PROOF_GATEWAYS:-3}
export TENANTD_PROOF_PACE_MS=${TENANTD_PROOF_PACE_MS:-3000}
export TENANTD_ROLLING_ROUNDS=${TENANTD_ROLLING_ROUNDS:-3}
export TENANTD_PROOF_LOGS=${TENANTD_PROOF_LOGS:-$target/cluster-proof}
# In a namespace, a proof that cannot be made is no success.
export CI=true

mkdir -p "$TENANTD_PROOF_LOGS"
cargo test --all-features --test gateway -- --nocapture --include-ignored --test-threads 1 cluster_proof:: |
  tee "$TENANTD_PROOF_LOGS/output.log" | grep -v '^{'
