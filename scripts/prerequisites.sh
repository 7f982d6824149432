# Sourced by the other scripts: makes sure that a tool is there, and says what it does about it.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$1" >&2
  shift
  for hint in "$@"; do printf '  %s\n' "$hint" >&2; done
  exit 1
}

# as_root COMMAND...: runs it with the rights that installing takes, or fails.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# require TOOL PACKAGE...: TOOL is on the path afterwards. Only what is missing is installed, and only where apt-get is.
require() {
  local tool=$1
  shift
  command -v "$tool" >/dev/null 2>&1 && return 0
  command -v apt-get >/dev/null 2>&1 ||
    die "$tool is missing" "install it with this system's package manager and try again"
  say "$tool is missing: installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null ||
    die "$tool is missing and apt-get update failed" "install $* and try again"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "$tool is missing and could not be installed" "install $* and try again"
  command -v "$tool" >/dev/null 2>&1 || die "$tool is still missing after installing $*"
}

# require_cargo: cargo is on the path afterwards, at a version that the workspace builds with.
require_cargo() {
  local cargo_bin=${CARGO_HOME:-$HOME/.cargo}/bin
  case ":$PATH:" in *":$cargo_bin:"*) ;; *) PATH=$cargo_bin:$PATH ;; esac
  require cc build-essential
  # librdkafka is built from source.
  require c++ build-essential
  require make build-essential
  if ! command -v cargo >/dev/null 2>&1; then
    require curl curl ca-certificates
    say "cargo is missing: installing rustup for $(id -un), as https://rustup.rs describes it"
    curl --proto '=https' --tlsv1.2 -sSf --retry 3 https://sh.rustup.rs |
      sh -s -- -y -q --profile minimal --default-toolchain none --no-modify-path >&2 ||
      die "rustup could not be installed" "install Rust (https://rustup.rs) and try again"
  fi
  # rust-toolchain.toml names the version; rustup fetches it at the first call.
  (cd "$(dirname "${BASH_SOURCE[0]}")/.." && cargo --version >&2) ||
    die "cargo does not run here" "the version that rust-toolchain.toml names could not be had"
}

# require_postgres: PG_BIN is the directory of the newest PostgreSQL's programs afterwards. Debian keeps them off the path.
require_postgres() {
  find_postgres && return 0
  command -v apt-get >/dev/null 2>&1 ||
    die "PostgreSQL is missing" "install it with this system's package manager and try again"
  say "PostgreSQL is missing: installing postgresql"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null ||
    die "PostgreSQL is missing and apt-get update failed" "install postgresql and try again"
  # A server for the whole machine is not wanted, only the programs.
  as_root install -D -m 644 /dev/stdin /etc/postgresql-common/createcluster.d/truenow.conf <<<"create_main_cluster = false"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null ||
    die "PostgreSQL is missing and could not be installed" "install postgresql and try again"
  find_postgres || die "PostgreSQL is still missing after installing postgresql"
}

# find_postgres: sets PG_BIN, or fails where there is none.
find_postgres() {
  local newest
  newest=$(find /usr/lib/postgresql -maxdepth 3 -name initdb 2>/dev/null | sort -V | tail -n 1)
  [ -n "$newest" ] || newest=$(command -v initdb) || return 1
  PG_BIN=$(dirname "$(readlink -f "$newest")")
}
