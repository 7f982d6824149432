#!/usr/bin/env bash
# Starts a PostgreSQL of its own, for tests and for machines without one, and prints its URL.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=engines.sh
. "$root/scripts/engines.sh"

engine_arguments "usage: scripts/start_postgres.sh --home DIR [--port N]

Starts PostgreSQL on 127.0.0.1 with its data, log and password below DIR, and prints the URL with the password. What DIR has
from an earlier start is kept. scripts/stop_postgres.sh --home DIR stops it." "$@"

require_postgres
# PostgreSQL refuses to run as root.
user=$(id -un)
if [ "$user" = root ]; then
  user=postgres
  id "$user" >/dev/null 2>&1 || die "there is no user $user, and PostgreSQL does not run as root"
fi
data=$home/postgres
url_file=$home/postgres.url
password_file=$home/postgres.password
if as_user "$user" "$PG_BIN/pg_ctl" -D "$data" status >/dev/null 2>&1; then
  die "a PostgreSQL runs already in $data" "stop it with scripts/stop_postgres.sh --home $home"
fi
as_user "$user" test -x "$home" || die "user $user cannot enter $home" "choose a directory that it may enter"

[ -s "$password_file" ] || (umask 077 && random_password >"$password_file")
if [ ! -d "$data" ]; then
  install -d -m 700 -o "$user" "$data"
  # The password goes through a file of the one who reads it, never through an argument.
  pwfile=$data.pw
  install -m 600 -o "$user" "$password_file" "$pwfile"
  as_user "$user" "$PG_BIN/initdb" -D "$data" --username=truenow --pwfile="$pwfile" --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C >"$home/postgres.initdb.log" 2>&1 ||
    die "initdb failed" "$(tail -n 3 "$home/postgres.initdb.log")"
  rm -f "$pwfile"
fi

install -m 600 -o "$user" /dev/null "$home/postgres.log"
# Another process may take a port that was free: then another is tried.
for _ in 1 2 3 4 5; do
  at=${port:-$(free_port)}
  if as_user "$user" "$PG_BIN/pg_ctl" -D "$data" -l "$home/postgres.log" -w -t 60 -s \
    -o "-p $at -c listen_addresses=127.0.0.1 -c unix_socket_directories=" start >/dev/null 2>&1; then
    (umask 077 && printf 'postgres://truenow:%s@127.0.0.1:%s/postgres\n' "$(cat "$password_file")" "$at" >"$url_file")
    cat "$url_file"
    exit 0
  fi
  [ -z "$port" ] || break
done
die "PostgreSQL did not start" "$(tail -n 5 "$home/postgres.log")"
