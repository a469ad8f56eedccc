#!/usr/bin/env bash
# Starts a real API server of Kubernetes with its etcd on loopback, for two tests:
#
#   ./scripts/kubernetes-api.sh FOLDER [PORT]
#   TENANTD_TEST_KUBECONFIG=FOLDER/kubeconfig cargo nextest run --all-features -E 'test(real_cluster) + test(shipped_role)'
#
# Debian has no package of the server, but its source package `kubernetes` (1.20) is whole: it is
# built once (about five minutes and 3 GB), with the Go and the etcd of Debian, all below FOLDER.
# The script runs in the foreground; its end ends both servers.
set -euo pipefail

mkdir -p "${1:?folder for the build and the cluster}"
folder=$(cd "$1" && pwd)
port=${2:-26443}
source_tree=$folder/gopath/src/k8s.io/kubernetes

unpack_debian() {
  local lists=$folder/apt package
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/parts" "$folder/debs"
  # The same places that packages come from, for their sources.
  sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > "$lists/parts/debian.sources"
  local own=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$lists/parts"
    -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache")
  apt-get "${own[@]}" update
  (cd "$folder/debs" && apt-get "${own[@]}" source --download-only kubernetes &&
    apt-get download golang-1.19-go golang-1.19-src etcd-server)
  for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/root"; done
  cp -rL "$folder/root/usr/lib/go-1.19" "$folder/go" 2>/dev/null || true
  cp -r "$folder/root/usr/share/go-1.19/." "$folder/go/"
  mkdir -p "$source_tree"
  tar -xf "$folder"/debs/kubernetes_*.orig.tar.gz --strip-components=1 -C "$source_tree"
}

# The source package lacks one generated file, which upstream's Makefile makes with this generator.
build() {
  export GOROOT=$folder/go GOPATH=$folder/gopath GOCACHE=$folder/gocache GO111MODULE=off GOFLAGS='' CGO_ENABLED=0
  export PATH=$GOROOT/bin:$PATH
  cd "$source_tree"
  go build -o "$folder/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  local packages
  packages=$(grep -rlE --include='*.go' '^\s*//\s*\+k8s:openapi-gen=true' pkg cmd staging/src | xargs -n1 dirname |
    sort -u | grep -vE 'code-generator|sample-apiserver' |
    sed -E 's#^staging/src/#k8s.io/kubernetes/vendor/#; s#^(pkg|cmd)/#k8s.io/kubernetes/\1/#' | paste -sd,)
  "$folder/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt -r "$folder/violations.report"
  go build -o "$folder/kube-apiserver" ./cmd/kube-apiserver
}

[ -d "$source_tree" ] || unpack_debian
[ -x "$folder/kube-apiserver" ] || (build)

cluster=$folder/cluster
rm -rf "$cluster"
mkdir -p "$cluster"
openssl genrsa -out "$cluster/sa.key" 2048 2>/dev/null
openssl rsa -in "$cluster/sa.key" -pubout -out "$cluster/sa.pub" 2>/dev/null
echo 'administrator-token,administrator,1,"system:masters"' > "$cluster/tokens.csv"

"$folder/root/usr/bin/etcd" --data-dir "$cluster/etcd" \
  --listen-client-urls "http://127.0.0.1:$((port + 1))" --advertise-client-urls "http://127.0.0.1:$((port + 1))" \
  --listen-peer-urls "http://127.0.0.1:$((port + 2))" --initial-advertise-peer-urls "http://127.0.0.1:$((port + 2))" \
  --initial-cluster "default=http://127.0.0.1:$((port + 2))" > "$cluster/etcd.log" 2>&1 &
etcd=$!
"$folder/kube-apiserver" --etcd-servers="http://127.0.0.1:$((port + 1))" --secure-port="$port" --insecure-port=0 \
  --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --cert-dir="$cluster/certs" \
  --service-account-issuer=https://kubernetes.default.svc --service-account-signing-key-file="$cluster/sa.key" \
  --service-account-key-file="$cluster/sa.pub" --token-auth-file="$cluster/tokens.csv" --authorization-mode=RBAC \
  --service-cluster-ip-range=10.0.0.0/24 --disable-admission-plugins=ServiceAccount > "$cluster/api.log" 2>&1 &
api=$!
trap 'kill "$api" "$etcd" 2>/dev/null; wait' EXIT

cat > "$folder/kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", certificate-authority: $cluster/certs/apiserver.crt}}]
users: [{name: test, user: {token: administrator-token}}]
contexts: [{name: test, context: {cluster: test, user: test, namespace: tursio-mcp}}]
END
for _ in $(seq 120); do
  kubectl --kubeconfig "$folder/kubeconfig" create namespace tursio-mcp > /dev/null 2>&1 && break
  kill -0 "$api" || { tail -5 "$cluster/api.log" >&2; exit 1; }
  sleep 0.5
done
echo "ready: TENANTD_TEST_KUBECONFIG=$folder/kubeconfig"
wait "$api"
