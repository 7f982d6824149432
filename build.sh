#!/usr/bin/env bash
# Builds TrueNow: target/release/truenow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/prerequisites.sh
. scripts/prerequisites.sh

case ${1:-} in
  "") ;;
  -h | --help)
    cat <<'HELP'
usage: ./build.sh

Builds target/release/truenow, the one program that TrueNow is. Needs a C compiler and cargo: on Debian and its
kin what is missing is installed (build-essential by apt-get, cargo by rustup), elsewhere the script says what to install.
HELP
    exit 0
    ;;
  *) die "unknown argument $1" "try ./build.sh --help" ;;
esac

require_cargo
cargo build --release --locked -p truenow
say "built $PWD/target/release/truenow"
