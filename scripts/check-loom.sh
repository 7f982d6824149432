#!/usr/bin/env bash
# Runs the engine's loom models, then each of them again with one ordering weakened: the named model must then fail.
# A model that passes with the ordering that it is there for weakened proves nothing, so that is an error here.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

models() { cargo test --quiet -p engine --release --lib "$@" -- --nocapture >"$log" 2>&1; }

echo "all models, nothing weakened"
if ! models loom_; then
    cat "$log"
    echo "check-loom: a model fails" >&2
    exit 1
fi
grep 'schedules' "$log" || true

# What is weakened, and the model that has to notice.
weakened=(
    "entries-publish loom_strings_are_published_before_their_count"
    "entries-observe loom_strings_are_published_before_their_count"
    "rows-publish loom_rows_are_published_whole"
    "rows-observe loom_rows_are_published_whole"
    "runs-publish loom_rows_are_published_whole"
    "runs-observe loom_rows_are_published_whole"
    "applied-publish loom_offsets_cover_their_rows"
    "applied-observe loom_offsets_cover_their_rows"
    "offset-first loom_snapshots_are_cut_at_an_offset"
    "reclaim loom_evicted_memory_waits_for_its_readers"
    "rollup-before loom_rollups_have_each_row_once"
    "rollup-offset loom_rollups_have_each_row_once"
)
failures=0
for pair in "${weakened[@]}"; do
    read -r ordering model <<<"$pair"
    if ENGINE_WEAKEN="$ordering" models "$model"; then
        echo "NOT CAUGHT: $ordering weakened, $model passes" >&2
        failures=$((failures + 1))
    elif grep -qE "panicked|Causality|SIG" "$log"; then
        echo "caught: $ordering weakened, $model fails"
    else
        cat "$log"
        echo "check-loom: $ordering did not build" >&2
        failures=$((failures + 1))
    fi
done
exit "$((failures > 0))"
