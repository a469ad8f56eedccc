#!/usr/bin/env bash
# Breaks copies of deploy/, one fault each, and fails unless scripts/check-deploy.sh finds every one.
#
#   ./tests/deploy/broken.sh CACHE
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${1:?folder of the tools}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# broken NAME PART FILE SED: the check of PART must fail once FILE is changed by SED.
broken() {
  local name=$1 part=$2 file=$3 change=$4
  rm -rf "$work/deploy"
  cp -r deploy "$work/deploy"
  sed -i -E "$change" "$work/deploy/$file"
  if cmp -s "deploy/$file" "$work/deploy/$file"; then
    echo "FAILED: nothing was broken: $name" >&2
    exit 1
  fi
  if ./scripts/check-deploy.sh "$cache" "$part" "$work/deploy" > "$work/output" 2>&1; then
    echo "FAILED: not found: $name" >&2
    exit 1
  fi
  # The check itself must not be what failed.
  grep -q '^FAILED: ' "$work/output" || { cat "$work/output" >&2; exit 1; }
}

broken "a key twice" plain kubernetes/base/service.yaml 's/^  type: .*/&\n  type: NodePort/'
broken "a misspelt key of Compose" compose compose/single/compose.yaml 's/read_only: true/readonly: true/'
broken "a variable that nothing reads" compose compose/single/env.example 's/^API_KEY=/APIKEY=/'
broken "a service that hangs on nothing" compose compose/cluster/compose.yaml 's/condition: service_healthy/condition: service_well/'
broken "an overlay that contains itself" kubernetes kubernetes/overlays/acme/kustomization.yaml 's#\.\./multi#..#'
broken "a misspelt probe" kubernetes kubernetes/overlays/multi/deployment.yaml 's/readinessProbe/readynessProbe/'
broken "two replicas on one claim" kubernetes kubernetes/base/deployment.yaml 's/replicas: 1/replicas: 2/'
broken "rollouts beside Recreate" kubernetes kubernetes/base/deployment.yaml \
  's/^    type: Recreate/    type: RollingUpdate\n    rollingUpdate: {maxUnavailable: 0}/'
broken "a single file that lags behind" kubernetes kubernetes/mcp-server.yaml 's/cpu: 100m/cpu: 200m/'
broken "a route of one proxy only" kubernetes kubernetes/examples/traefik.yaml 's#/oauth-authorization-server/#/oauth/#'
broken "a vault without a provider" kubernetes kubernetes/overlays/key-vault/vault.yaml 's/^  provider:/  providr:/'
broken "a rollout with a gap" kubernetes kubernetes/overlays/cluster/deployment.yaml 's/maxUnavailable: 0/maxUnavailable: 1/'
broken "a cluster of one" kubernetes kubernetes/overlays/cluster/deployment.yaml 's/replicas: 2/replicas: 1/'
broken "a budget of other pods" kubernetes kubernetes/overlays/cluster/disruption.yaml 's/app: tursio-mcp/app: other/'
broken "a spread of other pods" kubernetes kubernetes/overlays/cluster/deployment.yaml 's/matchLabels: \{app: tursio-mcp/matchLabels: {app: other/'
broken "a role that may write" kubernetes kubernetes/overlays/cluster/tenants.yaml 's/\[list, watch\]/[list, watch, update]/'
broken "a chart's cluster without a pause" helm helm/tenantd/templates/deployment.yaml 's/sleep: \{seconds: 5\}/sleep: {seconds: 0}/'
broken "a chart's budget of other pods" helm helm/tenantd/templates/disruption.yaml 's/include "tenantd.selector"/include "tenantd.labels"/'
broken "a template that renders no object" helm helm/tenantd/templates/deployment.yaml 's/readinessProbe:/readynessProbe:/'
broken "replicas with a login" helm helm/tenantd/templates/_helpers.tpl 's/gt \(int .Values.replicas\) 1/gt (int .Values.replicas) 9/'
broken "a Secret made by the chart" helm helm/tenantd/templates/state.yaml \
  '1s/^/apiVersion: v1\nkind: Secret\nmetadata: {name: made}\n---\n/'
broken "an alert that never fires" monitoring monitoring/alerts.yaml 's/state="rejected"/state="refused"/'
broken "a query that is none" monitoring monitoring/dashboard.json 's/sum by \(state\)/sum by state/'
broken "advice on no page" monitoring monitoring/alerts.yaml 's/#a-task-panicked/#a-task-panics/'
echo "every fault was found"
