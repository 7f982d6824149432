#!/usr/bin/env bash
# What each stage on the way from one process to a cluster costs, with columns with ids as fast as acks come: one process with the
# log on its disk, the same on Kafka, each service a process, a second replica, and a cluster of the size of the tests. Then whether two
# gateways keep one limit over 30 s under a load of 95 : 5. Prints the tables of docs/scale.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=server.sh
. scripts/server.sh
# shellcheck source=cluster.sh
. scripts/cluster.sh

offset=24800
seconds=30
limit=50000
dir=
parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --port-offset | --seconds | --limit | --dir)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in --port-offset) offset=$2 ;; --seconds) seconds=$2 ;; --limit) limit=$2 ;; *) dir=$2 ;; esac
      shift
      ;;
    stages | limit) parts+=("$1") ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/bench_cluster.sh [--seconds N] [--limit N] [--port-offset N] [--dir DIR] [stages] [limit]

  stages           events per second and processor time, stage by stage
  limit            what two gateways admit of --limit events per second, of which four times as many are offered
  --seconds N      of sending per stage [default: 30]
  --limit N        [default: 50000]
  --dir DIR        where data lies meanwhile, some GB [default: the system's]

BIN: another program than the one that build.sh makes.
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/bench_cluster.sh --help" ;;
  esac
  shift
done
if [ ${#parts[@]} -eq 0 ]; then parts=(stages limit); fi
require curl curl ca-certificates
require jq jq
bin=${BIN:-$root/target/release/truenow}
[ -x "$bin" ] || ./build.sh
export BIN=$bin
work=$(mktemp -d ${dir:+-p "$dir"})
chmod 711 "$work"
home=
# end_stage: stops what the stage started, and removes its data.
end_stage() {
  [ -n "$home" ] || return 0
  if [ -d "$home/run" ]; then ./stop-services.sh --home "$home" 2>/dev/null || true; fi
  if [ -d "$home/kafka" ]; then scripts/stop_kafka.sh --home "$home/kafka" >/dev/null || true; fi
  rm -rf "$home"
  home=
}
finish() {
  end_stage
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# processes: prints a line per process of the stage, Kafka included: its kind and its id.
processes() {
  local file
  for file in "$home"/run/*.pid; do
    printf '%s %s\n' "$(basename "$file" .pid | sed 's/-[0-9]*$//')" "$(cat "$file")"
  done
  for file in "$home"/kafka/broker-*.pid "$home"/engines/kafka/broker-*.pid; do
    if [ -s "$file" ]; then printf 'Kafka %s\n' "$(cat "$file")"; fi
  done
}

# used: prints a line per kind of process of the stage: its name and the processor time of all of them, ns.
used() {
  local kind pid ticks
  ticks=$(getconf CLK_TCK)
  while read -r kind pid; do
    # The name in parentheses may have spaces.
    sed 's/.*) //' "/proc/$pid/stat" | awk -v kind="$kind" -v ticks="$ticks" '{ print kind, ($12 + $13) * 1000000000 / ticks }'
  done < <(processes) | awk '{ sum[$1] += $2 } END { for (kind in sum) print kind, sum[kind] }'
}

# at PORT: the URL of a service of the stage.
at() { printf 'http://127.0.0.1:%s' $(($1 + offset)); }

# applied TABLE: waits until all events of a table have been applied.
applied() {
  local left
  for ((try = 0; try < 600; try++)); do
    left=$(curl -s --noproxy '*' "$(at 8084)/v1/ledger/bench/$1" | jq .in_flight)
    if [ "$left" = 0 ]; then return; fi
    sleep 0.1
  done
  die "of table $1 $left events are not applied"
}

# measure NAME: a row of the table of stages.
measure() {
  local before after report events taken began table=t$RANDOM
  # What is mapped and compiled at the first use, and the first checkpoint's plan, are none of the stage's cost.
  "$bin" bench --port-offset "$offset" --ids --table "$table" --seconds 3 --json >/dev/null
  applied "$table"
  before=$(used)
  began=$(date +%s%N)
  table=t$RANDOM
  report=$("$bin" bench --port-offset "$offset" --ids --table "$table" --seconds "$seconds" --json)
  applied "$table"
  taken=$(($(date +%s%N) - began))
  after=$(used)
  events=$(jq .events <<<"$report")
  if ! "$bin" verify --port-offset "$offset" >"$work/verify" 2>&1; then die "$1: $(cat "$work/verify")"; fi
  printf '%s\n' "$before" -- "$after" | awk -v name="$1" -v events="$events" -v taken="$taken" -v acks="$(jq -r '"\(.ack_us.p50 / 1000) \(.ack_us.p99 / 1000)"' <<<"$report")" '
    function cost(kind) { return (after[kind] - before[kind]) / events }
    $1 == "--" { behind = 1; next }
    behind { after[$1] = $2; next }
    { before[$1] = $2 }
    END {
      split(acks, ack, " ")
      for (kind in after) { all += cost(kind); if (kind !~ /^(truenow|gateway|hot-tier|Kafka)$/) others += cost(kind) }
      # What the others use goes by time and not by events.
      printf "| %s | %.0f | %.1f, %.1f | %.0f | %.0f | %.0f | %.0f | %.0f %% |\n", name, events / taken * 1e9, ack[1], ack[2],
        cost("truenow") + cost("gateway"), cost("hot-tier"), cost("Kafka"), all, others * events / taken * 100
    }'
}

# quietly COMMAND...: runs it without what it says, unless it fails.
quietly() { "$@" 2>"$work/said" || die "$1 failed" "$(tail -n 20 "$work/said")"; }

# of_one NAME [on-kafka]: measures one process.
of_one() {
  home=$(mktemp -d -p "$work")
  (
    if [ "${2:-}" = on-kafka ]; then
      TRUENOW_EVENT_LOG_KAFKA_BROKERS=$(quietly scripts/start_kafka.sh --home "$home/kafka")
      export TRUENOW_EVENT_LOG_KAFKA_BROKERS
    fi
    quietly ./start-services.sh --home "$home" --port-offset "$offset"
  )
  measure "$1"
  end_stage
}

# of_many NAME REPLICAS ARGUMENT...: measures a cluster.
of_many() {
  local name=$1 replicas=$2
  shift 2
  start_many "$replicas" "$@"
  measure "$name"
  end_stage
}

# start_many REPLICAS ARGUMENT...: starts a cluster.
start_many() {
  home=$(mktemp -d -p "$work")
  chmod 711 "$home"
  export TRUENOW_CLUSTER_REPLICAS=$1
  quietly ./start-services.sh --cluster --home "$home" --port-offset "$offset" "${@:2}"
  unset TRUENOW_CLUSTER_REPLICAS
}

stages() {
  export GATEWAY_RATE_LIMIT=1000000000
  printf '| stage | events/s, applied everywhere | ack p50, p99, ms | one process, or gateways, ns an event | hot tier | Kafka | all | other services, of a core |\n'
  printf '|---|---|---|---|---|---|---|---|\n'
  of_one "one process, log on its disk"
  of_one "its log on Kafka" on-kafka
  of_many "each service a process" 1 --nodes 1 --gateways 1 --query-apis 1
  of_many "a second replica" 2 --nodes 2 --gateways 1 --query-apis 1
  of_many "3 nodes, 2 gateways, 2 query APIs" 2
}

# offer OF_100 PORTS: offers a share of four times the limit to the gateway whose ports are PORTS higher.
offer() {
  "$bin" bench --gateway "$(at $((8088 + $2)))" --gateway-grpc "$(at $((9088 + $2)))" --ingester-grpc "$(at 9100)" --query-api "$(at 8081)" \
    --control "$(at 8001)" --watermark "$(at 8084)" --ids --open-loop --rate $((limit * 4 * $1 / 100)) --batch 100 --connections 8 \
    --window 64 --seconds 45 --json >/dev/null
}

# taken PORTS: how many events the gateway whose ports are PORTS higher has taken.
taken() {
  curl -s --noproxy '*' "$(at $((8088 + $1)))/metrics" |
    awk '/^truenow_ingest_events_total\{.*result="accepted"/ { sum += $NF } END { printf "%.0f\n", sum }'
}

keep_limit() {
  local most few began now most_before few_before most_after few_after
  export GATEWAY_RATE_LIMIT=$limit
  start_many 2
  offer 95 0 &
  most=$!
  offer 5 100 &
  few=$!
  # Both prepare their events first; then shares settle within 2 s.
  until [ "$(taken 0)" -gt 0 ] && [ "$(taken 100)" -gt 0 ]; do sleep 0.1; done
  sleep 5
  began=$(date +%s%N) most_before=$(taken 0) few_before=$(taken 100)
  sleep 30
  now=$(date +%s%N) most_after=$(taken 0) few_after=$(taken 100)
  wait "$most" "$few"
  end_stage
  printf '| limit, events/s | seconds | 95 %% of the load, events | 5 %% | both, of the limit | allowed: 99 %% to 101 %%, and one burst of 1 s |\n'
  printf '|---|---|---|---|---|---|\n'
  awk -v limit="$limit" -v s="$((now - began))" -v most=$((most_after - most_before)) -v few=$((few_after - few_before)) 'BEGIN {
    s /= 1e9; all = most + few; least = limit * s * 0.99; greatest = limit * s * 1.01 + limit; kept = all >= least && all <= greatest
    printf "| %d | %.2f | %d | %d | %.2f %% | %d to %d: %s |\n", limit, s, most, few, all / limit / s * 100, least, greatest,
      kept ? "kept" : "NOT KEPT"
    exit !kept
  }'
}

say "load: $(cut -d' ' -f1-4 /proc/loadavg)"
for part in "${parts[@]}"; do
  case $part in stages) stages ;; limit) keep_limit ;; esac
done
say "load: $(cut -d' ' -f1-4 /proc/loadavg)"
