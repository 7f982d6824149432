#!/usr/bin/env bash
# Stops what start-services.sh started.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/server.sh
. "$root/scripts/server.sh"
# shellcheck source=scripts/cluster.sh
. "$root/scripts/cluster.sh"

home=$root
while [ $# -gt 0 ]; do
  case $1 in
    --home)
      [ $# -ge 2 ] || die "--home needs a directory"
      home=$2
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: ./stop-services.sh [--home DIR]

Asks the server, or each process of a cluster and then its engines, to end (SIGTERM): it admits nothing more, finishes what is under way, flushes and exits. Waits up to
60 s for that. Data stays under DIR/data. Exit code 0 if no server runs afterwards and it ended well.

  --home DIR   as given to start-services.sh [default: the repository]
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try ./stop-services.sh --help" ;;
  esac
  shift
done

if [ -s "$home/run/cluster" ]; then
  cluster_stop "$home" || die "not all of the cluster ended well"
  rm -f "$home/run/cluster"
  say "stopped; the data stays in $home/data and $home/engines"
  exit 0
fi
server_files "$home"
if ! pid=$(server_pid); then
  say "no server runs under $home"
  rm -f "$PID_FILE"
  exit 0
fi
kill -TERM "$pid"
for _ in $(seq 600); do
  server_pid >/dev/null || break
  sleep 0.1
done
if server_pid >/dev/null; then
  die "the server (process $pid) did not end within 60 s" "its log: $LOG_FILE" "to end it by force: kill -9 $pid (what was acked is kept)"
fi
rm -f "$PID_FILE"
# The exit code is written just after the process is gone.
for _ in $(seq 20); do
  [ -s "$EXIT_FILE" ] && break
  sleep 0.1
done
code=$(cat "$EXIT_FILE" 2>/dev/null || echo unknown)
[ "$code" = 0 ] || die "the server ended with exit code $code" "its log: $LOG_FILE"
say "stopped; the data stays in $DATA_DIR"
