#!/usr/bin/env bash
# Runs a subcommand of prop as a task of its own, with the network and the secrets of the service.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"
. "$(dirname "$0")/ecs.sh"

usage() {
    cat <<'END'
Usage: scripts/run-task.sh <environment> [OPTION]... -- <subcommand> [ARGUMENT]...

Runs a subcommand of prop in the image that is live, with the network, the settings and the secrets of the service, prints
what it writes, and ends with its exit code. Nothing is served by it.

  scripts/run-task.sh staging -- migrate
  scripts/run-task.sh production -- key create pipeline --scope read --scope deploy

Options:
  --image VERSION     another image that is in ECR: its tag or digest
  --timeout SECONDS   how long to wait for its end (900)
  --dry-run           print the calls that would change something, and make none

What it writes is kept in the environment's log: a key that it prints stands there too.

Exit codes: the task's own; and 2 an argument is wrong, 3 something is missing or denied and nothing ran, 125 the task
could not be started, never ran, or did not end in time, 130 interrupted: the task goes on, and it says how to stop it.
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
            [ -n "${2:-}" ] || misused "$1 wants a value."
            if [ "$1" = --image ]; then WANTED=$2; else TIMEOUT=$2; fi
            shift
            ;;
        --)
            shift
            command=("$@")
            break
            ;;
        -*) misused "There is no option $1." ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || misused "What is '${words[1]}'? The subcommand comes after --."
use_environment "${words[0]:-}"
[ ${#command[@]} -gt 0 ] || misused "Which subcommand? It comes after --."
[[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || misused "--timeout is a number of seconds."
need aws jq

# shellcheck disable=SC2317 # called by the trap
interrupted() {
    no_progress
    say ''
    if [ -n "${TASK:-}" ]; then
        warn "Interrupted. The task goes on to its end."
        note "To stop it:  aws ecs stop-task --region $AWS_REGION --cluster $ECS_CLUSTER --task ${TASK##*/}"
    else
        warn "Interrupted before a task was started."
    fi
    exit "$EXIT_INTERRUPTED"
}
trap interrupted INT TERM

identify
find_service
definition=$(task_definition "$(of_service .taskDefinition)") || die "$EXIT_PREFLIGHT" "$(aws_said)"
use_log_stream_of "$definition"
arn=$(jq -r .taskDefinitionArn <<<"$definition") mine=no
if [ -n "$WANTED" ]; then
    resolve_image "$WANTED" || die "$EXIT_PREFLIGHT" "There is no image $WANTED in $ECR_REPOSITORY, or it can't be looked up. $(aws_said)"
    if [ "$(digest_in "$definition")" != "$DIGEST" ]; then
        answer=$(alter ecs register-task-definition --cli-input-json "$(with_image "$definition")") || die "$EXIT_PREFLIGHT" "$(aws_said)"
        [ "$DRY_RUN" = yes ] || arn=$(jq -r '.taskDefinition.taskDefinitionArn' <<<"$answer")
        mine=yes
    fi
elif [ -z "$(digest_in "$definition")" ]; then
    die "$EXIT_PREFLIGHT" "Nothing was deployed to $ENVIRONMENT yet. --image VERSION names an image."
fi

step "prop ${command[*]}, as a task in $ENVIRONMENT"
ended=0
run_once "$arn" "$(jq -nc '$ARGS.positional' --args -- "${command[@]}")" "$TIMEOUT" || ended=$?
# Nothing is to go back to it: it was never live.
[ "$mine" = no ] || alter ecs deregister-task-definition --task-definition "$arn" >/dev/null || warn "$(aws_said)"
[ "$ended" = 0 ] || die $EXIT_NEVER_RAN "$WHY"
[ -n "$TASK_EXIT" ] || die $EXIT_NEVER_RAN "The task never ran. $WHY"
[ "$DRY_RUN" = yes ] || [ "$TASK_EXIT" = 0 ] || say "${RED}$SCRIPT:$PLAIN It ended with $TASK_EXIT. $WHY"
[ "$DRY_RUN" = yes ] || [ "$TASK_EXIT" != 0 ] || done_with "It ended with 0."
exit "$TASK_EXIT"
