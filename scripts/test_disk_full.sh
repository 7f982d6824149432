#!/usr/bin/env bash
# A full disk under the real server: 503 until there is room, nothing acked is lost. Mounts a small file system in memory.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=checks.sh
. "$root/scripts/checks.sh"

disk=$(mktemp -d)
finish() {
  as_root umount "$disk" 2>/dev/null || true
  rmdir "$disk"
}
trap finish EXIT
if ! as_root mount -t tmpfs -o "size=64m,mode=0777" tmpfs "$disk" 2>/dev/null; then
  skip "a full disk: no file system can be mounted here (it takes root)"
  summary
  exit
fi
"$root/scripts/test_system.sh" disk-full --disk "$disk" "$@"
