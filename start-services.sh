#!/usr/bin/env bash
# Starts all services of TrueNow on this machine.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/server.sh
. "$root/scripts/server.sh"

home=$root
offset=0
demo=false
foreground=false
while [ $# -gt 0 ]; do
  case $1 in
    --home | --port-offset)
      [ $# -ge 2 ] || die "$1 needs a value"
      if [ "$1" = --home ]; then home=$2; else offset=$2; fi
      shift
      ;;
    --demo) demo=true ;;
    --foreground) foreground=true ;;
    -h | --help)
      cat <<'HELP'
usage: ./start-services.sh [--demo] [--foreground] [--home DIR] [--port-offset N]

Builds TrueNow if that was not done, starts it, and waits until each of its services is healthy.

  --demo            then replay a sample of real events and show questions, answers and receipts
  --foreground      run in this terminal until Ctrl-C, log on it
  --home DIR        where data/, logs/ and run/ are made [default: the repository]
  --port-offset N   added to every port, so that several servers can run [default: 0]

Settings: ./truenow.toml and the environment, see docs/operations.md. ./stop-services.sh stops it.
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try ./start-services.sh --help" ;;
  esac
  shift
done
if $demo && $foreground; then die "--demo and --foreground exclude each other"; fi
case $offset in "" | *[!0-9]*) die "--port-offset $offset is no number" ;; esac

mkdir -p "$home"
home=$(cd "$home" && pwd)
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
