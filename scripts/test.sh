#!/usr/bin/env bash
# Runs every check.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --check
cargo test --all-features
