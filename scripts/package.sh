#!/usr/bin/env bash
# Makes everything that people install: a tarball, a .deb, a container image, the list of what is in
# them (SBOM, CycloneDX) and SHA256SUMS. The same commit gives the same bytes.
#
#   scripts/package.sh [--out DIR] [--target TRIPLE] [--profile NAME] [--allow-dirty] [--no-image]
#
# Tools are installed into a cache outside the clone (PACKAGE_CACHE). Nothing is fetched but
# packages from the registries of Debian, Python and Rust. scripts/test-packages.sh checks the result.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

out=$root/target/packages
target=$(rustc -vV | sed -n 's/^host: //p')
profile=dist
# Ubuntu 20.04 and Debian 11 have 2.31, RHEL 8 and Debian 10 have 2.28.
glibc=2.28
is_dirty_allowed=false
has_image=true
while [ $# -gt 0 ]; do
  case $1 in
    --out) mkdir -p "$2" && out=$(cd "$2" && pwd) && shift 2 ;;
    --target) target=$2 && shift 2 ;;
    --profile) profile=$2 && shift 2 ;;
    --allow-dirty) is_dirty_allowed=true && shift ;;
    --no-image) has_image=false && shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
done

cache=${PACKAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tenantd-packaging}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
case $target in
  x86_64-unknown-linux-gnu) machine=x86_64 architecture=amd64 ;;
  aarch64-unknown-linux-gnu) machine=aarch64 architecture=arm64 ;;
  *) echo "no packages are made for $target: only for x86_64-unknown-linux-gnu and aarch64-unknown-linux-gnu" >&2 && exit 2 ;;
