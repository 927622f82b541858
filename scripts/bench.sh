#!/usr/bin/env bash
# Measures prop on PostgreSQL, beside pgbench running the same statements, and on SQLite.
set -euo pipefail
cd "$(dirname "$0")/.."

DEPLOYMENTS=${DEPLOYMENTS:-1000000} # rows to measure on; a multiple of 1000
DURATION=${DURATION:-10}            # seconds of each run
ROUNDS=${ROUNDS:-3}                 # runs of each kind, interleaved; the median counts
CONNECTIONS=${CONNECTIONS:-32}
STARTS=${STARTS:-11} # starts that are timed; the median counts
KINDS=(read list record)

usage() {
    cat <<END
Usage: scripts/bench.sh

Builds prop, fills a throw-away PostgreSQL (durability as it is by default) and a SQLite file with deployments, and runs
three kinds of work: read one deployment, list a place's latest 50, record a deployment. Ends in a Markdown table.

Needs Rust, PostgreSQL's server with pgbench, sqlite3, wrk, curl (Debian: postgresql postgresql-contrib sqlite3 wrk curl).
Everything is on 127.0.0.1 and gone at the end.

Variables: DEPLOYMENTS=$DEPLOYMENTS DURATION=$DURATION (seconds) ROUNDS=$ROUNDS CONNECTIONS=$CONNECTIONS STARTS=$STARTS
END
}

case ${1:-} in
    '') ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
esac

PG_BIN=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || PG_BIN=$(dirname "$(command -v initdb)")
for tool in "$PG_BIN/initdb" "$PG_BIN/pgbench" "$PG_BIN/psql" sqlite3 wrk curl; do
    command -v "$tool" >/dev/null || { echo "scripts/bench.sh: $tool is missing" >&2 && exit 2; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/prop-bench.XXXXXX")
prop_pid=
declare -A rate half most ratio base # results, by "database kind"

as_server() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}

stop_prop() {
    [ -n "$prop_pid" ] || return 0
    kill "$prop_pid" 2>/dev/null || true
    wait "$prop_pid" || true
    prop_pid=
}

