# shellcheck shell=bash
# What the scripts share: sourced by them, never run. Says names once, speaks one way, changes nothing in a dry run.

# Exit codes that every script may end with; each script's --help lists its own beside them.
readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_PREFLIGHT=3

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPT=$(basename "$0")
DRY_RUN=no
# Where the stack is described: a test works on a copy.
: "${TERRAFORM_DIR:=$ROOT/terraform}"

# What this run keeps to itself; gone when it ends.
WORK=$(mktemp -d "${TMPDIR:-/tmp}/prop.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    BOLD=$'\033[1m' DIM=$'\033[2m' RED=$'\033[31m' GREEN=$'\033[32m' YELLOW=$'\033[33m' PLAIN=$'\033[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

# People read standard error; standard output is for what other programs take.
say() { printf '%s\n' "$*" >&2; }
step() { say "$BOLD==>$PLAIN $*"; }
done_with() { say "${GREEN}ok$PLAIN  $*"; }
warn() { say "${YELLOW}warning:$PLAIN $*"; }
note() { say "    $DIM$*$PLAIN"; }

# progress TEXT: one line that is written over by the next, on a terminal; elsewhere a line whenever it says something new.
# no_progress clears it.
PROGRESS=''
progress() {
    if [ -t 2 ]; then
        printf '\r\033[K    %s%s%s' "$DIM" "$*" "$PLAIN" >&2
    elif [ "$PROGRESS" != "${*#* }" ]; then
        note "$*"
    fi
    PROGRESS=${*#* } # without the time in front, which is always new
}
no_progress() {
    [ -z "$PROGRESS" ] || [ ! -t 2 ] || printf '\r\033[K' >&2
    PROGRESS=''
}

# minutes SECONDS: as 2:05.
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# now: RFC 3339, in UTC.
now() { jq -nr 'now | todate'; }

# origin_repository: OWNER/REPOSITORY of the remote origin on GitHub; nothing, if there is none.
origin_repository() {
    { git -C "$ROOT" remote get-url origin 2>/dev/null || true; } | sed -nE 's#^.*[:/]([^/:]+/[^/]+)$#\1#p' | sed 's/\.git$//'
}

# die [CODE] SENTENCE: ends the script; 1 unless another code is given. What it said is left in DIED.
DIED=''
die() {
    local code=$EXIT_FAILED
    if [[ ${1:-} =~ ^[0-9]+$ ]]; then
        code=$1
        shift
    fi
    no_progress
    # shellcheck disable=SC2034 # for traps
    DIED=$*
    say "$RED$SCRIPT:$PLAIN $*"
    exit "$code"
}

# misused SENTENCE: a wrong argument.
misused() { die "$EXIT_USAGE" "$* See $SCRIPT --help."; }

# need TOOL...: ends the script when one is not there.
need() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} = 0 ] || die "$EXIT_PREFLIGHT" "This needs ${missing[*]}, which can't be found on PATH."
}

# change COMMAND...: runs what changes something; in a dry run, prints it instead, as it could be pasted.
change() {
    if [ "$DRY_RUN" = no ]; then
        "$@"
        return
    fi
    say "${DIM}would run:$PLAIN$(as_typed "$@")"
}

# as_typed WORD...: each with a space before it, quoted where the shell needs it.
as_typed() {
    local word
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        printf ' %s' "$word"
    done
}

# use_account: sets the names of what the environments of an account share.
use_account() {
    export AWS_REGION=${AWS_REGION:-ap-south-1} AWS_PAGER=
    export AWS_DEFAULT_REGION=$AWS_REGION
    : "${ECR_REPOSITORY:=prop-backend}"
}

# use_environment NAME: sets the names of everything in an environment. production has the plain ones; every other gets
# its own name behind. Each is a default that a variable of that name overrides; Terraform builds the same (locals.tf).
use_environment() {
    ENVIRONMENT=${1:-}
    [ -n "$ENVIRONMENT" ] || misused "Which environment?"
    [ -f "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" ] ||
        misused "There is no environment '$ENVIRONMENT'; there are: $(environments)."
    local suffix=
    [ "$ENVIRONMENT" = production ] || suffix=-$ENVIRONMENT
    use_account
    : "${ECS_CLUSTER:=prop-ecs-cluster$suffix}"
    : "${CONTAINER_NAME:=prop}"
    : "${ECS_SERVICE:=prop-backend-service$suffix}"
    : "${TASK_FAMILY:=prop-backend$suffix}"
    : "${DB_INSTANCE:=prop-db$suffix}"
    : "${LOG_GROUP:=/ecs/prop-backend$suffix}"
    : "${LOAD_BALANCER:=prop-alb$suffix}"
}

# The environments there are, by their files.
environments() {
    local file names=
    for file in "$TERRAFORM_DIR"/envs/*.tfvars; do
        names+=", $(basename "$file" .tfvars)"
    done
    echo "${names#, }"
}