esac
build=${CARGO_TARGET_DIR:-$root/target}
case $build in /*) ;; *) build=$root/$build ;; esac
# What Cargo.toml names as the .deb's files lies here, wherever Cargo builds.
files=$root/target/package-files

check_commit() {
  if [ -n "$(git status --porcelain)" ] && ! $is_dirty_allowed; then
    echo "the work tree has changes that are in no commit; commit them, or give --allow-dirty for a trial" >&2
    return 1
  fi
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
}

check_target() {
  if [ ! -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; then
    echo "Rust's standard library for $target is not installed, so nothing can be built for it here." >&2
    echo "Run this on a machine of that kind, or install it: rustup target add $target" >&2
    return 1
  fi
}

# Paths of this machine are written as fixed ones: they end up in panic messages and in C's __FILE__.
build_binary() {
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} maps=() flags=() map
  # The sources of Rust's library have this path where they are not installed.
  local rust_source
  rust_source=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')
  # The last that fits counts: the build folder may lie in the clone.
  maps=("$cargo_home=/cargo" "$(rustc --print sysroot)/lib/rustlib/src/rust=$rust_source" "$root=/tenantd" "$build=/target")
  local separator=$'\x1f' rust="" c=""
  for map in "${maps[@]}"; do
    rust+=${rust:+$separator}--remap-path-prefix=$map
    c+="-ffile-prefix-map=$map "
  done
  flags=(--locked --profile "$profile" --features kube --bin tenantd)
  # mimalloc says when it was compiled. The compiler's cache ignores SOURCE_DATE_EPOCH, so this is one time for all.
  c+='-Wno-builtin-macro-redefined -D__DATE__="1970-01-01" -D__TIME__="00:00:00"'
  PATH=$cache/zig/bin:$PATH CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild CARGO_INCREMENTAL=0 \
    CARGO_ENCODED_RUSTFLAGS=$rust CFLAGS=$c CARGO_PROFILE_DEV_STRIP=symbols CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo zigbuild "${flags[@]}" --target "$target.$glibc"
  local folder=$profile
  [ "$profile" = dev ] && folder=debug
  binary=$build/$target/$folder/tenantd
}

# The program describes itself. A foreign one cannot run here, so a build for this machine does.
describe() {
  local native=$binary
  if ! "$binary" --version >/dev/null 2>&1; then
    cargo build --locked --features kube --bin tenantd
    native=$build/debug/tenantd
  fi
  "$native" man "$files/man"
  mkdir -p "$files/completions"
  "$native" completions bash > "$files/completions/tenantd"
  "$native" completions zsh > "$files/completions/_tenantd"
  "$native" completions fish > "$files/completions/tenantd.fish"
}

collect_files() {
  rm -rf "$files"
  install -D -m 755 "$binary" "$files/bin/tenantd"
  describe
  scripts/packaging/third_party_licences.py "$target" > "$files/THIRD-PARTY-LICENCES.txt"
  mkdir -p "$files/systemd"
  cp deploy/systemd/tenantd.* "$files/systemd/"
  sed -i 's#^ExecStart=/usr/local/bin/#ExecStart=/usr/bin/#; /^# The .deb has it/d' "$files/systemd/tenantd.service"
  # Debian's own changelog, which its policy demands, leads to ours.
  cat > "$files/changelog" <<END
tenantd ($version-1) unstable; urgency=medium

  * The changes are in CHANGELOG.md.gz beside this file.

 -- tenantd maintainers <maintainers@tenantd.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
}

# Sorted, without owners, and with the time of the commit.
make_tar() {
  tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --mode=u+rwX,go+rX,go-w -C "$1" -cf - "$2" | gzip -n -9 > "$3"
}

make_tarball() {
  local name=tenantd-$version-linux-$machine folder
  folder=$(mktemp -d)
  local top=$folder/$name
  install -D -m 755 "$files/bin/tenantd" "$top/bin/tenantd"
  install -D -m 644 -t "$top/share/man/man1" "$files"/man/*.1
  install -D -m 644 "$files/completions/tenantd" "$top/share/bash-completion/completions/tenantd"
  install -D -m 644 "$files/completions/_tenantd" "$top/share/zsh/site-functions/_tenantd"
  install -D -m 644 "$files/completions/tenantd.fish" "$top/share/fish/vendor_completions.d/tenantd.fish"
  cp -r docs deploy certs README.md CHANGELOG.md SECURITY.md LICENSE "$files/THIRD-PARTY-LICENCES.txt" "$top/"
  find "$top/certs" -type f ! -name README.md -delete
  make_tar "$folder" "$name" "$out/$name.tar.gz"
  rm -rf "$folder"
}

make_deb() {
  # The tool reads CARGO_TARGET_DIR only to find what it would build itself.
  "$cache/cargo-deb/bin/cargo-deb" deb --no-build --no-strip --target "$target" --compress-system --locked --quiet \
    --output "$out/tenantd_$version-1_$architecture.deb"
}

make_image() {
  local name=$out/tenantd-$version-image-$architecture.tar store=$cache/containers tag=docker.io/library/tenantd:$version
  scripts/packaging/image-files.sh "$files/bin/tenantd" "$files/image" "$architecture"
  local tool=(buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs)
  rm -f "$name"
  # The Dockerfile compiles in a stage of its own, whose place these files take.
  "${tool[@]}" bud --quiet --isolation chroot --format docker --arch "$architecture" --timestamp "$SOURCE_DATE_EPOCH" \
    --build-context "files=$files/image" --build-arg "VERSION=$version" --file Dockerfile --tag "$tag" "$files" >/dev/null
  "${tool[@]}" push --quiet "$tag" "docker-archive:$name:$tag"
  "${tool[@]}" rmi "$tag" >/dev/null
  scripts/packaging/normalise_image.py "$name" "$name.gz"
  rm "$name"
}

# The tool writes beside Cargo.toml, and names this machine's folder.
make_sbom() {
  local name=package-sbom
  "$cache/cargo-cyclonedx/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --all --features kube --target "$target" \
    --override-filename "$name"
  sed "s#path+file://$root#path+file:///tenantd#g; s#file://$root#file:///tenantd#g" "$name.json" > "$out/tenantd-$version-$machine.cdx.json"
  rm "$name.json"
}

check_commit
check_target
scripts/packaging/install-tools.sh "$cache"
build_binary
mkdir -p "$out"
rm -f "$out"/tenantd* "$out/SHA256SUMS"
collect_files
make_tarball
make_deb
make_sbom
if $has_image; then
  make_image
fi
(cd "$out" && sha256sum tenantd* > SHA256SUMS)

printf '\n%s (glibc %s or newer) is in %s:\n' "$target" "$glibc" "$out"
(cd "$out" && ls -l --time-style=+ | awk 'NR > 1 { printf "%10d  %s\n", $5, $6 }')
for other in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do
  [ "$other" = "$target" ] || echo "not built: $other (run this on such a machine, or with --target $other where its standard library is installed)"
done
