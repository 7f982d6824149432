#!/usr/bin/env bash
# Starts Apache Kafka on this machine, for tests and trials: one broker or several, in KRaft mode, on loopback alone.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=kafka.sh
. "$root/scripts/kafka.sh"

home=
port=
brokers=1
ways=()
while [ $# -gt 0 ]; do
  case $1 in
    --home | --port | --brokers | --way)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in --home) home=$2 ;; --port) port=$2 ;; --brokers) brokers=$2 ;; *) ways+=("$2") ;; esac
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/start_kafka.sh --home DIR [--port N] [--brokers N] [--way HOST]...

Fetches Apache Kafka with Maven if that was not done, starts it, waits until it serves, and prints the addresses of its
brokers, as event_log.kafka.brokers wants them. Brokers that run already are left alone; those that ended start again with
what they hold.

  --home DIR      where the brokers keep data, settings and logs
  --port N        port of the first broker; the others follow, and the controller is on N + 50 [default: what is free]
  --brokers N     1 to 9 [default: 1]
  --way HOST      the first broker listens on a further port too, on N + 10 and so on, and tells who comes there that it is at
                  HOST, on that port: for whom there is a proxy between; at most 40

scripts/stop_kafka.sh --home DIR stops it. Each broker takes up to 512 MiB of heap.
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/start_kafka.sh --help" ;;
  esac
  shift
done
[ -n "$home" ] || die "--home is missing" "try scripts/start_kafka.sh --help"
case $brokers in [1-9]) ;; *) die "--brokers $brokers is not 1 to 9" ;; esac
[ ${#ways[@]} -le 40 ] || die "${#ways[@]} ways are more than 40"
case $port in *[!0-9]*) die "--port $port is no number" ;; esac
mkdir -p "$home"
home=$(cd "$home" && pwd)

require java default-jre-headless
libs=$root/target/kafka
pom=$root/scripts/kafka/pom.xml
# What was fetched for another version is fetched anew.
if ! cmp -s "$pom" "$libs/pom.xml"; then
  require mvn maven
  say "fetching Apache Kafka"
  rm -rf "$libs"
  mkdir -p "$libs"
  mvn --quiet --batch-mode --strict-checksums -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$libs" >&2 || die "Apache Kafka could not be fetched" "is Maven set up to reach a repository?"
  cp "$pom" "$libs/pom.xml"
fi

# answers PORT: something listens there.
answers() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A cluster that was started before keeps its ports and ways.
if [ -s "$home/ways" ]; then
  mapfile -t ways <"$home/ways"
elif [ ${#ways[@]} -gt 0 ]; then
  printf '%s\n' "${ways[@]}" >"$home/ways"
fi
if [ -s "$home/port" ]; then
  port=$(cat "$home/port")
elif [ -z "$port" ]; then
  for ((try = 0; try < 100; try++)); do
    port=$((20000 + RANDOM % 10000))
    free=true
    for ((n = 0; n <= 50; n++)); do if answers $((port + n)); then free=false; fi; done
    if $free; then break; fi
  done
fi
printf '%s\n' "$port" >"$home/port"
controller=$((port + 50))
if [ ! -s "$home/cluster" ]; then head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' >"$home/cluster"; fi

# settings NUMBER: those of one broker. The first is the controller too.
settings() {
  local number=$1 roles=broker listeners=PLAINTEXT://127.0.0.1:$((port + $1 - 1))
  local advertised=$listeners protocols=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT n
  if [ "$number" = 1 ]; then
    roles=broker,controller
    listeners=$listeners,CONTROLLER://127.0.0.1:$controller
    for n in ${ways[@]+"${!ways[@]}"}; do
      listeners=$listeners,WAY$n://127.0.0.1:$((port + 10 + n))
      advertised=$advertised,WAY$n://${ways[n]}:$((port + 10 + n))
      protocols=$protocols,WAY$n:PLAINTEXT
      printf 'listener.name.way%s.num.network.threads=1\n' "$n"
    done
  fi
  cat <<SETTINGS
process.roles=$roles
node.id=$number
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
log.dirs=$BROKER_DATA
# A topic that is asked for and not there is an error, not a new topic with other settings.
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
# Small, for the machine has other work.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
# A broker that is away is missed soon.
broker.session.timeout.ms=6000
replica.lag.time.max.ms=6000
SETTINGS
}

java() { command java -cp "$libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel="${level:-info}" "$@"; }

# start NUMBER: starts a broker, unless it runs.
start() {
  broker_files "$home" "$1"
  if broker_pid >/dev/null; then return; fi
  settings "$1" >"$BROKER_SETTINGS"
  if [ ! -s "$BROKER_DATA/meta.properties" ]; then
    level=error java kafka.tools.StorageTool format --cluster-id "$(cat "$home/cluster")" --config "$BROKER_SETTINGS" >&2 ||
      die "the storage of broker $1 could not be formatted"
  fi
  : >"$BROKER_LOG"
  # setsid keeps it alive when this terminal closes.
  setsid java -Xms256m -Xmx512m -XX:+UseSerialGC -Djava.awt.headless=true -cp "$libs/*" \
    -Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS" \
    kafka.Kafka "$BROKER_SETTINGS" >>"$BROKER_LOG" 2>&1 </dev/null &
  printf '%s\n' $! >"$BROKER_PID_FILE"
}

# await NUMBER: waits until a broker serves.
await() {
  broker_files "$home" "$1"
  for ((try = 0; try < 600; try++)); do
    if grep -q 'Kafka Server started' "$BROKER_LOG"; then return; fi
    kill -0 "$(cat "$BROKER_PID_FILE")" 2>/dev/null || break
    sleep 0.1
  done
  say "error: broker $1 does not serve; the end of $BROKER_LOG:"
  tail -n 20 "$BROKER_LOG" | sed 's/^/  /' >&2
  exit 1
}

addresses=
for ((n = 1; n <= brokers; n++)); do
  start "$n"
  addresses=$addresses${addresses:+,}127.0.0.1:$((port + n - 1))
done
for ((n = 1; n <= brokers; n++)); do await "$n"; done
printf '%s\n' "$addresses"
