#!/usr/bin/env bash
# Proofs against the real server that build.sh left: `scripts/test_system.sh --help` lists them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"

require_cargo
cd "$root"
exec cargo run --locked --quiet -p system -- "$@"