clean_up() {
    stop_prop
    if [ -f "$work/cluster/data/postmaster.pid" ]; then
        as_server "$PG_BIN/pg_ctl" -D "$work/cluster/data" -m immediate -w stop >/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT

free_port() {
    local port
    while port=$((RANDOM % 20000 + 20000)); do
        if ! { : <>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# Of an even number of values, the mean of the two in the middle: never the better one.
median() { sort -n | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'; }

start_cluster() {
    mkdir "$work/cluster"
    chmod 711 "$work"
    [ "$(id -u)" != 0 ] || chown 65534 "$work/cluster"
    as_server "$PG_BIN/initdb" -D "$work/cluster/data" -U prop -A trust -E UTF8 --locale=C.UTF-8 >"$work/initdb.log"
    pg_port=$(free_port)
    local options="-p $pg_port -k $work/cluster -c listen_addresses=127.0.0.1"
    as_server "$PG_BIN/pg_ctl" -D "$work/cluster/data" -l "$work/cluster/log" -w -o "$options" start >/dev/null
    export PGHOST=127.0.0.1 PGPORT=$pg_port PGUSER=prop PGDATABASE=postgres
    "$PG_BIN/psql" -qc 'CREATE DATABASE prop'
    export PGDATABASE=prop
}

# start_prop DATABASE_URL: leaves its pid, and in `ready_ms` the time until /readyz answered 200. Its log goes to a file.
start_prop() {
    local from=$EPOCHREALTIME status='' to
    DATABASE_URL=$1 PROP_HTTP__PORT=$port "$prop" >>"$work/prop.log" 2>&1 &
    prop_pid=$!
    while [[ $status != *' 200 '* ]]; do
        kill -0 "$prop_pid" 2>/dev/null || { tail "$work/prop.log" >&2 && exit 1; }
        if { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
            printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
            read -r status <&3 || true
            exec 3>&-
        else
            sleep 0.001
        fi
    done
    to=$EPOCHREALTIME
    ready_ms=$(((${to/[.,]/} - ${from/[.,]/}) / 1000))
}

# start_time DATABASE_URL: the median of several starts, in milliseconds.
start_time() {
    for _ in $(seq "$STARTS"); do
        start_prop "$1"
        echo "$ready_ms"
        stop_prop
    done | median
}

# memory FIELD: of the running prop, in MB.
memory() { awk -v field="$1:" '$1 == field { printf "%.1f", $2 / 1024 }' "/proc/$prop_pid/status"; }

# ask KIND: one run of wrk: "requests/s p50 p99 failed". Patient for longer than prop is: a slow answer is measured, not lost.
ask() {
    LUA_PATH='scripts/bench/?.lua' BENCH_DEPLOYMENTS=$DEPLOYMENTS \
        wrk -t2 -c"$CONNECTIONS" -d"${DURATION}s" --timeout 15s -s "scripts/bench/$1.lua" "http://127.0.0.1:$port" | awk '/^RESULT/ { print $2, $3, $4, $5 }'
}

# compare KIND: one run of pgbench: transactions per second.
compare() {
    # What prop binds is bound here, too, limits included: a constant in its place is planned differently.
    "$PG_BIN/pgbench" -n -M prepared -c "$CONNECTIONS" -j 2 -T "$DURATION" -D deployments="$DEPLOYMENTS" -D one=1 -D page=51 \
        -f "scripts/bench/$1.sql" \
        >"$work/pgbench.log" 2>&1 || { tail "$work/pgbench.log" >&2 && exit 1; }
    awk '/^tps/ { printf "%.0f\n", $3 }' "$work/pgbench.log"
}

# measure DATABASE: every kind of work, interleaved.
measure() {
    local database=$1 kind result at
    for round in $(seq "$ROUNDS"); do
        for kind in "${KINDS[@]}"; do
            result=$(ask "$kind")
            echo "$result" >>"$work/$database.$kind"
            echo "$database, round $round, $kind: $result" >&2
            [ "${result##* }" = 0 ] || { echo "requests failed" >&2 && exit 1; }
            if [ "$database" = PostgreSQL ]; then
                compare "$kind" | tee -a "$work/pgbench.$kind" >&2
            fi
        done
    done
    for kind in "${KINDS[@]}"; do
        at="$database $kind"
        rate[$at]=$(cut -d' ' -f1 "$work/$database.$kind" | median)
        half[$at]=$(cut -d' ' -f2 "$work/$database.$kind" | median)
        most[$at]=$(cut -d' ' -f3 "$work/$database.$kind" | median)
        base[$at]=-
        ratio[$at]=-
        if [ "$database" = PostgreSQL ]; then
            base[$at]=$(median <"$work/pgbench.$kind")
            ratio[$at]=$(awk -v a="${rate[$at]}" -v b="${base[$at]}" 'BEGIN { printf "%.2f", a / b }')
        fi
    done
}

# bench DATABASE URL: start time, memory, and the three kinds of work.
declare -A starts idle loaded
bench() {
    starts[$1]=$(start_time "$2")
    start_prop "$2"
    idle[$1]=$(memory VmRSS)
    measure "$1"
    loaded[$1]=$(memory VmHWM)
    stop_prop
}

cargo build --release --locked
prop=${CARGO_TARGET_DIR:-$PWD/target}/release/prop
PROP_KEY=$("$prop" key generate)
export PROP_KEY PROP_BOOTSTRAP_KEY=$PROP_KEY
port=$(free_port)

echo "loading $DEPLOYMENTS deployments into PostgreSQL" >&2
start_cluster
postgres_url="postgres://prop@127.0.0.1:$pg_port/prop"
DATABASE_URL=$postgres_url "$prop" migrate
"$PG_BIN/psql" -q -v ON_ERROR_STOP=1 -v deployments="$DEPLOYMENTS" -f scripts/bench/load.postgres.sql
"$PG_BIN/psql" -qc CHECKPOINT
bench PostgreSQL "$postgres_url"

echo "loading $DEPLOYMENTS deployments into SQLite" >&2
sqlite_file=$work/prop.db
DATABASE_URL=sqlite:$sqlite_file "$prop" migrate
sqlite3 -bail -cmd '.parameter init' -cmd ".parameter set @deployments $DEPLOYMENTS" "$sqlite_file" <scripts/bench/load.sqlite.sql
bench SQLite "sqlite:$sqlite_file"

printf '\n| database | work | requests/s | p50 ms | p99 ms | pgbench tps | ratio |\n|---|---|--:|--:|--:|--:|--:|\n'
for database in PostgreSQL SQLite; do
    for kind in "${KINDS[@]}"; do
        at="$database $kind"
        echo "| $database | $kind | ${rate[$at]} | ${half[$at]} | ${most[$at]} | ${base[$at]} | ${ratio[$at]} |"
    done
done
printf '\n| | PostgreSQL | SQLite |\n|---|--:|--:|\n'
echo "| ready after, ms | ${starts[PostgreSQL]} | ${starts[SQLite]} |"
echo "| memory idle, MB | ${idle[PostgreSQL]} | ${idle[SQLite]} |"
echo "| memory at most under load, MB | ${loaded[PostgreSQL]} | ${loaded[SQLite]} |"
printf '\nBinary, stripped: %s MB. ' "$(awk -v bytes="$(stat -c %s "$prop")" 'BEGIN { printf "%.1f", bytes / 1e6 }')"
echo "$DEPLOYMENTS deployments, $CONNECTIONS connections, $ROUNDS x $DURATION s of each, $(nproc) cores, $("$PG_BIN/postgres" --version)."
