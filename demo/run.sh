#!/usr/bin/env bash
# Replays the sample of real events beside this script into a running server and asks questions about it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

offset=0
case ${1:-} in
  "") ;;
  --port-offset) offset=${2:?--port-offset needs a number} ;;
  *) die "unknown argument $1" "usage: demo/run.sh [--port-offset N]" ;;
esac
bin=${BIN:-$root/target/release/truenow}
control=http://127.0.0.1:$((8001 + offset))

# A demo starts from nothing, however often it is shown; a table that is not there is no error.
curl -s --noproxy '*' --max-time 10 -o /dev/null -X DELETE "$control/v1/tables/demo/edits"

say ""
say "20,282 real edits of Wikipedia, moved in time so that the last one is now:"
"$bin" ingest "$root/demo/edits.ndjson.zst" --namespace demo --table edits --port-offset "$offset" \
  --time time --shift-to-now --wait \
  --dimensions channel,page,user,namespace,isRobot,isAnonymous,isNew,countryName,cityName \
  --metrics added,deleted,delta

ask() {
  printf '\n%s\n%s\n' "$1" "$2"
  "$bin" query "$2" --last 24h --table --port-offset "$offset"
}

ask "How many edits were there, and how much text did they add and delete?" \
  '{"namespace":"demo","table":"edits","aggregates":[{"fn":"count"},{"fn":"sum","metric":"added"},{"fn":"sum","metric":"deleted"}]}'
ask "Which Wikipedias are edited most, by people rather than robots?" \
  '{"namespace":"demo","table":"edits","filters":{"isRobot":false},"group_by":["channel"],"aggregates":[{"fn":"count"},{"fn":"avg","metric":"added"},{"fn":"max","metric":"added"}],"order_by":[{"column":"count","desc":true}],"limit":5}'
ask "From which countries do anonymous edits come?" \
  '{"namespace":"demo","table":"edits","filters":{"countryName":{"exists":true}},"group_by":["countryName"],"order_by":[{"column":"count","desc":true}],"limit":5}'
ask "How did it go over the last three hours, in half hours?" \
  '{"namespace":"demo","table":"edits","interval_us":1800000000,"aggregates":[{"fn":"count"},{"fn":"sum","metric":"delta"}],"order_by":[{"column":"time","desc":true}],"limit":6}'
ask "Which new articles were started with the most text?" \
  '{"namespace":"demo","table":"edits","filters":{"isNew":true,"namespace":"Main"},"group_by":["channel","page"],"aggregates":[{"fn":"sum","metric":"added","as":"characters"}],"order_by":[{"column":"characters","desc":true}],"limit":5}'

cat <<TEXT

Each receipt says what its answer covers: "complete" means that nothing was missing, "exact" that no figure is an estimate,
the offsets are how far the log was read, and "fresh to" how long an acked event had been waiting at most.

Ask your own:   $bin query '{"namespace":"demo","table":"edits","group_by":["user"]}' --last 24h --port-offset $offset
Watch it:       $bin tail --namespace demo --table edits --port-offset $offset
Stop it:        ./stop-services.sh
TEXT
