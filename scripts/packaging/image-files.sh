#!/usr/bin/env bash
# Lays out the files of the container image: the program, the libraries it is linked to, the roots of
# public certificate authorities, and an empty folder for data. Libraries and roots come from
# Debian's packages.
#
#   scripts/packaging/image-files.sh BINARY FOLDER [amd64|arm64]
set -euo pipefail
binary=${1:?binary}
root=${2:?folder}
architecture=${3:-$(dpkg --print-architecture)}
here=$(cd "$(dirname "$0")/../.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

download() {
  (cd "$work" && for package in "$@"; do
    apt-get download -qq -o APT::Sandbox::User=root "$package:$architecture" 2>/dev/null ||
      apt-get download -qq -o APT::Sandbox::User=root -o "APT::Architecture=$architecture" "$package"
  done)
  for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$work/debian"
  done
}

needed_by() { readelf --dynamic --wide "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# Copies a library by its name, and what it needs itself.
copy_library() {
  local name=$1 source target
  source=$(find "$work/debian" -path '*/lib/*' -name "$name" | sort | head -n 1)
  if [ -z "$source" ]; then
    echo "the program needs $name, which is not in Debian's libc6 or libgcc-s1" >&2
    return 1
  fi
  target=$root/lib/$(basename "$(dirname "$source")")/$name
  [ -e "$target" ] && return
  install -D -m 755 "$(readlink -f "$source")" "$target"
  for dependency in $(needed_by "$source"); do
    copy_library "$dependency"
  done
}

rm -rf "$root"
mkdir -p "$root"
packages=(libc6 ca-certificates)
# The usual toolchain links it; zig does not.
[[ $(needed_by "$binary") != *libgcc_s* ]] || packages+=(libgcc-s1)
download "${packages[@]}"
install -D -m 755 "$binary" "$root/usr/bin/tenantd"

interpreter=$(readelf --program-headers --wide "$binary" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
for library in "$(basename "$interpreter")" $(needed_by "$binary"); do
  copy_library "$library"
done
# The kernel looks for the loader at the path in the program.
loader=$(cd "$root" && find lib -name "$(basename "$interpreter")")
if [ "/$loader" != "$interpreter" ]; then
  mkdir -p "$root$(dirname "$interpreter")"
  ln -s "/$loader" "$root$interpreter"
fi

mkdir -p "$root/etc/ssl/certs"
find "$work/debian/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat > "$root/etc/ssl/certs/ca-certificates.crt"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
echo 'tenantd:x:65532:65532::/data:/sbin/nologin' > "$root/etc/passwd"
echo 'tenantd:x:65532:' > "$root/etc/group"

install -D -m 644 "$here/LICENSE" "$root/usr/share/doc/tenantd/LICENSE"
case $architecture in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
esac
(cd "$here" && scripts/packaging/third_party_licences.py "$machine-unknown-linux-gnu") > "$root/usr/share/doc/tenantd/THIRD-PARTY-LICENCES.txt"
for package in libc6 ca-certificates; do
  copyright=$work/debian/usr/share/doc/$package/copyright
  install -D -m 644 "$copyright" "$root/usr/share/doc/$package/copyright"
done
mkdir -p "$root/data/tenants.d" "$root/data/state" "$root/data/certs"
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -path '*/etc/*' -exec chmod 644 {} +
