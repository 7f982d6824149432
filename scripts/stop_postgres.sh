#!/usr/bin/env bash
# Stops the PostgreSQL that scripts/start_postgres.sh started.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=engines.sh
. "$root/scripts/engines.sh"

engine_arguments "usage: scripts/stop_postgres.sh --home DIR" "$@"
require_postgres
user=$(id -un)
[ "$user" != root ] || user=postgres
rm -f "$home/postgres.url"
as_user "$user" "$PG_BIN/pg_ctl" -D "$home/postgres" status >/dev/null 2>&1 || exit 0
as_user "$user" "$PG_BIN/pg_ctl" -D "$home/postgres" -m fast -w -t 30 -s stop >/dev/null
