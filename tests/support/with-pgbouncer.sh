#!/usr/bin/env bash
# Runs a command with a temporary PostgreSQL behind a temporary PgBouncer in transaction mode.
set -euo pipefail

usage() {
    cat <<'END'
Usage: tests/support/with-pgbouncer.sh COMMAND [ARGUMENT]...
Run a command with a temporary PostgreSQL behind a temporary PgBouncer in transaction mode.

The command gets TEST_DATABASE_URL and TEST_PROP_PREPARED_STATEMENTS=false in its environment. Both servers are stopped and
deleted at the end.

Options:
  -h, --help  print this help

Examples:
  tests/support/with-pgbouncer.sh cargo test --test api postgres

Exit codes:
  127  no command was given, PostgreSQL or PgBouncer is missing, or PgBouncer did not start
  All other codes are those of the command.
END
}

fail() {
    echo "with-pgbouncer.sh: $1" >&2
    exit 127
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    '') fail "missing argument: COMMAND. See with-pgbouncer.sh --help." ;;
esac
PATH=$PATH:/usr/sbin
command -v pgbouncer >/dev/null || fail "pgbouncer not found. On Debian, install the package pgbouncer."
for bin in /usr/lib/postgresql/*/bin "$(dirname "$(command -v initdb || echo .)")"; do
    [ -x "$bin/initdb" ] && break
done
[ -x "$bin/initdb" ] || fail "initdb not found. On Debian, install the package postgresql."

dir=$(mktemp -d)
# Neither server can run as root, but the command may.
unprivileged=
if [ "$(id -u)" = 0 ]; then
    chown 65534:65534 "$dir"
    unprivileged="setpriv --reuid=65534 --regid=65534 --clear-groups"
fi
chmod 711 "$dir"

bouncer=
clean_up() {
    [ -z "$bouncer" ] || kill "$bouncer" 2>/dev/null || true
    $unprivileged "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Unix sockets in a temporary directory, so that no port is needed.
$unprivileged "$bin/initdb" -D "$dir/data" -U prop -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
$unprivileged "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start \
    -o "-k $dir -p 5432 -c listen_addresses= -c max_connections=2000 -c fsync=off" >/dev/null

# Two server connections per database for the eight connections of each prop, so that clients must share connections.
cat >"$dir/pgbouncer.ini" <<INI
[databases]
* = host=$dir port=5432
[pgbouncer]
listen_addr =
unix_socket_dir = $dir
listen_port = 6432
pool_mode = transaction
default_pool_size = 2
max_client_conn = 2000
server_idle_timeout = 5
auth_type = trust
auth_file = $dir/users
logfile = $dir/pgbouncer.log
INI
echo '"prop" ""' >"$dir/users"
chmod 644 "$dir/pgbouncer.ini" "$dir/users"
# Not in a function: `$!` must be the server's process id, not that of a shell around it.
$unprivileged pgbouncer -q "$dir/pgbouncer.ini" </dev/null >/dev/null 2>&1 &
bouncer=$!
tries=0
until "$bin/pg_isready" -q -h "$dir" -p 6432 -U prop -d postgres; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "PgBouncer did not start: $(cat "$dir/pgbouncer.log")"
    sleep 0.1
done

TEST_DATABASE_URL="postgres://prop@/postgres?host=$dir&port=6432" TEST_PROP_PREPARED_STATEMENTS=false "$@"
