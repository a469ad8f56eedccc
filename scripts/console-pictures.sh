#!/usr/bin/env bash
# Makes the pictures of docs/console.md again, with the tests that look at the console in Chromium.
# Needs the peers (scripts/install-peers.sh) in TENANTD_TEST_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
pictures=$(mktemp -d)
trap 'rm -rf "$pictures"' EXIT
TENANTD_TEST_PICTURES=$pictures cargo nextest run --all-features \
  -E 'test(peers::console::every_page_is_good_on_phones_and_desks_in_both_schemes)'
mkdir -p docs/pictures
for name in overview-desk stale-phone; do
  cp "$pictures/console-$name.png" "docs/pictures/$name.png"
done
ls -l docs/pictures
