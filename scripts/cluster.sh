# Sourced by start-services.sh and stop-services.sh: the services of a cluster on one machine, each as a process of its own.
# shellcheck shell=bash

# cluster_processes: prints a line per process, in the order of their start: its name, its services, what is added to its ports,
# and the HTTP port (without that) of each of its services. A further process of a kind has its ports 100 higher each time.
cluster_processes() {
  local n
  printf '%s\n' "control-plane control-plane 0 8001" "rebalancer rebalancer 0 8086"
  for ((n = 1; n <= CLUSTER_NODES; n++)); do
    printf '%s\n' "hot-tier-$n hot-tier,stream-ingester $(((n - 1) * 100)) 9090 8100"
  done
  printf '%s\n' "watermark watermark 0 8084"
  for ((n = 1; n <= CLUSTER_QUERY_APIS; n++)); do printf '%s\n' "query-api-$n query-api $(((n - 1) * 100)) 8081"; done
  for ((n = 1; n <= CLUSTER_GATEWAYS; n++)); do printf '%s\n' "gateway-$n gateway $(((n - 1) * 100)) 8088"; done
}

# cluster_files HOME NAME: sets the paths of one process of the cluster that lives under HOME.
cluster_files() {
  DATA_DIR=$1/data/$2
  LOG_FILE=$1/logs/$2.log
  PID_FILE=$1/run/$2.pid
  EXIT_FILE=$1/run/$2.exit
}

# engine_answers FILE: the engine whose URL is in FILE listens.
engine_answers() {
  local at
  [ -s "$1" ] || return 1
  at=$(sed 's|.*@||; s|/.*||' "$1")
  (: <>"/dev/tcp/${at%:*}/${at##*:}") 2>/dev/null
}

# cluster_engines HOME: exports where Kafka, PostgreSQL and Redis are; those that are not given are started under HOME/engines.
cluster_engines() {
  local engines=$1/engines url
  (umask 022 && mkdir -p "$engines")
  if [ -z "${TRUENOW_EVENT_LOG_KAFKA_BROKERS:-}" ]; then
    TRUENOW_EVENT_LOG_KAFKA_BROKERS=$("$root/scripts/start_kafka.sh" --home "$engines/kafka")
  fi
  if [ -z "${TRUENOW_METADATA_URL:-}" ]; then
    url=$engines/postgres/postgres.url
    engine_answers "$url" || "$root/scripts/start_postgres.sh" --home "$engines/postgres" >/dev/null
    TRUENOW_METADATA_URL=$(cat "$url")
  fi
  if [ -z "${TRUENOW_QUERY_API_CACHE_URL:-}" ]; then
    url=$engines/redis/redis.url
    engine_answers "$url" || "$root/scripts/start_redis.sh" --home "$engines/redis" >/dev/null
    TRUENOW_QUERY_API_CACHE_URL=$(cat "$url")
  fi
  export TRUENOW_EVENT_LOG_KAFKA_BROKERS TRUENOW_METADATA_URL TRUENOW_QUERY_API_CACHE_URL
}

