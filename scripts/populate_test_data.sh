#!/usr/bin/env bash
# Sends the data sets of a directory through `truenow ingest`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"

data=$root/../shared/data
offset=0
suffix=""
form=columns
sets="access-log-combined access-log-nasa-1995 online-retail wikipedia-edits otto-sessions-sample nab-anomalies"
while [ $# -gt 0 ]; do
  case $1 in
    --data | --port-offset | --suffix | --sets | --form)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --data) data=$2 ;;
        --port-offset) offset=$2 ;;
        --suffix) suffix=$2 ;;
        --sets) sets=${2//,/ } ;;
        --form) form=$2 ;;
      esac
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/populate_test_data.sh [--data DIR] [--port-offset N] [--sets A,B] [--suffix TEXT] [--form columns|ndjson]

Sends each set of DIR to the table that its README names (web.requests, web.nasa_requests, shop.orders, wiki.edits,
shop.sessions, metrics.*). Sets that DIR does not hold are passed over, and said so.

  --data DIR        directory with a folder per set [default: ../shared/data]
  --sets A,B        only these folders
  --suffix TEXT     appended to the names of tables
  --form ndjson     send the same events as NDJSON over HTTP instead
  --port-offset N   as given to start-services.sh
HELP
      exit 0
      ;;
    *) die "unknown argument $1" "try scripts/populate_test_data.sh --help" ;;
  esac
  shift
done
bin=${BIN:-$root/target/release/truenow}
[ -d "$data" ] || die "there is no directory $data" "name one with --data DIR"
case $form in columns | ndjson) ;; *) die "--form $form is neither columns nor ndjson" ;; esac

# send NAMESPACE TABLE FILE OPTION...: one file to one table.
send() {
  local namespace=$1 table=$2$suffix file=$3
  shift 3
  say "$namespace.$table from ${file#"$data"/}"
  set -- "$file" --namespace "$namespace" --table "$table" "$@"
  if [ "$form" = columns ]; then
    "$bin" ingest "$@" --wait --port-offset "$offset"
  else
    "$bin" ingest "$@" --print | "$bin" ingest - --format ndjson --wait --namespace "$namespace" --table "$table" \
      --port-offset "$offset"
  fi
}

access-log-combined() {
  send web requests "$1/access.log.zst" --format combined --id line --dimensions client_ip,method,path,protocol,status,referer,user_agent --metrics bytes,requests=1
}

access-log-nasa-1995() {
  send web nasa_requests "$1/access.tsv.zst" --time time:s --id line --dimensions host,method,url,status=response --metrics bytes
}

online-retail() {
  send shop orders "$1/online_retail.csv.zst" --time InvoiceDate --id line \
    --dimensions user_id=CustomerID,product_id=StockCode,country=Country,invoice=InvoiceNo \
    --metrics quantity=Quantity,unit_price=UnitPrice,revenue=Quantity*UnitPrice
}

wikipedia-edits() {
  send wiki edits "$1/edits.ndjson.zst" --time time --id line \
    --dimensions channel,page,user,namespace,isRobot,isAnonymous,isMinor,isNew,countryIsoCode,cityName \
    --metrics added,deleted,delta
}

otto-sessions-sample() {
  # A session a line: its events become lines of their own.
  zstd -dcq "$1/train.jsonl.zst" | jq -c '.session as $user | .events[] | {user: $user, aid, ts, type}' >"$work/sessions.ndjson"
  send shop sessions "$work/sessions.ndjson" --time ts:ms --id line --dimensions user_id=user,event_type=type,product_id=aid
}

nab-anomalies() {
  local file folder
  mkdir -p "$work/nab"
  zstd -dcq "$1/nab.tar.zst" | tar -x -C "$work/nab"
  while IFS= read -r file; do
    folder=$(basename "$(dirname "$file")")
    send metrics "$folder" "$file" --time timestamp --id line --dimensions "series=\"$(basename "$file" .csv)\"" --metrics value
  done < <(find "$work/nab" -name '*.csv' | sort)
}

require zstd zstd
require jq jq
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for set in $sets; do
  if [ -d "$data/$set" ]; then "$set" "$data/$set"; else say "SKIPPED $set: $data does not hold it"; fi
done
