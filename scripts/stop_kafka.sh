#!/usr/bin/env bash
# Stops the Kafka that scripts/start_kafka.sh started.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=kafka.sh
. "$root/scripts/kafka.sh"

home=
remove=false
while [ $# -gt 0 ]; do
  case $1 in
    --home)
      [ $# -ge 2 ] || die "$1 needs a value"
      home=$2
      shift
      ;;
    --remove) remove=true ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/stop_kafka.sh --home DIR [--remove]

Stops the brokers that scripts/start_kafka.sh started there; those that do not end in 30 s are killed.

  --remove   then removes DIR and all that they hold
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/stop_kafka.sh --help" ;;
  esac
  shift
done
[ -n "$home" ] || die "--home is missing" "try scripts/stop_kafka.sh --help"
[ -d "$home" ] || exit 0
home=$(cd "$home" && pwd)

# The controller is the first broker: the others say goodbye to it, so it goes last.
for ((n = 9; n >= 1; n--)); do
  broker_files "$home" "$n"
  pid=$(broker_pid) || continue
  if $remove; then kill -KILL "$pid"; else kill -TERM "$pid"; fi
  for ((try = 0; try < 300; try++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$BROKER_PID_FILE"
done
if $remove; then rm -rf "$home"; fi
