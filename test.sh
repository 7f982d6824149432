#!/usr/bin/env bash
# All tests of TrueNow. The last line sums up what really ran.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"
# shellcheck source=scripts/prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=scripts/server.sh
. scripts/server.sh

full=false
case ${1:-} in
  "") ;;
  --full) full=true ;;
  -h | --help)
    cat <<'HELP'
usage: ./test.sh [--full]

Runs format and lint checks, the layer check, unit, property and documentation tests, the event log on a Kafka that it starts, the
suites on a PostgreSQL and a Redis, the loom models, simulated faults of 500 seeds, then a real server against real data, kill -9
with checkpoints intact and damaged, a cluster of processes of which parts die or are cut off, the black-box queries and, where
../shared/acceptance is, random questions against an oracle of their own, with the event log on disk and on Kafka. At most 35
minutes on two cores. What is missing (a compiler, cargo, curl, jq, zstd, Java, Maven, PostgreSQL, Redis) is installed where
apt-get is.

  --full   also the long ones: more seeds, more crashes, more events, interfaces fuzzed by their OpenAPI documents (schemathesis,
           where it can be had), licences, sources and advisories of all dependencies (cargo-deny)

The last line is "N passed, M failed", counted over checks and tests; exit code 0 only if nothing failed.
HELP
    exit 0
    ;;
  *) die "unknown argument $1" "try ./test.sh --help" ;;
esac

require_cargo
require curl curl ca-certificates
require jq jq
require zstd zstd
out=$(mktemp -d)
# Where the server of a step lives; empty: none runs.
home=
# end_server: stops the server of the step, if there is one, and removes its files.
end_server() {
  local ended=$home code=0
  [ -n "$ended" ] || return 0
  home=
  ./stop-services.sh --home "$ended" || code=$?
  rm -rf "$ended"
  return "$code"
}
trap 'rm -rf "$out"' EXIT
# An interrupted run ends by way of EXIT too.
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0
failed=0
skipped=0
failures=()

# step NAME COMMAND...: runs it and counts: the tests that it reports, or else itself.
step() {
  local name=$1 began code=0 log n
  shift
  log=$out/$(tr -c 'a-zA-Z0-9\n' _ <<<"$name")
  began=$SECONDS
  # tee outlives an interrupt, so that a step can still say how it cleaned up.
  printf '== %s\n' "$name"
  "$@" 2>&1 | tee -i "$log" || code=$?
  # Lines of cargo ("test result: ok. 3 passed; 0 failed; ...") and of our scripts ("3 passed, 0 failed, 1 skipped").
  read -r p f s < <(awk '
    /^test result:/ { p += $4; f += $6; next }
    /^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; if ($6 ~ /^skipped/) s += $5 }
    END { print p + 0, f + 0, s + 0 }' "$log")
  if [ "$code" != 0 ] && [ "$f" = 0 ]; then f=1; fi
  if [ "$code" = 0 ] && [ "$p" = 0 ]; then p=1; fi
  passed=$((passed + p))
  failed=$((failed + f))
  skipped=$((skipped + s))
  [ "$f" = 0 ] || failures+=("$name")
  n=$((SECONDS - began))
  printf '== %s: %s passed, %s failed (%s s)\n' "$name" "$p" "$f" "$n"
}

# left_out NAME WHY: said loudly, and counted.
left_out() {
  skipped=$((skipped + 1))
  printf '== SKIPPED %s: %s\n' "$1" "$2"
}

