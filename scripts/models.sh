#!/usr/bin/env bash
# Explores the models of tests/models with spin: each must hold, and each deliberate break of one
# must fail. Prints what was explored. Installs spin and a C compiler on Debian if they are missing.
set -euo pipefail
cd "$(dirname "$0")/../tests/models"

# What must hold, and what must not: a model and the names it is compiled with.
honest=("refresh" "refresh THIEF" "lease" "revocation")
broken=(
  "refresh NO_COMPARE" "refresh NO_SECOND_READ" "refresh NO_GRACE" "refresh NO_ARRIVAL"
  "refresh NO_LATE" "refresh THIEF ENDLESS"
  "lease NO_NUMBER" "lease NO_CLOCK" "lease NO_NUMBER_AT_RELEASE" "lease NO_LOOK"
  "revocation NO_LIMIT" "revocation SEQUENCE" "revocation TWO_WRITES"
)

missing=()
command -v spin >/dev/null || missing+=(spin)
command -v cc >/dev/null || missing+=(build-essential)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. Install them and run this again." >&2
    exit 1
  fi
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Explores a model completely and leaves spin's report in $work/report. Fails if there is an error,
# or if spin did not get to the end.
explore() {
  local model=$1 definitions
  read -ra definitions <<<"${2:-}"
  rm -rf "$work/run" && mkdir "$work/run"
  cp "$model.pml" "$work/run"
  (
    cd "$work/run"
    spin -a "${definitions[@]/#/-D}" "$model.pml"
    # The compiler warns of spin's own C code.
    cc -O2 -w -DSAFETY -o pan pan.c
    ./pan -m1000000
  ) >"$work/report" 2>&1 || true
  grep -q 'errors: 0' "$work/report" && ! grep -qE 'max search depth too small|out of memory|Search not completed' "$work/report"
}

summary() {
  sed -nE 's/.*depth reached ([0-9]+), errors: ([0-9]+).*/depth \1, errors \2/p; s/^ *([0-9]+) states, stored.*/\1 states/p; s/^ *([0-9.]+)\ttotal actual memory usage/\1 MB/p; s/^pan:1: (.*)/\1/p' "$work/report" |
    paste -sd, - | sed 's/,/, /g'
}

failed=0
for case in "${honest[@]}"; do
  read -r model definitions <<<"$case"
  verdict=holds
  explore "$model" "$definitions" || { verdict="FAILS, and should hold"; failed=1; cat "$work/report"; }
  printf '%-26s %s: %s\n' "$case" "$verdict" "$(summary)"
done
for case in "${broken[@]}"; do
  read -r model definitions <<<"$case"
  verdict="fails, as it should"
  if explore "$model" "$definitions"; then
    verdict="HOLDS, and should fail"
    failed=1
  elif ! grep -qE 'errors: [1-9]' "$work/report"; then
    verdict="could not be explored"
    failed=1
    cat "$work/report"
  fi
  printf '%-26s %s: %s\n' "$case" "$verdict" "$(summary)"
done
exit "$failed"
