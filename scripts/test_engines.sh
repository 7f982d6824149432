#!/usr/bin/env bash
# Metadata on a PostgreSQL and shared results in a Redis of their own: the suites of both, or a real server on them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=checks.sh
. scripts/checks.sh

server=false
queries=0
offset=22600
while [ $# -gt 0 ]; do
  case $1 in
    --server) server=true ;;
    --acceptance | --port-offset)
      [ $# -ge 2 ] || die "$1 needs a number"
      if [ "$1" = --acceptance ]; then queries=$2; else offset=$2; fi
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/test_engines.sh [--server [--acceptance N] [--port-offset N]]

Starts a PostgreSQL and a Redis (installed where missing), runs the suites of metadata and of the cache on them, and stops them.

  --server          instead: a server on both, while they run, after they were stopped, and when they are back
  --acceptance N    before that N random questions, where ../shared/acceptance is
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/test_engines.sh --help" ;;
  esac
  shift
done

home=$(mktemp -d)
# PostgreSQL runs as a user of its own where this is root, and has to enter it.
chmod 711 "$home"
finish() {
  if $server; then ./stop-services.sh --home "$home/server" || true; fi
  scripts/stop_postgres.sh --home "$home" || true
  scripts/stop_redis.sh --home "$home" || true
  rm -rf "$home"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
postgres=$(scripts/start_postgres.sh --home "$home")
redis=$(scripts/start_redis.sh --home "$home")

if ! $server; then
  require_cargo
  export POSTGRES_TEST_URL=$postgres REDIS_TEST_URL=$redis
  cargo test --locked -p metadata --test postgres -- --include-ignored
  cargo test --locked -p cache --test redis -- --include-ignored
  exit
fi

require curl curl ca-certificates
require jq jq
TRUENOW_METADATA_URL=$postgres TRUENOW_QUERY_API_CACHE_URL=$redis \
  ./start-services.sh --home "$home/server" --port-offset "$offset"
GATEWAY=http://127.0.0.1:$((8088 + offset))
QUERY=http://127.0.0.1:$((8081 + offset))
CONTROL=http://127.0.0.1:$((8001 + offset))

if [ "$queries" != 0 ]; then
  if [ -f ../shared/acceptance/acceptance.py ] && [ -d ../shared/data ] && command -v python3 >/dev/null; then
    seed=$((RANDOM * 32768 + RANDOM))
    printf 'acceptance.py --queries %s --seed %s\n' "$queries" "$seed"
    if python3 ../shared/acceptance/acceptance.py --data ../shared/data --queries "$queries" --seed "$seed" --gateway "$GATEWAY" \
      --query "$QUERY" --control "$CONTROL" --watermark "http://127.0.0.1:$((8084 + offset))"; then
      pass
    else
      fail "acceptance on PostgreSQL and Redis, seed $seed"
    fi
  else
    skip "acceptance on PostgreSQL and Redis: ../shared/acceptance, ../shared/data or python3 is not there"
  fi
fi

# send N: sends event N, prints its status.
send() {
  post "$GATEWAY/v1/events" "{\"namespace\":\"engines\",\"table\":\"events\",\"event_id\":\"$1\",\"event_time\":$(date +%s)000000,\
\"dimensions\":{\"n\":\"$1\"}}" | tail -n 1
}

# counted: prints how many events there are; the question is the same each time.
counted() {
  ask '{"namespace":"engines","table":"events","start_time":0,"end_time":9000000000000000,"aggregates":[{"fn":"count"}]}' |
    jq -c '.rows[0].count'
}

# counts N: the count becomes N within 10 s.
counts() {
  local now
  for _ in $(seq 100); do
    now=$(counted)
    [ "$now" != "$1" ] || break
    sleep 0.1
  done
  same "the count after event $1" "$now" "$1"
}

# port_of URL: prints its port.
port_of() { sed 's|.*:\([0-9]*\)/.*|\1|' <<<"$1"; }

# create TABLE: prints the status of its creation.
create() { post "$CONTROL/v1/tables" "{\"namespace\":\"engines\",\"table\":\"$1\"}" | tail -n 1; }

same "the first event" "$(send 1)" 200
counts 1
same "the same question again" "$(counted)" 1
names=$(REDISCLI_AUTH=$(cat "$home/redis.password") redis-cli -h 127.0.0.1 -p "$(port_of "$redis")" keys '*')
case $names in truenow:results:*) pass ;; *) fail "Redis holds no result" "$names" ;; esac

scripts/stop_postgres.sh --home "$home"
scripts/stop_redis.sh --home "$home"
same "an event without the engines" "$(send 2)" 200
counts 2
same "a table without PostgreSQL" "$(create later)" 503
began=$SECONDS
for _ in $(seq 6); do create later >/dev/null; done
same "a refusal that takes no time once the breaker is open" "$(create later)" 503
printf 'seven refused creations took %s s\n' "$((SECONDS - began))"
same "the health without PostgreSQL" "$(curl -s --noproxy '*' "$CONTROL/health" | jq -r .status)" degraded
same "another event without the engines" "$(send 3)" 200
counts 3

scripts/start_postgres.sh --home "$home" --port "$(port_of "$postgres")" >/dev/null
scripts/start_redis.sh --home "$home" --port "$(port_of "$redis")" >/dev/null
for _ in $(seq 60); do
  status=$(create later)
  [ "$status" != 201 ] || break
  sleep 1
done
same "a table when PostgreSQL is back" "$status" 201
same "an event when the engines are back" "$(send 4)" 200
counts 4
if grep -qF -e "$(cat "$home/postgres.password")" -e "$(cat "$home/redis.password")" "$home/server/logs/truenow.log"; then
  fail "a password stands in the log"
else
  pass
fi
summary