# on_a_server COMMAND...: runs it against a server of its own, which is gone afterwards however the command ends.
on_a_server() {
  local offset=22400 service port code=0
  # A server that an earlier run left behind would answer in the place of the one that is to be tested.
  for service in $SERVICES; do
    port=$((${service#*:} + offset))
    if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      die "something answers on port $port already" "a server of an earlier run? end it and try again"
    fi
  done
  # The step runs in a subshell, which inherits no traps.
  trap end_server EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  home=$(mktemp -d)
  ./start-services.sh --home "$home" --port-offset "$offset" || code=$?
  if [ "$code" = 0 ]; then "$@" --port-offset "$offset" || code=$?; fi
  end_server || code=$?
  return "$code"
}

# on_kafka COMMAND...: runs it with a Kafka of its own for the event log, which is gone afterwards however the command ends.
on_kafka() {
  local code=0
  kafka=$(mktemp -d)
  trap 'scripts/stop_kafka.sh --home "$kafka" --remove' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # In a subshell of its own, for what it runs may set traps too.
  (
    TRUENOW_EVENT_LOG_KAFKA_BROKERS=$(scripts/start_kafka.sh --home "$kafka") || exit
    export TRUENOW_EVENT_LOG_KAFKA_BROKERS
    "$@"
  ) || code=$?
  return "$code"
}

# acceptance [--on-kafka] ARGUMENTS...: random questions about real events, held against a naive oracle, with a seed that is said.
acceptance() {
  local runner=(on_a_server) name
  if [ "$1" = --on-kafka ]; then
    runner=(on_kafka on_a_server)
    shift
    name="acceptance on Kafka, $*"
  else
    name="acceptance, $*"
  fi
  if [ ! -f ../shared/acceptance/acceptance.py ] || [ ! -d ../shared/data ]; then
    left_out "$name" "there is no ../shared/acceptance, or no ../shared/data"
  elif ! command -v python3 >/dev/null; then
    left_out "$name" "python3 is not installed"
  else
    step "$name" "${runner[@]}" ask_at_random --seed "$((RANDOM * 32768 + RANDOM))" "$@"
  fi
}

# ask_at_random ARGUMENTS... --port-offset N: as on_a_server calls it; the script takes addresses.
ask_at_random() {
  local arguments=("${@:1:$#-2}") offset=${*: -1} addresses=() service name
  for service in $SERVICES; do
    name=${service%%:*}
    case $name in
      gateway | watermark) addresses+=("--$name") ;;
      query-api) addresses+=(--query) ;;
      control-plane) addresses+=(--control) ;;
      *) continue ;;
    esac
    addresses+=("http://127.0.0.1:$((${service#*:} + offset))")
  done
  printf 'acceptance.py %s\n' "${arguments[*]}"
  python3 ../shared/acceptance/acceptance.py --data ../shared/data "${arguments[@]}" "${addresses[@]}"
}

# The fuzzer of HTTP interfaces by their OpenAPI documents; pinned, so that a run can be repeated.
SCHEMATHESIS=schemathesis==4.32.5

# interfaces: each service is asked what its OpenAPI document allows and what it does not, with a seed that is said.
interfaces() {
  local venv=$out/schemathesis
  if ! python3 -m venv "$venv" >"$out/venv.log" 2>&1; then
    left_out "interfaces" "python3 cannot make a virtual environment (Debian and Ubuntu: python3-venv)"
  elif ! "$venv/bin/pip" install --quiet --disable-pip-version-check "$SCHEMATHESIS" >>"$out/venv.log" 2>&1; then
    left_out "interfaces" "$SCHEMATHESIS could not be installed: $(tail -n 1 "$out/venv.log")"
  else
    step "interfaces" on_a_server fuzz_interfaces "$venv/bin/schemathesis" "$((RANDOM * 32768 + RANDOM))"
  fi
}

# fuzz_interfaces PROGRAM SEED --port-offset N: as on_a_server calls it.
fuzz_interfaces() {
  local program=$1 seed=$2 offset=$4 service failed=0 passed=0
  local checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
  for service in $SERVICES; do
    printf '%s, seed %s\n' "${service%%:*}" "$seed"
    # Its working directory gets what it remembers of a run.
    if (cd "$out" && "$program" --no-color --config-file "$root/scripts/schemathesis.toml" run --checks "$checks" --seed "$seed" \
      --max-examples 100 --phases coverage,fuzzing "http://127.0.0.1:$((${service#*:} + offset))/openapi.json"); then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
    fi
  done
  printf '%s passed, %s failed\n' "$passed" "$failed"
  [ "$failed" = 0 ]
}

