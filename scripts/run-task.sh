#!/usr/bin/env bash
# Runs a subcommand of prop as a separate task, with the network and the secrets of the service.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecr.sh"
source "$(dirname "$0")/lib/ecs.sh"

usage() {
    cat <<'END'
Usage: scripts/run-task.sh ENVIRONMENT [OPTION]... -- SUBCOMMAND [ARGUMENT]...
Run a subcommand of prop as a separate ECS task, print its output and exit with its exit code.

The task has the live image and the network, settings and secrets of the service. The environment's log keeps its output,
including any key that it prints.

Options:
  --image VERSION    use another image in ECR, given by its tag or digest
  --timeout SECONDS  maximum time to wait for the task's end (default: 900)
  --dry-run          print the calls that would change something, without making them
  -h, --help         print this help

Environment:
  AWS_REGION  AWS region (default: ap-south-1)

Examples:
  scripts/run-task.sh staging -- migrate
  scripts/run-task.sh production -- key create pipeline --scope read --scope deploy

Exit codes:
  2    wrong argument
  3    something is missing or access is denied; the task was not started
  125  the task could not be started, never ran, or did not end in time
  130  interrupted; the task continues, and the script prints how to stop it
  All other codes are those of the subcommand.
END
}
readonly EXIT_NEVER_RAN=125 EXIT_INTERRUPTED=130

TIMEOUT=900 WANTED=''
words=() command=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        --image | --timeout)
            [ -n "${2:-}" ] || missing_value "$1"
            if [ "$1" = --image ]; then WANTED=$2; else TIMEOUT=$2; fi
            shift
            ;;
        --)
            shift
            command=("$@")
            break
            ;;
        -*) unknown_option "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || usage_error "unexpected argument '${words[1]}'; write the subcommand after --."
use_environment "${words[0]:-}"
[ ${#command[@]} -gt 0 ] || missing_argument "SUBCOMMAND, after --"
[[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || usage_error "--timeout must be a number of seconds, not '$TIMEOUT'."
require_tools aws jq

# shellcheck disable=SC2317 # called by the trap
interrupted() {
    clear_progress
    info ''
    if [ -n "${TASK:-}" ]; then
        warn "Interrupted. The task continues until it ends."
        detail "To stop it, run: aws ecs stop-task --region $AWS_REGION --cluster $ECS_CLUSTER --task ${TASK##*/}"
    else
        warn "Interrupted before a task was started."
    fi
    exit "$EXIT_INTERRUPTED"
}
trap interrupted INT TERM

check_identity
require_service
definition=$(task_definition "$(service_get .taskDefinition)") || die "$EXIT_PREFLIGHT" "$(aws_error)"
use_log_stream_of "$definition"
arn=$(jq -r .taskDefinitionArn <<<"$definition") temporary=no
if [ -n "$WANTED" ]; then
    resolve_image "$WANTED" || die "$EXIT_PREFLIGHT" "Cannot find the image $WANTED in $ECR_REPOSITORY. $(aws_error)"
    if [ "$(definition_digest "$definition")" != "$DIGEST" ]; then
        answer=$(aws_change ecs register-task-definition --cli-input-json "$(with_image "$definition")") || die "$EXIT_PREFLIGHT" "$(aws_error)"
        [ "$DRY_RUN" = yes ] || arn=$(jq -r '.taskDefinition.taskDefinitionArn' <<<"$answer")
        temporary=yes
    fi
elif [ -z "$(definition_digest "$definition")" ]; then
    die "$EXIT_PREFLIGHT" "Nothing has been deployed to $ENVIRONMENT yet. Choose an image with --image VERSION."
fi

step "Running 'prop ${command[*]}' as a task in $ENVIRONMENT"
ended=0
run_task "$arn" "$(jq -nc '$ARGS.positional' --args -- "${command[@]}")" "$TIMEOUT" || ended=$?
# This revision was never live, so no rollback may use it.
[ "$temporary" = no ] || aws_change ecs deregister-task-definition --task-definition "$arn" >/dev/null || warn "$(aws_error)"
[ "$ended" = 0 ] || die $EXIT_NEVER_RAN "$WHY"
[ -n "$TASK_EXIT" ] || die $EXIT_NEVER_RAN "The task never ran. $WHY"
[ "$DRY_RUN" = yes ] || [ "$TASK_EXIT" = 0 ] || info "${RED}$SCRIPT:$PLAIN The task exited with code $TASK_EXIT. $WHY"
[ "$DRY_RUN" = yes ] || [ "$TASK_EXIT" != 0 ] || success "The task exited with code 0."
exit "$TASK_EXIT"
