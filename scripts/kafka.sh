# Sourced by the scripts that start and stop Kafka: where a broker's files are, and whether it runs.
# shellcheck shell=bash disable=SC2034

# broker_files HOME NUMBER: sets the paths of one broker of the cluster that lives under HOME.
broker_files() {
  BROKER_DATA=$1/broker-$2
  BROKER_SETTINGS=$1/broker-$2.properties
  BROKER_LOG=$1/broker-$2.log
  BROKER_PID_FILE=$1/broker-$2.pid
}

# broker_pid: prints the process id if that broker runs.
broker_pid() {
  local pid
  [ -s "$BROKER_PID_FILE" ] || return 1
  pid=$(cat "$BROKER_PID_FILE")
  # A process id is reused sooner or later, so what it runs has to be right too.
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$BROKER_SETTINGS" || return 1
  printf '%s\n' "$pid"
}
