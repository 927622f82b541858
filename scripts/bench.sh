#!/usr/bin/env bash
# Measures prop on PostgreSQL and SQLite, and beside it pgbench and a server that one would write instead.
set -euo pipefail
cd "$(dirname "$0")/.."

export DEPLOYMENTS=${DEPLOYMENTS:-1000000} LARGE=${LARGE:-0} DURATION=${DURATION:-5} ROUNDS=${ROUNDS:-3}
export CONNECTIONS=${CONNECTIONS:-32} STARTS=${STARTS:-11} PEER=${PEER:-}

usage() {
    cat <<END
Usage: scripts/bench.sh [[NAME=]BINARY]...
Measure prop's throughput, latency, CPU time, start time and memory, and print Markdown tables.

Each BINARY is a release build of prop, the oldest first; NAME stands in the tables. Without one, the script builds prop. All
run in turn, on copies of the same rows: read one deployment, list the latest 50 of a place (a service in an environment), and
record a deployment. On PostgreSQL, pgbench runs the same statements, and so does scripts/bench/peer, a small server with axum
and sqlx, which the script builds. Other tables are of single requests, one process and three, and SQLite.

All servers listen on 127.0.0.1 and are deleted at the end. PostgreSQL has its default settings, fsync included. The script
needs Rust, Python 3.11, PostgreSQL's server with pgbench, sqlite3 and wrk (Debian packages: python3, postgresql,
postgresql-contrib, sqlite3, wrk), and Linux, for the CPU times in /proc. With a million deployments and two BINARIES, it takes
some 12 minutes and 6 GB in TMPDIR.

Options:
  -h, --help   print this help

Environment:
  DEPLOYMENTS  number of deployments in the database, a multiple of 1000 (now: $DEPLOYMENTS)
  LARGE        also the single requests with so many deployments, such as 5000000, which takes 10 GB; 0: not (now: $LARGE)
  DURATION     seconds of each run (now: $DURATION)
  ROUNDS       runs of each kind; the tables have the median (now: $ROUNDS)
  CONNECTIONS  concurrent connections (now: $CONNECTIONS)
  STARTS       measured starts of prop; the tables have the median (now: $STARTS)
  PEER         a built scripts/bench/peer, or "none" to leave it out (now: ${PEER:-build it})

Examples:
  DEPLOYMENTS=10000 DURATION=2 ROUNDS=1 scripts/bench.sh
  LARGE=5000000 scripts/bench.sh before=/tmp/prop-0.2.0 after=target/release/prop

Exit codes:
  0  done
  1  a server or a request failed
  2  wrong argument or a missing tool
  If a build fails, the exit code is that of cargo.
END
}

refuse() {
    echo "bench.sh: $1" >&2
    exit 2
}

binaries=()
for argument in "$@"; do
    case $argument in
        -h | --help) usage && exit ;;
        -*) refuse "unknown option '$argument'. See bench.sh --help." ;;
    esac
    [ -x "${argument#*=}" ] || refuse "'${argument#*=}' is no program. See bench.sh --help."
    binaries+=("$argument")
done
for name in DEPLOYMENTS LARGE DURATION ROUNDS CONNECTIONS STARTS; do
    [[ ${!name} =~ ^[0-9]+$ ]] || refuse "$name must be a number, not '${!name}'."
done
if ((DEPLOYMENTS == 0 || DEPLOYMENTS % 1000 || LARGE % 1000)); then
    refuse "DEPLOYMENTS and LARGE must be multiples of 1000."
fi

PG_BIN=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || PG_BIN=$(dirname "$(command -v initdb)")
export PG_BIN
for tool in "$PG_BIN/initdb" "$PG_BIN/pgbench" "$PG_BIN/psql" "$PG_BIN/vacuumdb" python3 sqlite3 wrk; do
    command -v "$tool" >/dev/null || refuse "$tool not found. See bench.sh --help for the packages that it needs."
done

target=${CARGO_TARGET_DIR:-$PWD/target}
if [ ${#binaries[@]} = 0 ]; then
    cargo build --release --locked
    binaries=("$target/release/prop")
fi
if [ -z "$PEER" ]; then
    cargo build --release --locked --manifest-path scripts/bench/peer/Cargo.toml --target-dir "$target/bench-peer"
    PEER=$target/bench-peer/release/bench-peer
fi

PROP_KEY=$("${binaries[-1]#*=}" key generate)
export PROP_KEY
exec python3 scripts/bench/run.py "${binaries[@]}"
