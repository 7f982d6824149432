#!/usr/bin/env bash
# A cluster of processes on Kafka, PostgreSQL and Redis of its own, whose parts die one after the other under ingest and questions.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=checks.sh
. scripts/checks.sh

offset=22800
queries=0
while [ $# -gt 0 ]; do
  case $1 in
    --acceptance | --port-offset)
      [ $# -ge 2 ] || die "$1 needs a number"
      if [ "$1" = --acceptance ]; then queries=$2; else offset=$2; fi
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/test_cluster.sh [--acceptance N] [--port-offset N]

Starts a cluster of 3 nodes, 2 gateways and 2 query APIs (BIN: with another program than the one that build.sh makes), and its
engines. Then each kind of process is killed, a node stopped for 30 s and restarted in order, and each engine is away for 20 s,
while scripts/cluster_under_load.py sends events and asks. Needs python3.

  --acceptance N    before that N random questions per set of events, where ../shared/acceptance is
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/test_cluster.sh --help" ;;
  esac
  shift
done
require python3 python3
home=$(mktemp -d)
# PostgreSQL runs as a user of its own where this is root, and has to enter it.
chmod 711 "$home"
finish() {
  ./stop-services.sh --home "$home" || true
  rm -rf "$home"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() { ./start-services.sh --cluster --home "$home" --port-offset "$offset" 2>/dev/null; }
signal() { kill "-$2" "$(cat "$home/run/$1.pid")"; }

# The disturbances; each ends when all is there again.
kill_one() { signal "$1" KILL && sleep "$2" && start; }
restart_one() { signal "$1" TERM && sleep 3 && start; }
freeze() { signal "$1" STOP && sleep "$2" && signal "$1" CONT; }
freeze_process() { kill -STOP "$1" && sleep "$2" && kill -CONT "$1"; }
stop_postgres() {
  local port
  port=$(sed 's/.*://; s|/.*||' "$home/engines/postgres/postgres.url")
  scripts/stop_postgres.sh --home "$home/engines/postgres" && sleep 20 &&
    scripts/start_postgres.sh --home "$home/engines/postgres" --port "$port"
}

# under_load NAME EXPECTATION... -- DISTURBANCE...
under_load() {
  local name=$1 expected=()
  shift
  while [ "$1" != -- ]; do
    expected+=("$1")
    shift
  done
  shift
  if scripts/cluster_under_load.py --port-offset "$offset" ${expected[@]+"${expected[@]}"} "$name" bash -c \
    "$(declare -f start signal "$1"); set -e; home=$home offset=$offset; $*"; then pass; else fail "$name"; fi
}

start
if [ "$queries" -gt 0 ] && [ -f ../shared/acceptance/acceptance.py ] && [ -d ../shared/data ]; then
  seed=$((RANDOM * 32768 + RANDOM))
  say "acceptance.py --seed $seed --queries $queries"
  at() { printf 'http://127.0.0.1:%s' $(($1 + offset)); }
  python3 ../shared/acceptance/acceptance.py --data ../shared/data --seed "$seed" --queries "$queries" --gateway "$(at 8188)" \
    --query "$(at 8181)" --watermark "$(at 8084)" --control "$(at 8001)" || fail "acceptance"
fi
under_load "a node killed" --new-map-within 5 -- kill_one hot-tier-1 8
under_load "a node stopped for 30 s" --new-map-within 5 -- freeze hot-tier-2 30
under_load "a node restarted in order" --same-map -- restart_one hot-tier-3
under_load "the control plane killed for 8 s" --same-map -- kill_one control-plane 8
under_load "the rebalancer killed" --same-map -- kill_one rebalancer 3
under_load "the watermark killed" --same-map -- kill_one watermark 3
under_load "a gateway killed" --same-map -- kill_one gateway-1 3
under_load "a query API killed" --same-map -- kill_one query-api-1 3
under_load "PostgreSQL away for 20 s" --same-map -- stop_postgres
under_load "Redis away for 20 s" --same-map -- freeze_process "$(cat "$home/engines/redis/redis.pid")" 20
under_load "Kafka away for 20 s" --same-map --may-refuse -- freeze_process "$(cat "$home/engines/kafka/broker-1.pid")" 20
summary