# cluster_settings HOME OFFSET: exports what all processes have in common.
cluster_settings() {
  local key=$1/run/cluster.key
  if [ -z "${TRUENOW_CLUSTER_KEY:-}" ]; then
    [ -s "$key" ] || (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$key")
    TRUENOW_CLUSTER_KEY=$(cat "$key")
  fi
  TRUENOW_CLUSTER_CONTROL_PLANE=${TRUENOW_CLUSTER_CONTROL_PLANE:-127.0.0.1:$((9080 + $2))}
  TRUENOW_CLUSTER_NODES_FIRST=${TRUENOW_CLUSTER_NODES_FIRST:-$CLUSTER_NODES}
  # All nodes share this machine's memory.
  if [ -z "${HOT_TIER_MEMORY_GB:-}" ]; then
    HOT_TIER_MEMORY_GB=$(awk -v nodes="$CLUSTER_NODES" '/^MemTotal/ {
      gb = $2 / 1048576 * 0.4 / nodes; print (gb > 32 ? 32 : gb) }' /proc/meminfo)
  fi
  export TRUENOW_CLUSTER_KEY TRUENOW_CLUSTER_CONTROL_PLANE TRUENOW_CLUSTER_NODES_FIRST HOT_TIER_MEMORY_GB
}

# cluster_start_one HOME OFFSET NAME SERVICES MORE: starts a process unless it runs.
cluster_start_one() {
  local number=
  cluster_files "$1" "$3"
  if server_pid >/dev/null; then return; fi
  case $3 in hot-tier-*) number=${3##*-} ;; esac
  mkdir -p "$DATA_DIR"
  rm -f "$EXIT_FILE" "$PID_FILE"
  local args=(serve --services "$4" --data-dir "$DATA_DIR" --port-offset $(($2 + $5)))
  if [ -f "$root/truenow.toml" ]; then args+=(--config "$root/truenow.toml"); fi
  (
    [ -z "$number" ] || export TRUENOW_CLUSTER_NODE_ID=$number
    # shellcheck disable=SC2016 # expands in the inner shell
    exec setsid bash -c 'log=$1 pid=$2 exit=$3; shift 3; "$@" >>"$log" 2>&1 & echo $! >"$pid"; wait $!; echo $? >"$exit"' \
      truenow-keeper "$LOG_FILE" "$PID_FILE" "$EXIT_FILE" "$bin" "${args[@]}"
  ) </dev/null >/dev/null 2>&1 &
}

# cluster_await HOME OFFSET NAME MORE PORT...: waits until each service of a process is healthy.
cluster_await() {
  local name=$3 base=$(($2 + $4)) port try
  cluster_files "$1" "$name"
  shift 4
  for port in "$@"; do
    for ((try = 0; try < 90; try++)); do
      if health "http://127.0.0.1:$((port + base))" >/dev/null; then
        say "healthy: $name at http://127.0.0.1:$((port + base))"
        continue 2
      fi
      if [ -s "$EXIT_FILE" ]; then break; fi
      sleep 1
    done
    say "error: $name is not healthy; the end of $LOG_FILE:"
    tail -n 20 "$LOG_FILE" | sed 's/^/  /' >&2
    exit 1
  done
}

# cluster_start HOME OFFSET: starts all that does not run, and waits for it.
cluster_start() {
  local home=$1 offset=$2 name services more ports
  mkdir -p "$home/logs" "$home/run"
  printf '%s %s %s %s\n' "$CLUSTER_NODES" "$CLUSTER_GATEWAYS" "$CLUSTER_QUERY_APIS" "$offset" >"$home/run/cluster"
  cluster_engines "$home"
  cluster_settings "$home" "$offset"
  while read -r name services more ports; do
    cluster_start_one "$home" "$offset" "$name" "$services" "$more"
  done < <(cluster_processes)
  while read -r name services more ports; do
    # shellcheck disable=SC2086 # one word per port
    cluster_await "$home" "$offset" "$name" "$more" $ports
  done < <(cluster_processes)
}

# health_field FIELD URL: prints one text of a service's health, whatever its status; nothing if it does not answer.
health_field() {
  curl -s --noproxy '*' --max-time 5 "$2/health" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" || true
}

# cluster_status HOME: prints a line per service; fails if one is not healthy.
cluster_status() {
  local name services more ports port pid url state ok=0 offset
  read -r CLUSTER_NODES CLUSTER_GATEWAYS CLUSTER_QUERY_APIS offset <"$1/run/cluster"
  while read -r name services more ports; do
    cluster_files "$1" "$name"
    pid=$(server_pid) || pid=-
    for port in $ports; do
      url=http://127.0.0.1:$((port + offset + more))
      state=$(health_field status "$url")
      case $state in healthy | degraded) ;; *) ok=1 ;; esac
      printf '%-16s process %-8s %-23s %-9s %s\n' "$name" "$pid" "$url" "${state:-away}" "$(health_field version "$url")"
    done
  done < <(cluster_processes)
  return "$ok"
}

