#!/usr/bin/env bash
# Checks what scripts/package.sh makes: in the oldest system that it must run on (Debian 11), in
# containers, and by the tools of Debian. Needs root, for chroots.
#
#   scripts/test-packages.sh                       packages this commit and checks the result
#   scripts/test-packages.sh --packages DIR        checks what is there
#   scripts/test-packages.sh --reproduce           also packages this commit in two clones, and compares
#   scripts/test-packages.sh ... -- OPTIONS        with options for package.sh
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

packages=
reproduces=false
while [ $# -gt 0 ]; do
  case $1 in
    --packages) packages=$(cd "$2" && pwd) && shift 2 ;;
    --reproduce) reproduces=true && shift ;;
    --) shift && break ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
done
packaging=("$@")

cache=${PACKAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tenantd-packaging}
newest_glibc=2.31
# The 64-bit x86 and ARM machines, as Debian names them.
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
started=()
containers=()
timings=()

# Ends what this run started, by its id, and nothing else.
clean_up() {
  local status=$?
  for name in "${containers[@]}"; do engine rm --force "$name" >/dev/null 2>&1 || true; done
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  [ "$status" -eq 0 ] || echo "failed; see above" >&2
  engine rmi --all --force >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

step() {
  local name=$1 begun=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@"
  timings+=("$(printf '%5d s  %s' $((SECONDS - begun)) "$name")")
}

fail() {
  echo "$*" >&2
  return 1
}

# Waits for a condition, at most 30 seconds.
await() {
  local what=$1
  shift
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  fail "waited in vain: $what"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

engine() {
  podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver vfs --runtime runc --cgroup-manager cgroupfs "$@"
}

# The exact flags that a machine without systemd and without the right to raise limits needs.
run_container() {
  local name=$1
  shift
  containers+=("$name")
  engine run --detach --name "$name" --network host --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --no-healthcheck "$@"
}

# A fresh copy of the old system, with a name server and a trusted authority of this test.
make_old_root() {
  local folder=$1
  mkdir -p "$folder"
  tar -xf "$cache/bullseye.tar" -C "$folder"
  echo 'nameserver 127.0.0.153' > "$folder/etc/resolv.conf"
  echo '127.0.0.1 localhost in-hosts.test' > "$folder/etc/hosts"
  install -m 644 "$work/peers/ca.pem" "$folder/usr/local/share/ca-certificates/test.crt"
  in_root "$folder" update-ca-certificates >/dev/null
}

# Mounts are seen by this command only.
in_root() {
  local folder=$1
  shift
  unshare --mount -- sh -ec 'mount -t proc proc "$1/proc"; mount --rbind /sys "$1/sys"; root=$1; shift; exec chroot "$root" "$@"' sh "$folder" "$@"
}

start_peers() {
  mkdir -p "$work/peers"
  (
    cd "$work/peers"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=tenantd test authority' \
      -keyout ca.key -out ca.pem
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=in-hosts.test' -keyout backend.key -out backend.csr
    printf 'subjectAltName=DNS:in-hosts.test,DNS:in-dns.test\nextendedKeyUsage=serverAuth\n' > names
    openssl x509 -req -in backend.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out backend.pem
  ) 2>/dev/null
  mkfifo "$work/peers/stdin"
  python3 scripts/packaging/test_peers.py "$work/peers" in-dns.test < "$work/peers/stdin" &
  started+=($!)
  exec 8> "$work/peers/stdin"
  await "the backend listens" test -s "$work/peers/port"
}

# An export as the vendor's portal makes it.
make_export() {
  local host=$1 zip=$2
  HOST=$host PORT=$(cat "$work/peers/port") python3 - "$zip" << 'END'
import os, sys, zipfile
base = f"https://{os.environ['HOST']}:{os.environ['PORT']}"
config = f"""search_url: {base}/nlp-search
context_url: {base}/nlp-context
api_key: a-key-of-the-test
connection_id: conn-1
"""
with zipfile.ZipFile(sys.argv[1], "w") as export:
    export.writestr("mcp/server/configs/sales.yaml", config)
END
}

sizes() { (cd "$packages" && ls -l --time-style=+ | awk 'NR > 1 { printf "%10d  %s\n", $5, $6 }'); }

checksums() {
  (cd "$packages" && sha256sum --check --quiet SHA256SUMS)
  local listed
  listed=$(awk '{ print $2 }' "$packages/SHA256SUMS" | sort)
  [ "$listed" = "$(cd "$packages" && ls tenantd* | sort)" ] || fail "SHA256SUMS does not list what is there"
}

symbol_versions() {
  local newest
  mkdir -p "$work/tarball"
  tar -xzf "$packages"/tenantd-*-linux-*.tar.gz -C "$work/tarball" --strip-components=1
  newest=$(objdump -T "$work/tarball/bin/tenantd" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
  echo "needs $newest, and: $(objdump -p "$work/tarball/bin/tenantd" | sed -n 's/ *NEEDED *//p' | tr '\n' ' ')"
  [ "$(printf '%s\n%s\n' "${newest#GLIBC_}" "$newest_glibc" | sort -V | tail -n 1)" = "$newest_glibc" ] ||
    fail "the binary needs $newest, but Ubuntu 20.04 and Debian 11 have $newest_glibc"
}

# Everything that an old C library does for the program: names from /etc/hosts and from a name
# server, and the system's certificate authorities.
tarball_in_old_system() {
  local folder=$work/old name
  make_old_root "$folder"
  in_root "$folder" sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(ldd --version | head -n 1)"'
  cp -r "$work/tarball" "$folder/opt/tenantd"
  in_root "$folder" /opt/tenantd/bin/tenantd --version
  for name in in-hosts in-dns; do
    make_export "$name.test" "$folder/root/$name.zip"
    in_root "$folder" /opt/tenantd/bin/tenantd check --live --backend-allow 127.0.0.0/8 "/root/$name.zip"
  done
  make_export "nowhere.test" "$folder/root/nowhere.zip"
  if in_root "$folder" /opt/tenantd/bin/tenantd check --live --backend-allow 127.0.0.0/8 /root/nowhere.zip >/dev/null; then
    fail "a name that nobody knows was found: this check cannot fail"
  fi
  for page in tenantd tenantd-serve; do
    [ -s "$work/tarball/share/man/man1/$page.1" ] || fail "no manual page $page"
  done
  for file in LICENSE THIRD-PARTY-LICENCES.txt README.md docs/README.md deploy/systemd/tenantd.service share/bash-completion/completions/tenantd; do
    [ -s "$work/tarball/$file" ] || fail "the tarball has no $file"
  done
}

# The same content under a lower version.
make_older_deb() {
  dpkg-deb --raw-extract "$1" "$work/older"
  sed -i 's/^Version: .*/Version: 0.0.1-1/' "$work/older/DEBIAN/control"
  dpkg-deb --build --root-owner-group -Zgzip -z1 "$work/older" "$work/older.deb" >/dev/null
}

mode_of() { stat -c '%U:%G %a' "$1"; }

deb_life() {
  local deb folder=$work/debian port admin
  port=$(free_port)
  admin=$(free_port)
  deb=$(ls "$packages"/tenantd_*.deb)
  make_old_root "$folder"
  make_older_deb "$deb"
  cp "$deb" "$folder/root/new.deb"
  cp "$work/older.deb" "$folder/root/old.deb"

  echo "-- install"
  in_root "$folder" dpkg --install /root/old.deb
  in_root "$folder" sh -ec '
    expect() { [ "$2" = "$3" ] || { echo "$1: $2, expected $3" >&2; exit 1; }; }
    expect "the tenants folder" "$(stat -c "%U:%G %a" /etc/tenantd/tenants.d)" "root:tenantd 2770"
    expect "the certs folder" "$(stat -c "%U:%G %a" /etc/tenantd/certs)" "tenantd:tenantd 700"
    expect "the state folder" "$(stat -c "%U:%G %a" /var/lib/tenantd)" "tenantd:tenantd 700"
    expect "the home" "$(getent passwd tenantd | cut -d: -f6)" /var/lib/tenantd
    systemd-analyze verify --man=no tenantd.service tenantd.socket
    systemctl enable tenantd.service tenantd.socket
    test -L /etc/systemd/system/sockets.target.wants/tenantd.socket
    tenantd --version'
  echo "-- serve as the unit does: as its user, on the socket that systemd made"
  make_export in-hosts.test "$folder/etc/tenantd/tenants.d/sales.zip"
  in_root "$folder" sh -ec 'chgrp tenantd /etc/tenantd/tenants.d/sales.zip; chmod 640 /etc/tenantd/tenants.d/sales.zip'
  cat > "$folder/etc/tenantd/tenantd.yaml" << END
host: localhost
tls: self-signed
backend_allow: [127.0.0.0/8]
listen: 127.0.0.1:$port
admin: 127.0.0.1:$admin
tenants: /etc/tenantd/tenants.d
certs: /etc/tenantd/certs
state: /var/lib/tenantd
END
  in_root "$folder" systemd-socket-activate --listen "127.0.0.1:$port" \
    setpriv --reuid tenantd --regid tenantd --clear-groups tenantd serve --config /etc/tenantd/tenantd.yaml > "$work/service.log" 2>&1 &
  local service=$!
  started+=("$service")
  await "the service answers over its socket" curl --silent --fail --insecure --max-time 5 "https://localhost:$port/sales/" ||
    { cat "$work/service.log"; return 1; }
  in_root "$folder" tenantd tenants list --admin "127.0.0.1:$admin"
  [ -s "$folder/etc/tenantd/tenants.d/sales.status.json" ] || fail "no status file"
  kill "$service"
  wait "$service" 2>/dev/null || true

  echo "-- upgrade: an edited settings file stays"
  in_root "$folder" dpkg --install --force-confdef --force-confold /root/new.deb
  grep -q "listen: 127.0.0.1:$port" "$folder/etc/tenantd/tenantd.yaml" || fail "the upgrade replaced tenantd.yaml"

  echo "-- remove: settings, tenants and state stay"
  in_root "$folder" dpkg --remove tenantd
  [ ! -e "$folder/usr/bin/tenantd" ] || fail "the program is still there"
  [ -e "$folder/etc/tenantd/tenantd.yaml" ] || fail "the settings are gone"
  [ -e "$folder/var/lib/tenantd/tenantd.db" ] || fail "the state is gone"

  echo "-- purge: only tenants' files and certificates stay"
  in_root "$folder" dpkg --purge tenantd
  [ ! -e "$folder/var/lib/tenantd" ] || fail "the state is still there"
  [ "$(cd "$folder/etc/tenantd" && find . -type f ! -path './certs/*')" = ./tenants.d/sales.zip ] ||
    fail "purge left: $(find "$folder/etc/tenantd")"
  [ -s "$folder/etc/tenantd/certs/local-ca.pem" ] || fail "the certificates are gone"
  [ -z "$(find "$folder/etc/systemd" -name 'tenantd*')" ] || fail "the units are still enabled"
}

lint_deb() { lintian --allow-root --fail-on error "$packages"/tenantd_*.deb; }

harden_units() {
  local folder=$work/units
  mkdir -p "$folder"
  sed "s#^ExecStart=/usr/local/bin/#ExecStart=$work/tarball/bin/#" "$work/tarball/deploy/systemd/tenantd.service" > "$folder/tenantd.service"
  cp "$work/tarball/deploy/systemd/tenantd.socket" "$folder/"
  systemd-analyze verify --man=no "$folder/tenantd.service" "$folder/tenantd.socket"
  systemd-analyze security --offline=true --threshold=20 --no-pager "$folder/tenantd.service" | tail -n 1
}

# With the root file system read-only, and no capability.
image_serves_a_folder() {
  local folder=$work/tenants port admin pid
  port=$(free_port)
  admin=$(free_port)
  mkdir -p "$folder"
  make_export in-hosts.test "$folder/sales.zip"
  chmod -R a+rX "$folder" "$work/peers/ca.pem"
  run_container folder --read-only --cap-drop=ALL --security-opt no-new-privileges --memory 128m --pids-limit 64 \
    --add-host in-hosts.test:127.0.0.1 --volume "$folder:/data/tenants.d:ro" --volume "$work/peers/ca.pem:/ca.pem:ro" \
    --env SSL_CERT_FILE=/ca.pem --env "TENANTD_LISTEN=127.0.0.1:$port" --env "TENANTD_ADMIN=127.0.0.1:$admin" \
    --env TENANTD_BACKEND_ALLOW=127.0.0.0/8 "$image" serve
  await "the container answers" curl --silent --fail --insecure --max-time 5 "https://localhost:$port/sales/" ||
    { engine logs folder; return 1; }
  engine exec folder /usr/bin/tenantd healthcheck --admin "127.0.0.1:$admin"
  engine exec folder /usr/bin/tenantd check --live --backend-allow 127.0.0.0/8 /data/tenants.d/sales.zip
  pid=$(engine inspect folder --format '{{.State.Pid}}')
  awk '/^Uid:/ && $2 != 65532 || /^Cap(Eff|Prm|Bnd|Amb):/ && $2 !~ /^0+$/ { print "its process has " $0; bad = 1 } END { exit bad }' \
    "/proc/$pid/status" >&2
  awk '$5 == "/" && $6 !~ /^ro(,|$)/ { print "its root is mounted " $6; bad = 1 } END { exit bad }' "/proc/$pid/mountinfo" >&2
  engine stop --time 45 folder >/dev/null
  [ "$(engine inspect folder --format '{{.State.ExitCode}}')" = 0 ] || { engine logs folder; fail "it did not end in order"; }
}

# Exactly as the vendor prints it, with the name of the image changed.
image_runs_as_the_vendor_says() {
  if ! engine run --rm --network none --no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$image" run --help >/dev/null 2>&1; then
    echo "skipped: this build has no \`tenantd run\`"
    return
  fi
  local base port
  port=$(free_port)
  base=https://in-hosts.test:$(cat "$work/peers/port")
  make_export in-hosts.test "$work/mcp_export.zip"
  chmod 644 "$work/mcp_export.zip"
  run_container vendor --read-only --cap-drop=ALL --add-host in-hosts.test:127.0.0.1 \
    --volume "$work/peers/ca.pem:/ca.pem:ro" --env SSL_CERT_FILE=/ca.pem --env TENANTD_BACKEND_ALLOW=127.0.0.0/8 \
    --env "TENANTD_ADMIN=127.0.0.1:$(free_port)" -p "$port:$port" -v "$work/mcp_export.zip:/app/server.zip:ro" -e "MCP_PORT=$port" -e API_KEY=a-key-of-the-test \
    -e "SEARCH_URL=$base/nlp-search" -e "CONTEXT_URL=$base/nlp-context" "$image"
  await "the vendor's command serves" vendor_answers "$port" || { engine logs vendor; return 1; }
  engine logs vendor 2>&1 | grep -F "Uvicorn running on http://0.0.0.0:$port (Press CTRL+C to quit)"
}

vendor_answers() {
  curl --silent --fail --max-time 5 "http://127.0.0.1:$1/mcp" --header 'content-type: application/json' \
    --header 'accept: application/json, text/event-stream' \
    --data '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}'
}

load_image() {
  local file
  file=$(ls "$packages"/tenantd-*-image-"$architecture".tar.gz)
  # Podman 4.3 reads no compressed archive; Docker does.
  gzip -dc "$file" | engine load --quiet
  image=$(engine images --format '{{.Repository}}:{{.Tag}}' | head -n 1)
  engine images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
  engine image inspect "$image" --format '{{.User}} {{.Config.Entrypoint}} {{.Config.Cmd}} {{.HealthCheck.Test}}'
}

sbom() {
  python3 - "$packages"/tenantd-*.cdx.json << 'END'
import json, re, sys
text = open(sys.argv[1]).read()
bom = json.loads(text)
assert bom["bomFormat"] == "CycloneDX", bom.get("bomFormat")
names = {component["name"]: component["version"] for component in bom["components"]}
lock = open("Cargo.lock").read()
for crate in ("hyper", "rustls", "aws-lc-sys", "libsqlite3-sys"):
    assert f'name = "{crate}"\nversion = "{names[crate]}"' in lock, crate
assert "criterion" not in names, "crates of tests are listed"
assert not re.search(r"file:///(?!tenantd)", text), "it names a folder of this machine"
print(f"{len(names)} crates, CycloneDX {bom['specVersion']}")
END
}

# Two clones in folders of different names and depths, each built from nothing.
reproduce() {
  local folder
  for folder in "$work/a" "$work/another/place"; do
    git clone --quiet "$root" "$folder"
    (cd "$folder" && env -u CARGO_TARGET_DIR ./scripts/package.sh "${packaging[@]}" >/dev/null)
    cp "$folder/target/packages/SHA256SUMS" "$work/sums.$(basename "$folder")"
    rm -rf "$folder"
  done
  diff "$work/sums.a" "$work/sums.place" || fail "two builds differ"
  cat "$work/sums.a"
}

step "tools, and the root of Debian 11" scripts/packaging/install-test-tools.sh "$cache"
if [ -z "$packages" ]; then
  packages=$root/target/packages
  step "packages" scripts/package.sh "${packaging[@]}"
fi
step "sizes" sizes
step "checksums" checksums
step "list of contents (SBOM)" sbom
step "symbol versions" symbol_versions
step "peers" start_peers
step "tarball in Debian 11" tarball_in_old_system
step "units" harden_units
step "deb: install, upgrade, remove, purge in Debian 11" deb_life
step "deb: lintian" lint_deb
step "image" load_image
step "image: a folder of tenants" image_serves_a_folder
step "image: the vendor's docker run" image_runs_as_the_vendor_says
if $reproduces; then
  step "two builds" reproduce
fi

printf '\n== all checks of the packages passed\n'
printf '%s\n' "${timings[@]}"
