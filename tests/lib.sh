# Shared by tests/run and .ci/run: named, timed steps and their totals. Sourced, not run.

passed=0
failed=0
skipped=0
table=()
began=$SECONDS
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Adds up the closing lines of cargo test; a plain closing line, which our own runners print last,
# stands for everything above it.
count() {
  awk '
    /^test result: / { p += $4; f += $6; s += $8 }
    /^([a-z]+: )?[0-9]+ passed, [0-9]+ failed/ {
      sub(/^[a-z]+: /, ""); p = $1; f = $3 + 0; s = /skipped/ ? $5 : 0
    }
    END { print p + 0, f + 0, s + 0 }
  ' "$1"
}

# step NAME COMMAND…: runs it, shows its output, and enters its tests into the totals. A step that
# reports no tests counts as one; so does a step that fails without a failed test.
step() {
  local name=$1 log=$logs/$1 started=$SECONDS status=0 p f s
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$log" || status=$?
  read -r p f s < <(count "$log")
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  if [ "$status" -eq 0 ] && [ $((p + f)) -eq 0 ]; then p=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  table+=("$(printf '%-18s %6d s  %6d passed %4d failed %4d skipped' \
    "$name" $((SECONDS - started)) "$p" "$f" "$s")")
  return 0
}

# skip NAME REASON: a step that can't run here; it is counted and says why.
skip() {
  printf '\n== %s: skipped: %s\n' "$1" "$2"
  skipped=$((skipped + 1))
  table+=("$(printf '%-18s skipped: %s' "$1" "$2")")
}

# totals PREFIX: the table of steps with the time of all, then the closing line; fails if anything
# failed.
totals() {
  printf '\n'
  [ ${#table[@]} -eq 0 ] || printf '%s\n' "${table[@]}"
  printf '%-18s %6d s\n' "all of it" $((SECONDS - began))
  local line="$passed passed, $failed failed"
  [ "$skipped" -eq 0 ] || line+=", $skipped skipped"
  [ -z "${1:-}" ] || printf '%s: %s\n' "$1" "$line"
  printf '%s\n' "$line"
  [ "$failed" -eq 0 ]
}

# need COMMAND PACKAGE: makes sure that a command is there, from Debian's package if it is not.
need() {
  command -v "$1" >/dev/null 2>&1 || install_debian "$2"
}

install_debian() {
  local root=()
  if [ "${install:-yes}" = no ] || ! command -v apt-get >/dev/null 2>&1; then
    printf 'missing: install the equivalent of Debian'\''s package %s, then run this again\n' "$1" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
      printf 'missing: as root, run: apt-get install %s\n' "$1" >&2
      exit 1
    }
    root=(sudo)
  fi
  if [ -z "${apt_updated:-}" ]; then
    ${root[@]+"${root[@]}"} apt-get update -qq
    apt_updated=yes
  fi
  ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$1"
}
