#!/usr/bin/env bash
# Real events in, exact answers out: every figure of the sets' expected.json, by both ways in.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=checks.sh
. "$root/scripts/checks.sh"

data=$root/../shared/data
offset=0
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=${2:?--data needs a directory} && shift ;;
    --port-offset) offset=${2:?--port-offset needs a number} && shift ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/test_real_data.sh [--data DIR] [--port-offset N]

Sends the sets of DIR (see populate_test_data.sh) to a running server as columns and again as NDJSON over HTTP, and holds
its answers against the expected.json beside each set. Where DIR is missing the sample of the demo is used instead.
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/test_real_data.sh --help" ;;
  esac
  shift
done
require curl curl ca-certificates
require jq jq
# Used by checks.sh.
# shellcheck disable=SC2034
QUERY=http://127.0.0.1:$((8081 + offset))
RANGE='"start_time":0,"end_time":4102444800000000'

# figures NAMESPACE TABLE AGGREGATES: the one row of a query over all, its keys sorted.
figures() { ask "{\"namespace\":\"$1\",\"table\":\"$2\",$RANGE,\"aggregates\":$3}" | jq -cS '.rows[0] // .'; }

# groups NAMESPACE TABLE COLUMN LIMIT: the greatest groups with their counts, as [[value,count],...].
groups() {
  ask "{\"namespace\":\"$1\",\"table\":\"$2\",$RANGE,\"group_by\":[\"$3\"],\"order_by\":[{\"column\":\"count\",\"desc\":true}],\"limit\":$4}" |
    jq -c --arg column "$3" 'if .rows then [.rows[] | [.[$column], .count]] else . end'
}

# count NAMESPACE TABLE FILTERS
count() { ask "{\"namespace\":\"$1\",\"table\":\"$2\",$RANGE,\"filters\":$3}" | jq -c '.rows[0].count // .'; }

# wanted SET FILTER: a figure of expected.json.
wanted() { jq -cS "$2" "$data/$1/expected.json"; }

check_access_log() {
  local t=requests$1 s=access-log-combined f
  f=$(figures web "$t" '[{"fn":"count","as":"lines"},{"fn":"count","metric":"bytes","as":"bytes_count"},{"fn":"sum","metric":"bytes","as":"bytes_sum"},{"fn":"max","metric":"bytes","as":"bytes_max"},{"fn":"sum","metric":"requests","as":"requests"}]')
  same "$t figures" "$(jq -cS 'map_values(floor)' <<<"$f")" "$(wanted $s '{lines, bytes_count, bytes_sum, bytes_max, requests: .lines}')"
  same "$t by status" "$(groups web "$t" status 100 | jq -cS 'map({key: .[0], value: .[1]}) | from_entries')" "$(wanted $s .by_status)"
  same "$t paths" "$(groups web "$t" path 5)" "$(wanted $s .top5_paths)"
  same "$t distinct client_ip" "$(groups web "$t" client_ip 100000 | jq length)" "$(wanted $s .distinct_ip)"
  # The lines without one count as one there; here they are the group of null.
  same "$t distinct user_agent" "$(groups web "$t" user_agent 100000 | jq length)" "$(wanted $s .distinct_user_agent)"
}

check_nasa() {
  local t=nasa_requests$1 s=access-log-nasa-1995 f
  f=$(figures web "$t" '[{"fn":"count","as":"rows"},{"fn":"count","metric":"bytes","as":"bytes_count"},{"fn":"sum","metric":"bytes","as":"bytes_sum"},{"fn":"max","metric":"bytes","as":"bytes_max"}]')
  same "$t figures" "$(jq -cS 'map_values(floor)' <<<"$f")" "$(wanted $s '{rows, bytes_count, bytes_sum, bytes_max}')"
  same "$t by status" "$(groups web "$t" status 100 | jq -cS 'map({key: .[0], value: .[1]}) | from_entries')" "$(wanted $s .by_status)"
  same "$t urls" "$(groups web "$t" url 5)" "$(wanted $s .top5_urls)"
  same "$t distinct host" "$(groups web "$t" host 100000 | jq length)" "$(wanted $s .distinct_host)"
}

