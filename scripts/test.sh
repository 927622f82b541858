#!/usr/bin/env bash
# Runs the tests, after installing what they need from the ordinary registries.
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian keeps PgBouncer where only root looks.
PATH=$PATH:/usr/sbin

usage() {
    cat <<'END'
Usage: scripts/test.sh [PART]...

Runs the tests of the given parts; of every part when none is given.

  lint     formatting and lints: cargo fmt, clippy, cargo doc; the layers of src/; the Rust version and the dependencies;
           typos; shellcheck, shfmt; hadolint; GitHub's own reading of the workflows, and zizmor
  app      cargo test; what concerns sessions and transactions once more through PgBouncer; the API against its document;
           attacks and races; docs/examples; the README's commands in a clean clone; links
  infra    Terraform and the scripts, against a stand-in for AWS
  browser  the pages, in Chromium

Needs Rust and a C compiler. What else is missing is installed: Debian packages with apt-get (as root, or with sudo),
Python packages into .venv, npm packages into node_modules of the tests that use them. What can't be installed is reported in
one line, with what is not tested because of it; with CI set, that is a failure.

Exit codes: 0 passed, 1 something failed, 2 an argument is wrong.
END
}

results=() # one line per step, for the summary
failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# step NAME COMMAND...: runs the command and notes how it ended; later steps run all the same.
step() {
    local name=$1 started=$SECONDS outcome=passed
    shift
    printf '\n== %s\n' "$name"
    times >"$scratch/before"
    "$@" || outcome=FAILED
    times >"$scratch/after"
    [ "$outcome" = passed ] || failed=1
    results+=("$(printf '%-7s %6d %6d   %s' "$outcome" $((SECONDS - started)) "$(busy_seconds)" "$name")")
}

# busy_seconds: prints how long the processes of a step have kept a processor busy.
busy_seconds() {
    awk 'FNR == 2 { gsub(/[ms]/, " "); busy = $1 * 60 + $2 + $3 * 60 + $4 - busy } END { printf "%d", busy }' \
        "$scratch/before" "$scratch/after"
}

# start NAME COMMAND...: runs the command in the background. `step` ends it with `finished NAME`, which prints what it printed.
start() {
    local name=$1
    shift
    "$@" >"$scratch/$name" 2>&1 &
    started_as[$name]=$!
}
declare -A started_as

# shellcheck disable=SC2317 # `step` calls it
finished() {
    local status=0
    wait "${started_as[$1]}" || status=$?
    cat "$scratch/$1"
    return "$status"
}

# missing WHAT NOT_TESTED: reports what is not tested. In CI, that is a failure.
missing() {
    echo "can't install $1; not tested: $2"
    results+=("missing $1: not tested: $2")
    [ -z "${CI:-}" ] || failed=1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

updated=no

# packages PACKAGE...: installs Debian packages; fails when that can't be done here.
packages() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || return 1
    echo "installing $*"
    if [ "$updated" = no ]; then
        as_root apt-get -qq update || return 1
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE...: succeeds when the command is there, or could be installed.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || { packages "$@" && command -v "$command" >/dev/null; }
}

# Version 1 is in the suite. It may hide the other on PATH.
has_aws_cli_2() {
    local program
    for program in $(type -ap aws) /usr/bin/aws; do
        [[ $("$program" --version 2>/dev/null) != aws-cli/2.* ]] || return 0
    done
    return 1
}

has_initdb() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# What the build scripts of libpq, OpenSSL and SQLite call. Debian's perl-base lacks modules that OpenSSL's Configure uses.
build_tools() {
    need cc gcc libc6-dev && need make make || return 1
    perl -MFindBin -MIPC::Cmd -MTime::Piece -e 1 2>/dev/null || packages perl
}

