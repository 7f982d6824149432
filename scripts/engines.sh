# Sourced by the scripts that start and stop the engines which a cluster stands on: ports, users and arguments.
# shellcheck shell=bash

# engine_arguments USAGE ARGUMENT...: sets `home` (absolute, made where it is missing) and `port` (empty: a free one).
engine_arguments() {
  local usage=$1
  shift
  home=
  port=
  while [ $# -gt 0 ]; do
    case $1 in
      --home | --port)
        [ $# -ge 2 ] || die "$1 needs a value"
        if [ "$1" = --home ]; then home=$2; else port=$2; fi
        shift
        ;;
      -h | --help)
        printf '%s\n' "$usage"
        exit 0
        ;;
      *) die "unknown argument $1" "$usage" ;;
    esac
    shift
  done
  [ -n "$home" ] || die "--home is missing" "$usage"
  case $port in *[!0-9]*) die "--port $port is no number" ;; esac
  # Whom the engine runs as has to be able to enter it.
  [ -d "$home" ] || (umask 022 && mkdir -p "$home")
  home=$(cd "$home" && pwd)
}

# free_port: prints a port of this machine's loopback on which nothing listens now.
free_port() {
  local candidate
  for _ in $(seq 100); do
    # Below the ports that the system hands to clients.
    candidate=$((20000 + RANDOM % 12000))
    (: <>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null && continue
    printf '%s\n' "$candidate"
    return 0
  done
  die "no free port was found"
}

# random_password: prints 32 hexadecimal digits.
random_password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# as_user USER COMMAND...: runs it as USER where this is root, else as who this is.
as_user() {
  local user=$1
  shift
  if [ "$(id -u)" = 0 ]; then runuser -u "$user" -- "$@"; else "$@"; fi
}
