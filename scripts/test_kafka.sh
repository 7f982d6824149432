#!/usr/bin/env bash
# The event log on a real Kafka: starts one, runs the tests that need it, and stops it, whatever happens.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=prerequisites.sh
. scripts/prerequisites.sh

case ${1:-} in
  "") ;;
  -h | --help)
    cat <<'HELP'
usage: scripts/test_kafka.sh

Starts Apache Kafka on free ports with files of its own, runs the tests of shared/event-log that need a broker against it,
and stops it. Java and Maven are installed where apt-get is and they are not.
HELP
    exit 0
    ;;
  *) die "unknown argument $1" "try scripts/test_kafka.sh --help" ;;
esac

require_cargo
home=$(mktemp -d)
finish() { scripts/stop_kafka.sh --home "$home" --remove; }
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Built first: a broker that waits for a compiler takes memory from it.
cargo test --locked -p event-log --lib --no-run
brokers=$(scripts/start_kafka.sh --home "$home")
EVENT_LOG_TEST_BROKERS=$brokers cargo test --locked -p event-log --lib kafka -- --ignored
