# Sourced by the test scripts: counts checks and says which fail.
# shellcheck shell=bash

PASSED=0
FAILED=0
SKIPPED=0

pass() { PASSED=$((PASSED + 1)); }

fail() {
  FAILED=$((FAILED + 1))
  printf 'FAILED %s\n' "$1" >&2
  shift
  for detail in "$@"; do printf '  %s\n' "$detail" >&2; done
}

skip() {
  SKIPPED=$((SKIPPED + 1))
  printf 'SKIPPED %s\n' "$1" >&2
}

# same WHAT GOT WANTED: the two texts are equal.
same() {
  if [ "$2" = "$3" ]; then pass; else fail "$1" "got    $2" "wanted $3"; fi
}

# summary: the last line of a test script; fails if a check did. What was skipped did not pass, so it is named.
summary() {
  printf '%s passed, %s failed' "$PASSED" "$FAILED"
  [ "$SKIPPED" = 0 ] || printf ', %s skipped' "$SKIPPED"
  printf '\n'
  [ "$FAILED" = 0 ]
}

# post URL BODY: prints the reply's body and, on a last line, its status.
post() {
  curl -s --noproxy '*' --max-time 120 -H 'content-type: application/json' -d "$2" -w '\n%{http_code}\n' "$1"
}

# ask QUERY: prints the answer to a query, whatever its status.
ask() { curl -s --noproxy '*' --max-time 120 -H 'content-type: application/json' -d "$1" "$QUERY/v1/query"; }