check_retail() {
  local t=orders$1 s=online-retail f
  f=$(figures shop "$t" '[{"fn":"count","as":"rows"},{"fn":"sum","metric":"quantity","as":"quantity_sum"},{"fn":"sum","metric":"revenue","as":"revenue_sum"}]')
  same "$t figures" "$(jq -cS '.revenue_sum = (.revenue_sum * 100 | round / 100) | .quantity_sum |= floor' <<<"$f")" "$(wanted $s '{rows, quantity_sum, revenue_sum}')"
  same "$t countries" "$(groups shop "$t" country 5)" "$(wanted $s .by_country_top5)"
  same "$t without customer" "$(count shop "$t" '{"user_id":{"exists":false}}')" "$(wanted $s .rows_without_customer)"
  same "$t cancellations" "$(count shop "$t" '{"invoice":{"prefix":"C"}}')" "$(wanted $s .cancellation_rows)"
  same "$t distinct invoice" "$(groups shop "$t" invoice 100000 | jq length)" "$(wanted $s .distinct_invoice)"
  same "$t days" "$(ask "{\"namespace\":\"shop\",\"table\":\"$t\",$RANGE,\"interval_us\":86400000000}" | jq '.rows | length')" "$(wanted $s .days)"
}

check_wikipedia() {
  local t=edits$1 s=wikipedia-edits f
  f=$(figures wiki "$t" '[{"fn":"count","as":"rows"},{"fn":"sum","metric":"added","as":"added_sum"},{"fn":"sum","metric":"deleted","as":"deleted_sum"}]')
  same "$t figures" "$(jq -cS 'map_values(floor)' <<<"$f")" "$(wanted $s '{rows, added_sum, deleted_sum}')"
  same "$t channels" "$(groups wiki "$t" channel 5)" "$(wanted $s .top5_channels)"
  same "$t countries" "$(groups wiki "$t" countryIsoCode 6 | jq -c 'map(select(.[0] != null))[:5]')" "$(wanted $s .top5_countries)"
  same "$t robots" "$(groups wiki "$t" isRobot 10 | jq -cS 'map({key: .[0], value: .[1]}) | from_entries')" "$(wanted $s .is_robot)"
  same "$t anonymous" "$(count wiki "$t" '{"isAnonymous":true}')" "$(wanted $s .anonymous_rows)"
  same "$t distinct user" "$(groups wiki "$t" user 100000 | jq length)" "$(wanted $s .distinct_user)"
  # The first and the last event are in, and nothing lies beyond them.
  local span='{"namespace":"wiki","table":"'$t'","start_time":1442018855776000,"end_time":1442066399555001}'
  same "$t from first to last" "$(ask "$span" | jq -c '.rows[0].count')" "$(wanted $s .rows)"
}

sets=access-log-combined,access-log-nasa-1995,online-retail,wikipedia-edits
if [ ! -d "$data" ]; then
  skip "three of four real data sets, both ways: there is no $data; the sample of the demo stands in"
  data=$(mktemp -d)
  trap 'rm -rf "$data"' EXIT
  mkdir "$data/wikipedia-edits"
  cp "$root/demo/edits.ndjson.zst" "$root/demo/expected.json" "$data/wikipedia-edits/"
  sets=wikipedia-edits
fi
run=$(date +%s)
for form in columns ndjson; do
  suffix=_${form}_$run
  if "$root/scripts/populate_test_data.sh" --data "$data" --sets "$sets" --suffix "$suffix" --form "$form" --port-offset "$offset"; then
    pass
  else
    fail "sending the sets as $form"
  fi
  case $sets in *access*) check_access_log "$suffix" && check_nasa "$suffix" && check_retail "$suffix" ;; esac
  check_wikipedia "$suffix"
done
summary
