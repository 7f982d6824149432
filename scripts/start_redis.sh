#!/usr/bin/env bash
# Starts a Redis of its own, for tests and for machines without one, and prints its URL.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=engines.sh
. "$root/scripts/engines.sh"

engine_arguments "usage: scripts/start_redis.sh --home DIR [--port N]

Starts Redis on 127.0.0.1 as a cache (nothing is written to disk, 256 MiB, the least recently used leaves) with its log and
password below DIR, and prints the URL with the password. scripts/stop_redis.sh --home DIR stops it." "$@"

require redis-server redis-server
require redis-cli redis-tools
if [ -s "$home/redis.pid" ] && kill -0 "$(cat "$home/redis.pid")" 2>/dev/null; then
  die "a Redis runs already in $home" "stop it with scripts/stop_redis.sh --home $home"
fi
password_file=$home/redis.password
[ -s "$password_file" ] || (umask 077 && random_password >"$password_file")
for _ in 1 2 3 4 5; do
  at=${port:-$(free_port)}
  # The configuration comes through standard input, so that no other user sees the password among the arguments.
  redis-server - >"$home/redis.start.log" 2>&1 <<CONF || true
bind 127.0.0.1
port $at
dir $home
pidfile $home/redis.pid
logfile $home/redis.log
daemonize yes
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
requirepass $(cat "$password_file")
CONF
  for _ in $(seq 100); do
    answer=$(REDISCLI_AUTH=$(cat "$password_file") redis-cli -h 127.0.0.1 -p "$at" ping 2>/dev/null || true)
    if [ "$answer" = PONG ]; then
      (umask 077 && printf 'redis://:%s@127.0.0.1:%s/0\n' "$(cat "$password_file")" "$at" >"$home/redis.url")
      cat "$home/redis.url"
      exit 0
    fi
    sleep 0.05
  done
  [ -z "$port" ] || break
done
die "Redis did not start" "$(tail -n 5 "$home/redis.log" 2>/dev/null || cat "$home/redis.start.log")"
