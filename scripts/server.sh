# Sourced by the other scripts: where a server's files and ports are, and how its health is asked.
# shellcheck shell=bash disable=SC2034

# In the order in which they depend on each other; names and HTTP ports as in docs/architecture.md.
SERVICES="hot-tier:9090 control-plane:8001 stream-ingester:8100 gateway:8088 watermark:8084 query-api:8081 rebalancer:8086"

# server_files HOME: sets the paths of the server that lives under HOME.
server_files() {
  DATA_DIR=$1/data
  LOG_FILE=$1/logs/truenow.log
  PID_FILE=$1/run/truenow.pid
  EXIT_FILE=$1/run/truenow.exit
}

# server_pid: prints the process id if that server runs.
server_pid() {
  local pid
  [ -s "$PID_FILE" ] || return 1
  pid=$(cat "$PID_FILE")
  # A process id is reused sooner or later, so its name has to be right too.
  [ "$(cat "/proc/$pid/comm" 2>/dev/null || ps -o comm= -p "$pid" 2>/dev/null)" = truenow ] || return 1
  printf '%s\n' "$pid"
}

# health URL: prints a service's health and succeeds if it is healthy or degraded.
health() { curl -sf --noproxy '*' --max-time 5 "$1/health"; }

# start_progress URL: prints how far a service that is starting has come, 0 to 1; nothing if it does not say.
start_progress() {
  curl -s --noproxy '*' --max-time 5 "$1/health" |
    sed -n 's/.*"status":"starting".*"progress":\([0-9.eE+-]*\).*/\1/p' || true
}
