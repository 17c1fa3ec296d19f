#!/usr/bin/env bash
# Builds the default extractor to `extractor.wasm` and writes its SHA-256 beside it.
#
#   build.sh            build, replace extractor.wasm and extractor.wasm.sha256
#   build.sh --check    build into a temporary directory and compare with the committed checksum
#
# The same compiler gives the same bytes on any machine: every path is remapped. The committed module
# is built by the compiler named in extractor.wasm.sha256; another one gives other bytes for the same
# behaviour, so --check says which compiler it found and exits 2 when it is not that one.
#
# Compiler: rustup's wasm32-unknown-unknown target where WASM_RUSTC=rustup asks for it, else Debian's
# rustc-web with rust-web-src, unpacked (not installed) into a cache directory and used with
# -Zbuild-std; cargo and rust-lld are those of the Rust at hand.
set -euo pipefail

guest=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$guest/../../.." && pwd)
cache=${FOREBAY_WASM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay-wasm-toolchain}
debian=$cache/root
target=wasm32-unknown-unknown
profile_env=(
  CARGO_PROFILE_RELEASE_OPT_LEVEL=3
  CARGO_PROFILE_RELEASE_LTO=fat
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
  CARGO_PROFILE_RELEASE_PANIC=abort
  CARGO_PROFILE_RELEASE_STRIP=symbols
  CARGO_PROFILE_RELEASE_DEBUG=false
)

say() { printf '%s\n' "$*" >&2; }

# Unpacks Debian's newest rustc-web; only std's own sources, not the compiler's.
fetch_debian() {
  [ -x "$debian/usr/bin/rustc" ] && [ -f "$cache/complete" ] && return
  local version upstream series llvm deb
  version=$(apt-cache policy rustc-web | awk '/Candidate/{print $2}')
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    say "no rustc-web known to apt: run 'apt-get update' on Debian 12 or newer, or install rustup's target and set WASM_RUSTC=rustup"
    exit 1
  fi
  upstream=${version%%+*}
  series=${upstream%.*}
  llvm=$(apt-cache depends "libstd-rust-web-$series=$version" | awk '/Depends: libllvm/{print $2}')
  rm -rf "$cache"
  mkdir -p "$cache/debs" "$debian"
  (cd "$cache/debs" && apt-get download "rustc-web=$version" "libstd-rust-web-$series=$version" \
    "libstd-rust-web-dev=$version" "rust-web-src=$version" "$llvm" libz3-4 >&2)
  for deb in "$cache"/debs/{rustc-web,libstd-rust-web-,libllvm,libz3-4}*.deb; do
    dpkg -x "$deb" "$debian"
  done
  dpkg --fsys-tarfile "$cache"/debs/rust-web-src_*.deb |
    tar -x -C "$debian" "./usr/src/rustc-$upstream/library" ./usr/lib/rustlib/src
  touch "$cache/complete"
}

# Sets $rustc, $std and the array build_std.
choose_compiler() {
  build_std=()
  if [ "${WASM_RUSTC:-debian}" = rustup ]; then
    rustc=$(rustup which rustc)
    std=$("$rustc" --print sysroot)/lib/rustlib/src/rust
    return
  fi
  fetch_debian
  rustc=$cache/rustc
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
    "$debian/usr/lib/x86_64-linux-gnu" "$debian/usr/bin/rustc" >"$rustc"
  chmod +x "$rustc"
  std=$(readlink -f "$debian/usr/lib/rustlib/src/rust")
  build_std=(-Zbuild-std=std,panic_abort)
}

# The host checks the time at every function's entry and every turn of a loop: more inlining and
# unrolling than is usual make fewer of them (4 to 7 % of a page).
llvm_args='-Cllvm-args=-inline-threshold=600 -Cllvm-args=-unroll-runtime -Cllvm-args=-unroll-allow-partial -Cllvm-args=-unroll-threshold=300'

# build TARGET_DIR: prints the path of the module.
build() {
  local lld registry remap
  lld=$(dirname "$(rustup which rustc 2>/dev/null || command -v rustc)")/../lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
  [ -x "$lld" ] || lld=$(command -v wasm-ld || command -v rust-lld || echo rust-lld)
  registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
  # The registry's folder carries a hash of its address, so each is remapped by itself.
  remap="--remap-path-prefix=$debian/usr=/rust --remap-path-prefix=$std=/rust/src"
  remap+=" --remap-path-prefix=$cache=/toolchain --remap-path-prefix=$1=/target --remap-path-prefix=$root=/forebay"
  remap+=" --remap-path-prefix=$registry=/registry"
  for folder in "$registry"/*/; do remap+=" --remap-path-prefix=${folder%/}=/registry"; done
  (
    cd "$root"
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER CARGO_BUILD_TARGET
    env "${profile_env[@]}" RUSTC="$rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$1" \
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$lld" \
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+bulk-memory $llvm_args $remap" \
      cargo build --locked --release -p forebay-extractor --lib --target "$target" ${build_std[@]+"${build_std[@]}"} >&2
  )
  echo "$1/$target/release/forebay_extractor.wasm"
}

choose_compiler
version=$("$rustc" --version)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
module=$(build "${FOREBAY_WASM_TARGET_DIR:-$work}")
sum=$(sha256sum "$module" | cut -d' ' -f1)
if [ "${1:-}" = --check ]; then
  read -r want _ <"$guest/extractor.wasm.sha256"
  built_by=$(sed -n 's/^# //p' "$guest/extractor.wasm.sha256")
  committed=$(sha256sum "$guest/extractor.wasm" | cut -d' ' -f1)
  [ "$committed" = "$want" ] || { say "extractor.wasm is not what extractor.wasm.sha256 says"; exit 1; }
  [ "$sum" = "$want" ] && { say "same: $sum"; exit 0; }
  [ "$version" = "$built_by" ] || { say "cannot compare: committed by '$built_by', here '$version'"; exit 2; }
  say "differs: the sources give $sum, committed is $want; run build.sh"
  exit 1
fi
cp "$module" "$guest/extractor.wasm"
printf '%s  extractor.wasm\n# %s\n' "$sum" "$version" >"$guest/extractor.wasm.sha256"
say "$sum $(stat -c %s "$guest/extractor.wasm") bytes, by $version"