if cargo fmt --version >/dev/null 2>&1; then
  step "format" cargo fmt --all --check
else
  left_out "format" "rustfmt is not installed"
fi
if cargo clippy --version >/dev/null 2>&1; then
  step "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
else
  left_out "lints" "clippy is not installed"
fi
step "unit, property and layer tests" cargo test --locked --workspace --no-fail-fast
step "event log on Kafka" scripts/test_kafka.sh
step "metadata on PostgreSQL, results in Redis" scripts/test_engines.sh
if [ -x scripts/check-loom.sh ]; then step "loom models" scripts/check-loom.sh; fi
seeds=0..500
if $full; then seeds=0..5000; fi
step "simulator" cargo run --locked --quiet -p simulator -- --seeds "$seeds"

step "build" ./build.sh
real=(scripts/test_real_data.sh)
if [ -d ../shared/data ]; then real+=(--data ../shared/data); fi
step "real data" on_a_server "${real[@]}"
step "a server on PostgreSQL and Redis" scripts/test_engines.sh --server --acceptance 40
parts=(--scenario "node,services,zombie,kafka,postgres,redis,cut,rolling,half")
if $full; then parts=(); fi
step "a cluster of which parts die" scripts/test_cluster.sh --acceptance 40 ${parts[@]+"${parts[@]}"}
step "crashes with a planted fault" scripts/test_crash.sh --rounds 5 --plant short-window
# The log keeps as little as it may, so that nothing but the older checkpoint can stand in for a damaged one.
step "crashes with damaged checkpoints" scripts/test_crash.sh --rounds 20 --damage-checkpoints \
  --set TRUENOW_HOT_TIER_CHECKPOINT_INTERVAL_MS=300 --set TRUENOW_EVENT_LOG_RETENTION_BYTES_MIN=0 \
  --set TRUENOW_EVENT_LOG_SEGMENT_BYTES=1048576
if $full; then
  step "a hundred million ids" cargo test --locked -p id-store --test millions -- --ignored
  step "a thousand moves" cargo test --locked -p truenow --bin truenow a_thousand_moves -- --ignored --nocapture
  step "crashes" scripts/test_crash.sh --rounds 200
  step "tokens" scripts/test_system.sh tokens --pairs 10000
  step "overload" scripts/test_system.sh overload
  step "duplicates" scripts/test_system.sh duplicates
  step "full disk" scripts/test_disk_full.sh
  step "queries" ./test_queries.sh --events 2000000
  acceptance --queries 500
  acceptance --copies 20 --queries 40
  acceptance --on-kafka --queries 100
  interfaces
  if cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny; then
    step "dependencies" cargo deny --locked check bans licenses sources
    if cargo deny fetch db >"$out/advisories.log" 2>&1; then
      step "advisories" cargo deny --locked check advisories
    else
      left_out "advisories" "their database could not be fetched: $(grep . "$out/advisories.log" | tail -n 1)"
    fi
  else
    left_out "dependencies" "cargo-deny could not be installed"
  fi
else
  step "crashes" scripts/test_crash.sh --rounds 20
  step "tokens" scripts/test_system.sh tokens --pairs 1000
  step "queries" ./test_queries.sh
  acceptance --queries 100
  acceptance --on-kafka --queries 40
fi

for name in ${failures[@]+"${failures[@]}"}; do printf 'failed: %s\n' "$name"; done
printf '%s passed, %s failed' "$passed" "$failed"
[ "$skipped" = 0 ] || printf ', %s skipped' "$skipped"
printf '\n'
[ "$failed" = 0 ]
