#!/usr/bin/env bash
# Black-box test of ingest and queries, with curl and jq against a server of its own.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/server.sh
. "$root/scripts/server.sh"
# shellcheck source=scripts/checks.sh
. "$root/scripts/checks.sh"

offset=20000
events=200000
while [ $# -gt 0 ]; do
  case $1 in
    --port-offset) offset=${2:?--port-offset needs a number} && shift ;;
    --events) events=${2:?--events needs a number} && shift ;;
    -h | --help)
      cat <<'HELP'
usage: ./test_queries.sh [--port-offset N] [--events N]

Starts a server with data, logs and ports of its own, sends events, asks about ranges, filters, groups, several namespaces,
emptiness, invalid questions and many events, stops the server, and looks into its log. Exit code 0 if all holds.

  --port-offset N   [default: 20000]
  --events N        events of the part with many [default: 200000]
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try ./test_queries.sh --help" ;;
  esac
  shift
done
require curl curl ca-certificates
require jq jq

home=$(mktemp -d)
server_files "$home"
started=false
finish() {
  if $started; then "$root/stop-services.sh" --home "$home" || true; fi
  rm -rf "$home"
}
trap finish EXIT
started=true
"$root/start-services.sh" --home "$home" --port-offset "$offset"
GATEWAY=http://127.0.0.1:$((8088 + offset))
QUERY=http://127.0.0.1:$((8081 + offset))
CONTROL=http://127.0.0.1:$((8001 + offset))

T=1754772362000000
# event NAMESPACE SECONDS REGION PRODUCT REVENUE
event() {
  printf '{"namespace":"%s","table":"events","event_time":%s,"dimensions":{"region":"%s","product":"%s"},"metrics":{"revenue":%s}}\n' \
    "$1" "$((T + $2 * 1000000))" "$3" "$4" "$5"
}

# send: NDJSON of stdin to the gateway; sets ACCEPTED and TOKEN.
send() {
  local reply
  reply=$(curl -s --noproxy '*' -H 'content-type: application/x-ndjson' --data-binary @- "$GATEWAY/v1/events")
  ACCEPTED=$(jq -r '.accepted' <<<"$reply")
  TOKEN=$(jq -r '.token' <<<"$reply")
}

# q NAMESPACE START_S END_S REST: a query that waits for TOKEN; REST is more JSON, with a leading comma.
q() {
  ask "{\"namespace\":\"$1\",\"table\":\"events\",\"start_time\":$((T + $2 * 1000000)),\"end_time\":$((T + $3 * 1000000)),\"after\":\"$TOKEN\"${4:-}}"
}

{
  event shop 0 us-east widget-a 12.5
  event shop 1 us-east widget-b 7.5
  event shop 2 us-west widget-a 20
  event shop 3 eu-west widget-c 1
  event shop 60 eu-west widget-a 5
} >"$home/events"
send <"$home/events"
same "all events are accepted" "$ACCEPTED" 5

# Ranges are half-open.
same "range, whole" "$(q shop 0 61 | jq -c '[.rows[0].count, .receipt.complete]')" '[5,true]'
same "range, half-open" "$(q shop 1 3 | jq .rows[0].count)" 2
same "range, before all" "$(q shop -10 0 | jq .rows[0].count)" 0

# Filters.
same "filter by value" "$(q shop 0 61 ',"filters":{"region":"us-east"}' | jq .rows[0].count)" 2
same "filter by list" "$(q shop 0 61 ',"filters":{"region":["us-east","us-west"]}' | jq .rows[0].count)" 3
same "filter by not" "$(q shop 0 61 ',"filters":{"region":{"ne":"eu-west"}}' | jq .rows[0].count)" 3
same "filter by prefix" "$(q shop 0 61 ',"filters":{"region":{"prefix":"us-"}}' | jq .rows[0].count)" 3
same "filter by metric" "$(q shop 0 61 ',"filters":{"revenue":{"gte":5,"lt":12.5}}' | jq .rows[0].count)" 2
same "filter by both" "$(q shop 0 61 ',"filters":{"region":"us-east","product":"widget-a"}' | jq .rows[0].count)" 1
same "filter without match" "$(q shop 0 61 ',"filters":{"region":"mars"}' | jq .rows[0].count)" 0

# Functions, groups, order, limit, intervals.
all=',"aggregates":[{"fn":"sum","metric":"revenue"},{"fn":"avg","metric":"revenue"},{"fn":"min","metric":"revenue"},{"fn":"max","metric":"revenue"}]'
same "functions" "$(q shop 0 61 "$all" | jq -c '.rows[0] | [.sum_revenue, .avg_revenue, .min_revenue, .max_revenue] | map(. * 10 | round / 10)')" '[46,9.2,1,20]'
same "functions over nothing" "$(q shop 100 200 "$all" | jq -c '.rows[0] | [.avg_revenue, .min_revenue]')" '[null,null]'
same "group" "$(q shop 0 61 ',"group_by":["region"]' | jq -c '[.rows[] | [.region, .count]]')" '[["eu-west",2],["us-east",2],["us-west",1]]'
same "group, order, limit" "$(q shop 0 61 ',"group_by":["product"],"aggregate":"sum","metric":"revenue","order_by":[{"column":"sum_revenue","desc":true}],"limit":1' | jq -c '[.rows[0].product, .receipt.truncated]')" '["widget-a",true]'
same "interval" "$(q shop 0 120 ',"interval_us":60000000' | jq -c '[.rows[].count]')" '[4,1]'

