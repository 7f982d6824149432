#!/usr/bin/env bash
# Clusters of processes over Kafka, PostgreSQL and Redis of their own: random questions to one that is left alone, then one of which
# parts die, stand still and are cut off, under ingest and questions. Mounts a small file system in memory for Kafka's log where it
# may, so that it can be full.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=checks.sh
. scripts/checks.sh

offset=22800
queries=0
code=0
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --acceptance | --port-offset)
      [ $# -ge 2 ] || die "$1 needs a number"
      if [ "$1" = --acceptance ]; then queries=$2; else offset=$2; fi
      shift
      ;;
    -h | --help)
      cat <<'HELP'
usage: scripts/test_cluster.sh [--acceptance N] [--port-offset N] [ARGUMENT...]

  --acceptance N    first N random questions per set of events to a cluster that start-services.sh starts, where
                    ../shared/acceptance is
  ARGUMENT          of `scripts/test_system.sh cluster`, whose scenarios follow; its --help lists them

BIN: another program than the one that build.sh makes.
HELP
      exit 0
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
bin=${BIN:-$root/target/release/truenow}
home=$(mktemp -d)
# PostgreSQL runs as a user of its own where this is root, and has to enter it.
chmod 711 "$home"
finish() {
  if [ -s "$home/cluster/run/cluster" ]; then ./stop-services.sh --home "$home/cluster" || true; fi
  as_root umount "$home/disk" 2>/dev/null || true
  rm -rf "$home"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ask_at_random: the questions of --acceptance to a cluster that is left alone.
ask_at_random() {
  local seed=$((RANDOM * 32768 + RANDOM))
  at() { printf 'http://127.0.0.1:%s' $(($1 + offset)); }
  BIN=$bin ./start-services.sh --cluster --home "$home/cluster" --port-offset "$offset" 2>/dev/null
  say "acceptance.py --seed $seed --queries $queries"
  if python3 ../shared/acceptance/acceptance.py --data ../shared/data --seed "$seed" --queries "$queries" --gateway "$(at 8188)" \
    --query "$(at 8181)" --watermark "$(at 8084)" --control "$(at 8001)"; then pass; else fail "acceptance"; fi
  # shellcheck disable=SC2016 # expands in the program
  printf '#!/usr/bin/env bash\nif [ "$1" = --version ]; then echo "truenow 0.0.0"; else exec "%s" "$@"; fi\n' "$bin" >"$home/older"
  chmod +x "$home/older"
  if BIN=$home/older ./start-services.sh --rolling-restart --home "$home/cluster" 2>"$home/refusal"; then
    fail "a step back"
  elif grep -q 'runs version .*, the program is 0\.0\.0' "$home/refusal"; then
    pass
  else
    fail "a step back is refused: $(cat "$home/refusal")"
  fi
  if BIN=$bin ./start-services.sh --rolling-restart --home "$home/cluster"; then pass; else fail "the rolling restart"; fi
  if "$bin" verify --port-offset "$offset"; then pass; else fail "truenow verify"; fi
  ./stop-services.sh --home "$home/cluster"
  rm -rf "$home/cluster"
  summary
}

if [ "$queries" -gt 0 ] && [ -f ../shared/acceptance/acceptance.py ] && [ -d ../shared/data ]; then
  require python3 python3
  ask_at_random || code=1
fi
mkdir "$home/disk"
if as_root mount -t tmpfs -o "size=384m,mode=0777" tmpfs "$home/disk" 2>/dev/null; then arguments+=(--log-disk "$home/disk"); fi
scripts/test_system.sh cluster --bin "$bin" --port-offset "$offset" ${arguments[@]+"${arguments[@]}"} || code=1
exit "$code"
