#!/usr/bin/env bash
# Measures everything and makes docs/performance.md with its graphs of it.
#
#   scripts/bench.sh                    all parts, 20 to 30 minutes
#   scripts/bench.sh --quick            all parts, shorter and with fewer rows: a look, not figures
#   scripts/bench.sh PART…              these parts, and the page with what else was measured before
#   scripts/bench.sh --list             the parts
#
# Where they are at hand, the ten queries run beside other engines:
#   BENCH_DATA     directory of the workload: raw/*.bin and hot.parquet
#   BENCH_PYTHON   a Python that has duckdb, chdb, polars and datafusion
#   BENCH_PEERS    which of them [default: duckdb-enum,chdb-memory,polars,datafusion]
#   BENCH_RUNNER   their runner [default: ../shared/bench/peers/run_peers.py]
#   BENCH_OUT      directory of results [default: target/performance]
#   BENCH_DIR      where servers keep their data meanwhile, some 10 GB [default: the system's]
#   BENCH_PORTS    added to every port of the servers [default: 27000]
set -euo pipefail
cd "$(dirname "$0")/.."

quick=() parts=()
for argument in "$@"; do
    case $argument in
        --quick) quick=(--quick) ;;
        --list) list=1 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "unknown option $argument; --help tells" >&2; exit 2 ;;
        *) parts+=("$argument") ;;
    esac
done

echo "building (release) ..."
cargo build --release --quiet -p truenow -p bench --bins
program=${CARGO_TARGET_DIR:-target}/release/performance
if [ -n "${list:-}" ]; then
    exec "$program" --help
fi

options=(--out "${BENCH_OUT:-target/performance}" --port-offset "${BENCH_PORTS:-27000}")
options+=(--bin "${CARGO_TARGET_DIR:-target}/release/truenow")
if [ -n "${BENCH_DIR:-}" ]; then
    mkdir -p "$BENCH_DIR"
    options+=(--dir "$BENCH_DIR")
fi
if [ -n "${BENCH_DATA:-}" ]; then
    options+=(--data "$BENCH_DATA")
fi
if [ -n "${BENCH_PYTHON:-}" ]; then
    options+=(--python "$BENCH_PYTHON" --peer "${BENCH_PEERS:-duckdb-enum,chdb-memory,polars,datafusion}")
fi
if [ -n "${BENCH_RUNNER:-}" ]; then
    options+=(--peers "$BENCH_RUNNER")
fi
echo "load: $(cut -d' ' -f1-4 /proc/loadavg)"
if [ ${#parts[@]} -eq 0 ]; then
    exec "$program" "${options[@]}" "${quick[@]}" all
fi
exec "$program" "${options[@]}" "${quick[@]}" "${parts[@]}" page
