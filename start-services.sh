#!/usr/bin/env bash
# Starts all services of TrueNow on this machine.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/server.sh
. "$root/scripts/server.sh"
# shellcheck source=scripts/cluster.sh
. "$root/scripts/cluster.sh"

home=$root
offset=0
demo=false
foreground=false
cluster=false
rolling=false
status=false
CLUSTER_NODES=3
CLUSTER_GATEWAYS=2
CLUSTER_QUERY_APIS=2
while [ $# -gt 0 ]; do
  case $1 in
    --home | --port-offset | --nodes | --gateways | --query-apis)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --home) home=$2 ;;
        --port-offset) offset=$2 ;;
        --nodes) CLUSTER_NODES=$2 ;;
        --gateways) CLUSTER_GATEWAYS=$2 ;;
        --query-apis) CLUSTER_QUERY_APIS=$2 ;;
      esac
      shift
      ;;
    --cluster) cluster=true ;;
    --rolling-restart) rolling=true ;;
    --status) status=true ;;
    --demo) demo=true ;;
    --foreground) foreground=true ;;
    -h | --help)
      cat <<'HELP'
usage: ./start-services.sh [--demo] [--foreground] [--home DIR] [--port-offset N]
       ./start-services.sh --cluster [--nodes N] [--gateways N] [--query-apis N] [--home DIR] [--port-offset N]
       ./start-services.sh --rolling-restart [--home DIR]
       ./start-services.sh --status [--home DIR]

Builds TrueNow if that was not done, starts it, and waits until each of its services is healthy.

  --demo            then replay a sample of real events and show questions, answers and receipts
  --foreground      run in this terminal until Ctrl-C, log on it
  --home DIR        where data/, logs/ and run/ are made [default: the repository]
  --port-offset N   added to every port, so that several servers can run [default: 0]
  --cluster         each service as a process of its own, over Kafka, PostgreSQL and Redis: those that
                    TRUENOW_EVENT_LOG_KAFKA_BROKERS, TRUENOW_METADATA_URL and TRUENOW_QUERY_API_CACHE_URL name,
                    else fresh ones under DIR/engines; processes that run already go on
  --nodes N         nodes of the hot tier, 1 to 9 [default: 3]; of each further process of a kind the ports are 100 higher
  --gateways N      1 to 9 [default: 2]
  --query-apis N    1 to 9 [default: 2]
  --rolling-restart restart the processes of a running cluster one after the other, with the program that is there now
  --status          say how the processes of the cluster are

Settings: ./truenow.toml and the environment, see docs/operations.md. ./stop-services.sh stops it.
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try ./start-services.sh --help" ;;
  esac
  shift
done
for count in "$CLUSTER_NODES" "$CLUSTER_GATEWAYS" "$CLUSTER_QUERY_APIS"; do
  case $count in [1-9]) ;; *) die "$count processes of a kind are not 1 to 9" ;; esac
done
if $cluster && $foreground; then die "--cluster and --foreground exclude each other"; fi
if $demo && $foreground; then die "--demo and --foreground exclude each other"; fi
case $offset in "" | *[!0-9]*) die "--port-offset $offset is no number" ;; esac

mkdir -p "$home"
home=$(cd "$home" && pwd)
if $status; then
  [ -s "$home/run/cluster" ] || die "no cluster was started under $home"
  cluster_status "$home"
  exit
fi
if $rolling; then
  [ -s "$home/run/cluster" ] || die "no cluster was started under $home"
  require curl curl ca-certificates
  bin=${BIN:-$root/target/release/truenow}
  [ -x "$bin" ] || "$root/build.sh"
  cluster_restart "$home"
  exit 0
fi
if $cluster; then
  require curl curl ca-certificates
  bin=${BIN:-$root/target/release/truenow}
  [ -x "$bin" ] || "$root/build.sh"
  cluster_start "$home" "$offset"
  if $demo; then exec env BIN="$bin" "$root/demo/run.sh" --port-offset "$offset"; fi
  say "data: $home/data, logs: $home/logs, state: ./start-services.sh --status, stop: ./stop-services.sh"
  exit 0
fi
server_files "$home"
mkdir -p "$DATA_DIR" "$(dirname "$LOG_FILE")" "$(dirname "$PID_FILE")"
require curl curl ca-certificates

# Another program to run than the one that build.sh makes; for tests.
bin=${BIN:-$root/target/release/truenow}
if pid=$(server_pid); then
  $demo || die "a server runs already (process $pid)" "stop it with ./stop-services.sh${home:+ --home $home}"
else
  [ -x "$bin" ] || "$root/build.sh"
  args=(serve --data-dir "$DATA_DIR" --port-offset "$offset")
  if [ -f "$root/truenow.toml" ]; then args+=(--config "$root/truenow.toml"); fi
  if $foreground; then exec "$bin" "${args[@]}"; fi
  rm -f "$EXIT_FILE"
  rm -f "$PID_FILE"
  # A shell stays with the server to note its exit code; setsid keeps both alive when this terminal closes.
  # shellcheck disable=SC2016 # expands in the inner shell
  setsid bash -c 'log=$1 pid=$2 exit=$3; shift 3; "$@" >>"$log" 2>&1 & echo $! >"$pid"; wait $!; echo $? >"$exit"' \
    truenow-keeper "$LOG_FILE" "$PID_FILE" "$EXIT_FILE" "$bin" "${args[@]}" </dev/null >/dev/null 2>&1 &
fi

# log_tail WHAT: fails with the end of the log.
log_tail() {
  say "error: $1; the end of $LOG_FILE:"
  tail -n 20 "$LOG_FILE" | sed 's/^/  /' >&2
  exit 1
}

for service in $SERVICES; do
  name=${service%:*}
  url=http://127.0.0.1:$((${service#*:} + offset))
  try=0
  progress=
  until health "$url" >/dev/null; do
    # A server that has ended will never be healthy; its exit code is there as soon as it has.
    [ ! -s "$EXIT_FILE" ] || log_tail "the server ended with exit code $(cat "$EXIT_FILE")"
    # Reading the log again takes as long as the log is large: only a start that stands still has failed.
    now=$(start_progress "$url")
    if [ "$now" != "$progress" ]; then try=0 progress=$now; fi
    try=$((try + 1))
    [ "$try" -lt 30 ] || log_tail "$name is not healthy after 30 tries${progress:+, its start stands at $progress of 1}"
    sleep 1
  done
  say "healthy: $name at $url"
done

if $demo; then
  BIN=$bin "$root/demo/run.sh" --port-offset "$offset"
else
  say "data: $DATA_DIR, log: $LOG_FILE, stop: ./stop-services.sh"
fi
