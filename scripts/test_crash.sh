#!/usr/bin/env bash
# kill -9 of the real server again and again, under ingest by every way in with retries, while questions are asked: nothing
# acked is lost, nothing counts twice, no complete answer is wrong. Takes the arguments of the program that does it.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/test_system.sh" crash "$@"
