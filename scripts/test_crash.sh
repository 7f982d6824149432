#!/usr/bin/env bash
# kill -9 in the middle of ingest, restart: every acked event is there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=server.sh
. "$root/scripts/server.sh"
# shellcheck source=checks.sh
. "$root/scripts/checks.sh"

rounds=3
offset=21200
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift ;;
    --port-offset) offset=${2:?--port-offset needs a number} && shift ;;
    *) die "unknown argument $1" "usage: scripts/test_crash.sh [--rounds N] [--port-offset N]" ;;
  esac
  shift
done
require curl curl ca-certificates
require jq jq
home=$(mktemp -d)
server_files "$home"
finish() {
  "$root/stop-services.sh" --home "$home" || true
  rm -rf "$home"
}
trap finish EXIT
GATEWAY=http://127.0.0.1:$((8088 + offset))
# Used by checks.sh.
# shellcheck disable=SC2034
QUERY=http://127.0.0.1:$((8081 + offset))

# sender NUMBER: sends batches of 100 numbered events until the server is gone; notes each acked batch.
sender() {
  local batch=0 accepted
  while :; do
    accepted=$(jq -nc --arg table "t$1" --argjson first $((batch * 100)) \
      'range($first; $first + 100) | {namespace: "crash", table: $table, event_time: (1000000 + .), metrics: {n: .}}' |
      curl -s --noproxy '*' --max-time 10 -H 'content-type: application/x-ndjson' --data-binary @- "$GATEWAY/v1/events" |
      jq -r '.accepted') || return 0
    [ "$accepted" = 100 ] || return 0
    batch=$((batch + 1))
    echo "$batch" >"$home/count.$1"
    mv "$home/count.$1" "$home/acked.$1"
  done
}

for round in $(seq "$rounds"); do
  "$root/start-services.sh" --home "$home" --port-offset "$offset"
  for number in 1 2; do
    echo 0 >"$home/acked.$round$number"
    sender "$round$number" &
  done
  while [ "$(cat "$home/acked.${round}1")" -lt 20 ]; do sleep 0.1; done
  kill -9 "$(server_pid)"
  wait
  "$root/start-services.sh" --home "$home" --port-offset "$offset"
  # Every table of every round so far: what was acked is there, in one piece.
  for file in "$home"/acked.*; do
    number=${file##*.}
    batches=$(cat "$file")
    found=$(ask "{\"namespace\":\"crash\",\"table\":\"t$number\",\"start_time\":0,\"end_time\":$((1000000 + batches * 100)),\"aggregates\":[{\"fn\":\"count\"},{\"fn\":\"sum\",\"metric\":\"n\"}]}" |
      jq -c '.rows[0] | [.count, (.sum_n | floor)]')
    events=$((batches * 100))
    same "round $round: $events acked events of t$number" "$found" "[$events,$((events * (events - 1) / 2))]"
  done
  "$root/stop-services.sh" --home "$home"
done
summary