lint() {
    step 'rustfmt' cargo fmt --check
    step "rustfmt of the benchmark's peer" cargo fmt --check --manifest-path scripts/bench/peer/Cargo.toml
    if build_tools; then
        step 'clippy' cargo clippy --locked --all-targets -- -D warnings
        step 'cargo doc' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
    else
        missing 'gcc, make and perl' 'clippy and the documentation'
    fi
    local shell_files=(.ci/run scripts/*.sh scripts/lib/*.sh tests/support/*.sh docs/examples/*.sh)
    if need shellcheck shellcheck; then
        step 'shellcheck' xargs -P 2 -n 4 shellcheck -x -P scripts <<<"${shell_files[*]}"
    else
        missing shellcheck 'the lints of shell scripts'
    fi
    if need shfmt shfmt; then
        step 'shfmt' shfmt -i 4 -ci -d "${shell_files[@]}"
    else
        missing shfmt 'the formatting of shell scripts'
    fi
    local workflows=(.github/workflows/*.yml docs/examples/github-actions.yml)
    if node_packages tests/workflows; then
        step 'workflows, as GitHub reads them' node tests/workflows/check.js "${workflows[@]}"
    else
        missing "$needs_node tests/workflows" 'the form of the workflows'
    fi
    if python_suite lint 'spelling, Rust version, dependencies, Dockerfile, and security of the workflows'; then
        step 'typos' .venv/lint/bin/typos
        step 'versions, dependencies, justfile and layers' .venv/lint/bin/pytest -q tests/lint
        step 'hadolint' .venv/lint/bin/hadolint docker/Dockerfile
        # With a token, it asks GitHub whether the commit of each action is the version that stands beside it.
        local offline=--offline
        [ -z "${GH_TOKEN:-}" ] || offline=
        step 'zizmor' .venv/lint/bin/zizmor --quiet --pedantic ${offline:+"$offline"} .github docs/examples/github-actions.yml
    fi
}

app() {
    if ! build_tools; then
        missing 'gcc, make and perl' 'the application'
        return
    fi
    local postgres=yes
    if [ -z "${TEST_DATABASE_URL:-}" ] && ! has_initdb && ! packages postgresql; then
        postgres=no
        missing postgresql 'the API on PostgreSQL'
    fi
    local pooler=yes
    if ! need pgbouncer pgbouncer; then
        pooler=no
        missing pgbouncer 'the API through PgBouncer'
    fi
    need curl curl || missing curl 'the printed curl line'
    need setpriv util-linux || missing setpriv 'PostgreSQL and PgBouncer, as root'
    step 'cargo test' cargo test --locked
    if [ "$postgres" = yes ] && [ "$pooler" = yes ]; then
        step 'sessions and transactions through PgBouncer' through_pgbouncer
    fi
    contract
    attacks
    examples
    newcomer
    [ -z "${started_as[contract]:-}" ] || step 'the API against its document' finished contract
}

# A pooler gives its client another session with each transaction. These modules test what depends on that: requests at the same
# time, locks, what a transaction takes back, migrations; and the demo and random sequences of requests, which send every kind of
# statement. The other modules send the same statements with other values. The process tests kill prop behind a pooler.
# shellcheck disable=SC2317 # `step` calls it
through_pgbouncer() {
    local module filters=()
    for module in approvals deployments freezes idempotency keys migrations releases sequences walkthrough; do
        [ -f "tests/api/$module.rs" ] || return 1
        filters+=("$module::")
    done
    filters+=(webhooks::postgres::a_delivery --skip sqlite)
    tests/support/with-pgbouncer.sh cargo test --locked --test api -- "${filters[@]}"
}

# The API against its document. The binary is the one that `cargo test` has built. It keeps one processor busy, so it runs beside
# what follows.
contract() {
    python_suite contract 'the API against its document' || return 0
    local selection=()
    if ! node_packages tests/contract/typescript; then
        selection=(-k 'not typescript')
        missing "$needs_node tests/contract/typescript" 'a TypeScript client'
    fi
    start contract .venv/contract/bin/pytest tests/contract "${selection[@]}"
}

# What an attacker, a bad clock or twenty clients at the same moment do to that binary.
attacks() {
    python_suite attack 'attacks and races' || return 0
    step 'attacks and races' .venv/attack/bin/pytest -q tests/attack
}

# What docs/examples/ shows, run against that binary.
examples() {
    python_suite examples 'docs/examples' || return 0
    if ! need jq jq || ! need curl curl; then
        missing 'jq and curl' 'docs/examples'
        return
    fi
    local selection=()
    if ! node_packages tests/workflows; then
        selection=(-k 'not github')
        missing "$needs_node tests/workflows" 'docs/examples/github-actions.yml'
    fi
    step 'docs/examples' .venv/examples/bin/pytest tests/examples "${selection[@]}"
}

# The README's commands in a clean clone, and the links of the documents. The clone takes over the dependencies of this build.
newcomer() {
    python_suite newcomer "the README's commands and the links of the documents" || return 0
    if ! need git git; then
        missing git "the README's commands and the links of the documents"
        return
    fi
    local selection=()
    if ! has_initdb && ! packages postgresql; then
        selection=(-k 'not postgresql and not settings')
        missing postgresql "the README's commands on PostgreSQL, and the settings of docker/compose.yaml"
    fi
    step 'prop, as cargo run builds it' cargo build --locked --quiet
    step "the README's commands and the links" .venv/newcomer/bin/pytest tests/newcomer "${selection[@]}"
}

infra() {
    build_tools && python_suite infra 'Terraform and the scripts' || return
    if ! need jq jq || ! need curl curl; then
        missing 'jq and curl' 'Terraform and the scripts'
        return
    fi
    need buildah buildah || missing buildah 'the image'
    need runc runc || missing runc 'the image, running'
    has_aws_cli_2 || { packages awscli && has_aws_cli_2; } || missing 'version 2 of the AWS CLI' 'the scripts with it'
    command -v terraform >/dev/null || missing 'terraform 1.11' 'the stack, and what the scripts do to it'
    local selection=()
    if ! node_packages tests/workflows; then
        selection+=(--ignore tests/infra/test_pipeline.py)
        missing "$needs_node tests/workflows" 'the workflow, running'
    fi
    need wrk wrk || missing wrk 'the benchmark'
    need sqlite3 sqlite3 || missing sqlite3 'the benchmark'
    if ! python_suite checkov 'terraform/ by checkov'; then
        selection+=(--deselect tests/infra/test_static.py::test_checkov_finds_nothing)
    fi
    if ! { has_initdb || packages postgresql; } || ! need setpriv util-linux; then
        missing 'postgresql and setpriv' 'prop with what the stack gives it'
        selection+=(--ignore tests/infra/test_wiring.py)
    fi
    step 'prop, which these tests run' cargo build --locked --quiet
    # To apply the stack is to wait, for the most part, and so is to roll out: three processes share two processors.
    start stack .venv/infra/bin/pytest tests/infra -m stack "${selection[@]}"
    step 'the scripts, the image and the workflow' .venv/infra/bin/pytest tests/infra -m 'not stack' \
        -n 2 --dist loadgroup "${selection[@]}"
    step 'the stack, against a stand-in for AWS' finished stack
}

browser() {
    build_tools && python_suite browser 'the pages in a browser' || return
    if ! need chromium chromium fonts-dejavu-core; then
        missing chromium 'the pages in a browser'
        return
    fi
    step 'prop, which these tests run' cargo build --locked --quiet
    # The pages ask for news every few seconds, which these tests wait for.
    step 'the pages, in Chromium' .venv/browser/bin/pytest tests/browser
}

# python_suite NAME NOT_TESTED: .venv/NAME with the packages of tests/NAME/requirements.txt.
python_suite() {
    await_downloads
    { has_ensurepip || packages python3 python3-venv; } && install_python "$1" && return
    missing "python3-venv and the packages of tests/$1/requirements.txt" "$2"
    return 1
}

has_ensurepip() { python3 -c 'import ensurepip' 2>/dev/null; }

install_python() {
    local wanted=tests/$1/requirements.txt venv=.venv/$1
    cmp -s "$wanted" "$venv/installed.txt" && return
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" &&
        cp "$wanted" "$venv/installed.txt"
}

needs_node='Node.js 20.6 or later and the packages of'

# node_packages FOLDER: what its package-lock.json says.
node_packages() {
    await_downloads
    need node nodejs && need npm npm && install_node "$1"
}

install_node() {
    local folder=$1
    # The hook for imports of JSON in tests/workflows is as old as 20.6.
    node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 6) ? 0 : 1)' ||
        return 1
    cmp -s "$folder/package-lock.json" "$folder/node_modules/installed.json" && return
    npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error && cp "$folder/package-lock.json" "$folder/node_modules/installed.json"
}

# downloads PART...: installs what the parts need from PyPI and npm, while cargo compiles. What fails is tried again where it is
# needed, and reported there.
# shellcheck disable=SC2317 # `start` calls it
downloads() {
    local part suite
    for part in "$@"; do
        for suite in ${suites[$part]}; do
            case $suite in
                */*) ! command -v npm >/dev/null || install_node "$suite" || true ;;
                *) ! has_ensurepip || install_python "$suite" || true ;;
            esac
        done
    done
}
declare -A suites=(
    [lint]='tests/workflows lint'
    [app]='tests/contract/typescript tests/workflows contract attack examples newcomer'
    [infra]='tests/workflows infra checkov'
    [browser]='browser'
)

await_downloads() { [ -z "${started_as[downloads]:-}" ] || wait "${started_as[downloads]}" || true; }

for argument in "$@"; do
    case $argument in
        lint | app | infra | browser) ;;
        -h | --help)
            usage
            exit
            ;;
        *)
            echo "scripts/test.sh: there is no part '$argument'; there are: lint, app, infra, browser" >&2
            exit 2
            ;;
    esac
done
[ $# -gt 0 ] || set -- lint app infra browser

start downloads downloads "$@"
for part in "$@"; do
    case $part in
        lint) lint ;;
        app) app ;;
        infra) infra ;;
        browser) browser ;;
    esac
    printf '\n== %s: done\n' "$part"
done

printf '\n== Summary: seconds, and seconds of processors\n'
printf '%s\n' "${results[@]}"
if [ "$failed" = 0 ]; then echo "passed: $*"; else echo "FAILED: $*"; fi
exit "$failed"
