#!/usr/bin/env bash
# Makes the pictures of docs/console.md again, with the tests that look at the console in Chromium.
# Needs the peers (scripts/install-peers.sh) in TENANTD_TEST_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
pictures=$(mktemp -d)
trap 'rm -rf "$pictures"' EXIT
TENANTD_TEST_PICTURES=$pictures TENANTD_TEST_PICTURE_TYPE=webp cargo nextest run --all-features \
  -E 'test(peers::console::every_page_is_good_on_phones_and_desks_in_both_schemes)'
mkdir -p docs/pictures
for name in overview-desk stale-phone held-desk audit-phone-dark; do
  cp "$pictures/console-$name.webp" "docs/pictures/$name.webp"
done
ls -l docs/pictures