# Several namespaces do not mix, and can be asked together.
event lab 0 us-east probe 100 >"$home/events"
send <"$home/events"
same "another namespace" "$(q lab 0 61 | jq .rows[0].count)" 1
same "the first is as it was" "$(ask "{\"namespace\":\"shop\",\"table\":\"events\",\"start_time\":$T,\"end_time\":$((T + 61000000))}" | jq .rows[0].count)" 5
both="{\"tables\":[{\"namespace\":\"shop\",\"table\":\"events\"},{\"namespace\":\"lab\",\"table\":\"events\"}],\"start_time\":$T,\"end_time\":$((T + 61000000)),\"group_by\":[\"table\"]}"
same "both together" "$(ask "$both" | jq -c '[.rows[] | [.table, .count]]')" '[["lab.events",1],["shop.events",5]]'

# An empty table.
post "$CONTROL/v1/tables" '{"namespace":"lab","table":"empty","dimensions":["d"],"metrics":["m"]}' >/dev/null
same "empty table" "$(ask "{\"namespace\":\"lab\",\"table\":\"empty\",\"start_time\":0,\"end_time\":1}" | jq -c '[.rows[0].count, .receipt.complete]')" '[0,true]'

# refused WHAT QUERY STATUS FIELD: a question that must be refused, with the field at fault.
refused() {
  local reply
  reply=$(post "$QUERY/v1/query" "$2")
  same "$1" "$(tail -n 1 <<<"$reply") $(head -n 1 <<<"$reply" | jq -r '.error.field')" "$3 $4"
}
base='"namespace":"shop","table":"events"'
refused "end before start" "{$base,\"start_time\":2,\"end_time\":1}" 400 end_time
refused "an empty range" "{$base,\"start_time\":1,\"end_time\":1}" 400 end_time
refused "a start that is no number" "{$base,\"start_time\":\"now\",\"end_time\":1}" 400 start_time
refused "an unknown field" "{$base,\"start_time\":0,\"end_time\":1,\"colour\":1}" 400 colour
refused "an unknown column" "{$base,\"start_time\":0,\"end_time\":1,\"group_by\":[\"colour\"]}" 400 colour
refused "a sum of nothing" "{$base,\"start_time\":0,\"end_time\":1,\"aggregate\":\"sum\"}" 400 metric
refused "a negative limit" "{$base,\"start_time\":0,\"end_time\":1,\"limit\":-1}" 400 limit
same "a table that is not there" "$(post "$QUERY/v1/query" '{"namespace":"shop","table":"none","start_time":0,"end_time":1}' | tail -n 1)" 404
same "no JSON" "$(post "$QUERY/v1/query" '{' | tail -n 1)" 400
same "an event that is none" "$(post "$GATEWAY/v1/events" '{"namespace":"shop","table":"events","metrics":{"revenue":"much"}}' | head -n 1 | jq -c '[.accepted, .rejected[0].index]')" '[0,0]'

# Many events, in several requests.
jq -nc --argjson t "$T" --argjson events "$events" \
  'range($events) | {namespace: "load", table: "events", event_time: ($t + .), dimensions: {k: "k\(. % 100)"}, metrics: {n: .}}' >"$home/many"
sent=0
while IFS= read -r part; do
  send <"$part"
  sent=$((sent + ACCEPTED))
done < <(split -l 50000 "$home/many" "$home/many." && printf '%s\n' "$home"/many.*)
same "many events are accepted" "$sent" "$events"
many=$(ask "{\"namespace\":\"load\",\"table\":\"events\",\"start_time\":$T,\"end_time\":$((T + events)),\"after\":\"$TOKEN\",\"aggregates\":[{\"fn\":\"count\"},{\"fn\":\"sum\",\"metric\":\"n\"}]}")
same "many events are counted and summed" "$(jq -c '.rows[0] | [.count, (.sum_n | floor)]' <<<"$many")" "[$events,$((events * (events - 1) / 2))]"
groups=$(ask "{\"namespace\":\"load\",\"table\":\"events\",\"start_time\":$T,\"end_time\":$((T + events)),\"group_by\":[\"k\"]}")
same "many events by group" "$(jq -c '[(.rows | length), ([.rows[].count] | add)]' <<<"$groups")" "[100,$events]"

# The cycle ends clean: exit code 0, and no line of the log is an error.
started=false
if "$root/stop-services.sh" --home "$home"; then pass; else fail "the server stops well"; fi
errors=$(grep -c '"level":"ERROR"' "$LOG_FILE" || true)
same "lines of error level in the log" "$errors" 0
[ "$errors" = 0 ] || grep -m 5 '"level":"ERROR"' "$LOG_FILE" >&2
summary
