#!/usr/bin/env bash
# Stops the Redis that scripts/start_redis.sh started.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=engines.sh
. "$root/scripts/engines.sh"

engine_arguments "usage: scripts/stop_redis.sh --home DIR" "$@"
rm -f "$home/redis.url"
[ -s "$home/redis.pid" ] || exit 0
pid=$(cat "$home/redis.pid")
# A process id is reused sooner or later, so its name has to be right too.
[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = redis-server ] || exit 0
kill "$pid"
for _ in $(seq 200); do
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.05
done
die "Redis (process $pid) does not end"
