#!/usr/bin/env bash
# Measures prop on PostgreSQL and SQLite, and pgbench with the same statements.
set -euo pipefail
cd "$(dirname "$0")/.."

DEPLOYMENTS=${DEPLOYMENTS:-1000000}
DURATION=${DURATION:-10}
ROUNDS=${ROUNDS:-3}
CONNECTIONS=${CONNECTIONS:-32}
STARTS=${STARTS:-11}
KINDS=(read list record)

usage() {
    cat <<END
Usage: scripts/bench.sh
Measure prop's throughput, latency, start time and memory on PostgreSQL and SQLite, and print Markdown tables.

The script builds prop and fills a temporary PostgreSQL (with default durability settings) and a SQLite file. It runs three
kinds of requests: read one deployment, list the latest 50 deployments of a place (a service in an environment), and record a
deployment. On PostgreSQL, pgbench runs the same statements for comparison. All servers listen on 127.0.0.1 and are deleted at
the end. The script needs Rust, PostgreSQL's server with pgbench, sqlite3, wrk and curl (Debian packages: postgresql,
postgresql-contrib, sqlite3, wrk, curl).

Options:
  -h, --help   print this help

Environment:
  DEPLOYMENTS  number of deployments in the database, a multiple of 1000 (now: $DEPLOYMENTS)
  DURATION     seconds of each run (now: $DURATION)
  ROUNDS       runs of each kind, interleaved; the tables have the median (now: $ROUNDS)
  CONNECTIONS  concurrent connections (now: $CONNECTIONS)
  STARTS       measured starts of prop; the tables have the median (now: $STARTS)

Examples:
  DEPLOYMENTS=10000 DURATION=2 ROUNDS=1 scripts/bench.sh

Exit codes:
  0  done
  1  a server or a request failed
  2  wrong argument or a missing tool
  If the build fails, the exit code is that of cargo.
END
}

case ${1:-} in
    '') ;;
    -h | --help) usage && exit ;;
    -*) echo "bench.sh: unknown option '$1'. See bench.sh --help." >&2 && exit 2 ;;
    *) echo "bench.sh: unexpected argument '$1'. See bench.sh --help." >&2 && exit 2 ;;
esac

PG_BIN=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || PG_BIN=$(dirname "$(command -v initdb)")
for tool in "$PG_BIN/initdb" "$PG_BIN/pgbench" "$PG_BIN/psql" sqlite3 wrk curl; do
    command -v "$tool" >/dev/null || { echo "bench.sh: $tool not found. See bench.sh --help for the packages that it needs." >&2 && exit 2; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/prop-bench.XXXXXX")
prop_pid=
declare -A rate p50 p99 ratio pgbench_rate # results, by "DATABASE KIND"

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

# median: prints the median of the lines of standard input. For an even number, the mean of the two in the middle.
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

# start_prop DATABASE_URL: starts prop, and sets prop_pid, and ready_ms to the time until /readyz returned 200.
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

# start_time DATABASE_URL: prints the median time of several starts, in milliseconds.
start_time() {
    for _ in $(seq "$STARTS"); do
        start_prop "$1"
        echo "$ready_ms"
        stop_prop
    done | median
}

# memory FIELD: prints a memory figure of the running prop, in MB.
memory() { awk -v field="$1:" '$1 == field { printf "%.1f", $2 / 1024 }' "/proc/$prop_pid/status"; }

# run_wrk KIND: one run of wrk. Prints "requests/s p50 p99 failed". The timeout is longer than prop's, so that slow responses are
# measured too.
run_wrk() {
    LUA_PATH='scripts/bench/?.lua' BENCH_DEPLOYMENTS=$DEPLOYMENTS \
        wrk -t2 -c"$CONNECTIONS" -d"${DURATION}s" --timeout 15s -s "scripts/bench/$1.lua" "http://127.0.0.1:$port" | awk '/^RESULT/ { print $2, $3, $4, $5 }'
}

# run_pgbench KIND: one run of pgbench. Prints transactions per second.
run_pgbench() {
    # Limits are parameters, as in prop's statements: PostgreSQL may choose another plan for a constant.
    "$PG_BIN/pgbench" -n -M prepared -c "$CONNECTIONS" -j 2 -T "$DURATION" -D deployments="$DEPLOYMENTS" -D one=1 -D page=51 \
        -f "scripts/bench/$1.sql" \
        >"$work/pgbench.log" 2>&1 || { tail "$work/pgbench.log" >&2 && exit 1; }
    awk '/^tps/ { printf "%.0f\n", $3 }' "$work/pgbench.log"
}

# measure DATABASE: runs all kinds of requests, interleaved.
measure() {
    local database=$1 kind result at
    for round in $(seq "$ROUNDS"); do
        for kind in "${KINDS[@]}"; do
            result=$(run_wrk "$kind")
            echo "$result" >>"$work/$database.$kind"
            echo "$database, round $round, $kind: $result" >&2
            [ "${result##* }" = 0 ] || { echo "bench.sh: ${result##* } requests failed" >&2 && exit 1; }
            if [ "$database" = PostgreSQL ]; then
                run_pgbench "$kind" | tee -a "$work/pgbench.$kind" >&2
            fi
        done
    done
    for kind in "${KINDS[@]}"; do
        at="$database $kind"
        rate[$at]=$(cut -d' ' -f1 "$work/$database.$kind" | median)
        p50[$at]=$(cut -d' ' -f2 "$work/$database.$kind" | median)
        p99[$at]=$(cut -d' ' -f3 "$work/$database.$kind" | median)
        pgbench_rate[$at]=-
        ratio[$at]=-
        if [ "$database" = PostgreSQL ]; then
            pgbench_rate[$at]=$(median <"$work/pgbench.$kind")
            ratio[$at]=$(awk -v a="${rate[$at]}" -v b="${pgbench_rate[$at]}" 'BEGIN { printf "%.2f", a / b }')
        fi
    done
}

# bench DATABASE URL: measures start time, memory and the three kinds of requests.
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

printf '\n| database | request | requests/s | p50 ms | p99 ms | pgbench tps | ratio |\n|---|---|--:|--:|--:|--:|--:|\n'
for database in PostgreSQL SQLite; do
    for kind in "${KINDS[@]}"; do
        at="$database $kind"
        echo "| $database | $kind | ${rate[$at]} | ${p50[$at]} | ${p99[$at]} | ${pgbench_rate[$at]} | ${ratio[$at]} |"
    done
done
printf '\n| | PostgreSQL | SQLite |\n|---|--:|--:|\n'
echo "| time until ready, ms | ${starts[PostgreSQL]} | ${starts[SQLite]} |"
echo "| memory idle, MB | ${idle[PostgreSQL]} | ${idle[SQLite]} |"
echo "| peak memory under load, MB | ${loaded[PostgreSQL]} | ${loaded[SQLite]} |"
printf '\nBinary, stripped: %s MB. ' "$(awk -v bytes="$(stat -c %s "$prop")" 'BEGIN { printf "%.1f", bytes / 1e6 }')"
echo "$DEPLOYMENTS deployments, $CONNECTIONS connections, $ROUNDS runs of $DURATION s each, $(nproc) cores, $("$PG_BIN/postgres" --version)."