# cluster_stop_one HOME NAME: stops a process, if it runs; fails if it does not end well.
cluster_stop_one() {
  local pid code
  cluster_files "$1" "$2"
  pid=$(server_pid) || return 0
  kill -TERM "$pid"
  for _ in $(seq 600); do
    server_pid >/dev/null || break
    sleep 0.1
  done
  if server_pid >/dev/null; then
    die "$2 (process $pid) did not end within 60 s" "its log: $LOG_FILE" "to end it by force: kill -9 $pid (what was acked is kept)"
  fi
  for _ in $(seq 20); do
    [ -s "$EXIT_FILE" ] && break
    sleep 0.1
  done
  code=$(cat "$EXIT_FILE" 2>/dev/null || echo unknown)
  rm -f "$PID_FILE"
  [ "$code" = 0 ] || { say "error: $2 ended with exit code $code, its log: $LOG_FILE" && return 1; }
}

# cluster_no_step_back OFFSET VERSION: fails where a process runs a later version: an older one may not read what that has written.
cluster_no_step_back() {
  local name services more ports port runs
  while read -r name services more ports; do
    for port in $ports; do
      runs=$(health_field version "http://127.0.0.1:$((port + $1 + more))")
      [ -z "$runs" ] || [ "$(printf '%s\n' "$runs" "$2" | sort -V | tail -n 1)" = "$2" ] ||
        die "$name runs version $runs, the program is $2" "there is no step back without the backup, see docs/operations.md"
    done
  done < <(cluster_processes)
}

# cluster_restart HOME: restarts all processes one after the other, each when the one before is healthy and is of the version of
# the program. Who reads the log comes before who writes it, and who answers before who asks: a newer version may write or ask what
# an older one cannot read.
cluster_restart() {
  local home=$1 kind name services more ports port offset version runs
  read -r CLUSTER_NODES CLUSTER_GATEWAYS CLUSTER_QUERY_APIS offset <"$home/run/cluster"
  version=$("$bin" --version | sed 's/.* //')
  cluster_no_step_back "$offset" "$version"
  cluster_engines "$home"
  cluster_settings "$home" "$offset"
  for kind in hot-tier watermark query-api rebalancer control-plane gateway; do
    while read -r name services more ports; do
      cluster_stop_one "$home" "$name"
      cluster_start_one "$home" "$offset" "$name" "$services" "$more"
      # shellcheck disable=SC2086 # one word per port
      cluster_await "$home" "$offset" "$name" "$more" $ports
      for port in $ports; do
        runs=$(health_field version "http://127.0.0.1:$((port + offset + more))")
        [ "$runs" = "$version" ] || die "$name runs version $runs after its restart, the program is $version"
      done
    done < <(cluster_processes | grep "^$kind\(-[0-9]*\)\? ")
  done
}

# cluster_stop HOME: stops all processes, the way in first, then the engines that were started with them.
cluster_stop() {
  local name services more ports failed=0 offset
  read -r CLUSTER_NODES CLUSTER_GATEWAYS CLUSTER_QUERY_APIS offset <"$1/run/cluster"
  while read -r name services more ports; do
    cluster_stop_one "$1" "$name" || failed=1
  done < <(cluster_processes | tac)
  if [ -d "$1/engines/redis" ]; then "$root/scripts/stop_redis.sh" --home "$1/engines/redis" >&2 || failed=1; fi
  if [ -d "$1/engines/postgres" ]; then "$root/scripts/stop_postgres.sh" --home "$1/engines/postgres" >&2 || failed=1; fi
  if [ -d "$1/engines/kafka" ]; then "$root/scripts/stop_kafka.sh" --home "$1/engines/kafka" >&2 || failed=1; fi
  return "$failed"
}
