# shellcheck shell=bash
# Shared by the other scripts, which source it: names, messages, argument errors and dry runs.

# Exit codes that every script may use. Each script's --help lists its own codes too.
readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_PREFLIGHT=3

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SCRIPT=$(basename "$0")
DRY_RUN=no
# The folder with the Terraform files. Tests set it to a copy.
: "${TERRAFORM_DIR:=$ROOT/terraform}"

# Temporary files of this run. They are deleted at the end.
WORK=$(mktemp -d "${TMPDIR:-/tmp}/prop.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    BOLD=$'\033[1m' DIM=$'\033[2m' RED=$'\033[31m' GREEN=$'\033[32m' YELLOW=$'\033[33m' PLAIN=$'\033[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

# Messages for people go to standard error. Standard output is for results that other programs read.
info() { printf '%s\n' "$*" >&2; }
step() { info "$BOLD==>$PLAIN $*"; }
success() { info "${GREEN}ok$PLAIN  $*"; }
warn() { info "${YELLOW}warning:$PLAIN $*"; }
detail() { info "    $DIM$*$PLAIN"; }

# progress TIME TEXT: on a terminal, a line that the next one overwrites. Elsewhere, a new line each time TEXT changes.
# clear_progress removes the line.
PROGRESS=''
progress() {
    if [ -t 2 ]; then
        printf '\r\033[K    %s%s%s' "$DIM" "$*" "$PLAIN" >&2
    elif [ "$PROGRESS" != "${*#* }" ]; then
        detail "$*"
    fi
    PROGRESS=${*#* } # without TIME, which changes with every call
}
clear_progress() {
    [ -z "$PROGRESS" ] || [ ! -t 2 ] || printf '\r\033[K' >&2
    PROGRESS=''
}

# duration SECONDS: prints minutes and seconds, as in 2:05.
duration() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# now: prints the time in UTC, in the format of RFC 3339.
now() { jq -nr 'now | todate'; }

# origin_repository: prints OWNER/REPOSITORY of the git remote "origin" on GitHub, or nothing if there is no such remote.
origin_repository() {
    { git -C "$ROOT" remote get-url origin 2>/dev/null || true; } | sed -nE 's#^.*[:/]([^/:]+/[^/]+)$#\1#p' | sed 's/\.git$//'
}

# die [CODE] MESSAGE: prints MESSAGE, saves it in DIE_MESSAGE and ends the script with CODE (default: 1).
DIE_MESSAGE=''
die() {
    local code=$EXIT_FAILED
    if [[ ${1:-} =~ ^[0-9]+$ ]]; then
        code=$1
        shift
    fi
    clear_progress
    # shellcheck disable=SC2034 # exit traps read it
    DIE_MESSAGE=$*
    info "$RED$SCRIPT:$PLAIN $*"
    exit "$code"
}

# usage_error MESSAGE: ends the script because of a wrong argument. The next four cover the usual cases.
usage_error() { die "$EXIT_USAGE" "$* See $SCRIPT --help."; }
unknown_option() { usage_error "unknown option '$1'."; }
unexpected_argument() { usage_error "unexpected argument '$1'."; }
missing_argument() { usage_error "missing argument: $1."; }
missing_value() { usage_error "missing value for $1."; }

# require_tools TOOL...: ends the script if one of the tools is not installed.
require_tools() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} = 0 ] || die "$EXIT_PREFLIGHT" "Required, but not found on PATH: ${missing[*]}. Install them and try again."
}

# run_or_print COMMAND...: runs the command. In a dry run, prints it instead, quoted for the shell.
run_or_print() {
    if [ "$DRY_RUN" = no ]; then
        "$@"
        return
    fi
    info "${DIM}would run:$PLAIN$(quote_words "$@")"
}

# quote_words WORD...: prints each word after a space, quoted where the shell needs it.
quote_words() {
    local word
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        printf ' %s' "$word"
    done
}

# use_account: sets the names that all environments of an AWS account share.
use_account() {
    export AWS_REGION=${AWS_REGION:-ap-south-1} AWS_PAGER=
    export AWS_DEFAULT_REGION=$AWS_REGION
    : "${ECR_REPOSITORY:=prop-backend}"
}

# use_environment NAME: sets the names of an environment's resources. production has the plain names; the names of other
# environments end in the environment's name. A variable of the same name overrides each. terraform/locals.tf builds the
# same names.
use_environment() {
    ENVIRONMENT=${1:-}
    [ -n "$ENVIRONMENT" ] || missing_argument "ENVIRONMENT (one of: $(list_environments))"
    [ -f "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" ] ||
        usage_error "unknown environment '$ENVIRONMENT'; must be one of: $(list_environments)."
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

# list_environments: prints the names of the environments, separated by commas. Each has a file envs/NAME.tfvars.
list_environments() {
    local file names=
    for file in "$TERRAFORM_DIR"/envs/*.tfvars; do
        names+=", $(basename "$file" .tfvars)"
    done
    echo "${names#, }"
}
