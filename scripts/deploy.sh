#!/usr/bin/env bash
# Deploys a version to an environment, verifies that it runs, and rolls back if it does not.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecs.sh"
source "$(dirname "$0")/lib/rds.sh"
source "$(dirname "$0")/lib/ecr.sh"
readonly EXIT_BLOCKED=4 EXIT_RUNNING=5 EXIT_ROLLED_BACK=6 EXIT_NOT_ROLLED_BACK=7 EXIT_TIMED_OUT=8 EXIT_MIGRATION=9 EXIT_INTERRUPTED=130
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/deploy.sh ENVIRONMENT VERSION|DIGEST [OPTION]...
Deploy an image from ECR to an environment, verify that it runs, and roll back if it does not.

The script checks prop's gate and records the deployment there. It registers a task definition with the image by digest,
updates the ECS service and waits until ECS reports this rollout as complete. Then it checks the load balancer's targets and
the service's /health and /version. If a step fails, it restores the previous revision and prints the reason.

Options:
  --migrate-first     run `prop migrate` with the new image as a separate task first; if it fails, do not update the service
  --wake              start a stopped environment first; without this option, the deployment is rejected
  --force             override active freezes in prop; needs --reason. Other rules of the gate still apply
  --reason TEXT       why the deployment is made; prop records it
  --require-ledger    stop if prop cannot be reached; by default, the deployment continues and is reported to prop later
  --take-over         replace a deployment that is still running; prop records that one as cancelled
  --resume            watch and finish the rollout that an interrupted run started
  --rollback          deregister the replaced revision afterwards, so that no later rollback uses it (rollback.sh sets this)
  --release VERSION   version to record in prop; needed if the image is given by digest and has no tag
  --service NAME      name of the service in prop (default: prop)
  --timeout SECONDS   maximum duration of all of it, the way back included: its last third is kept for that (default: 2400)
  --dry-run           print the calls that would change something, without making them
  --json              print the result as JSON to standard output
  -h, --help          print this help

Environment:
  PROP_URL            address of prop; without PROP_URL and PROP_KEY, the deployment is not recorded
  PROP_KEY            key for prop with the scopes read and deploy, and override for --force
  PROP_SPOOL          file for reports that could not be sent to prop (default: .prop-spool.jsonl)
  SLACK_WEBHOOK_URL   Slack webhook that receives the outcome in one line
  OUTSIDE_CHECKS      no: do not ask the service's /health and /version, because this machine cannot reach it
  APP_URL             address of the service (default: the load balancer's address); needed with a certificate
  AWS_ACCOUNT_ID      stop if the credentials belong to another account
  AWS_REGION          AWS region (default: ap-south-1)

Examples:
  scripts/deploy.sh staging 1.4.2
  scripts/deploy.sh production sha256:9f86d081884c... --migrate-first
  scripts/deploy.sh production 1.4.3 --force --reason 'Card payments are down.'
  scripts/deploy.sh staging 1.4.2 --resume

Exit codes:
  0    deployed and verified
  1    unexpected error
  2    wrong argument
  3    preflight check failed: something is missing or access is denied; nothing was changed
  4    blocked by prop's gate; nothing was changed
  5    another deployment is running; nothing was changed
  6    deployment failed; the previous revision is running again
  7    deployment failed and the rollback failed: check the environment
  8    rollout timed out; the previous revision is running again
  9    migration failed; the service was not updated
  130  interrupted; the script prints the current state
END
}

# --- Arguments

WANTED='' RELEASE='' TIMEOUT=2400
MIGRATE_FIRST=no WAKE=no FORCE=no REASON='' REQUIRE_LEDGER=no TAKE_OVER=no RESUME=no ROLLBACK=no JSON=no
RESUME_ARGUMENTS=() # options to repeat with --resume

read_arguments() {
    local words=()
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                usage
                exit
                ;;
            --migrate-first) MIGRATE_FIRST=yes ;;
            --wake) WAKE=yes ;;
            --force) FORCE=yes ;;
            --require-ledger) REQUIRE_LEDGER=yes ;;
            --take-over) TAKE_OVER=yes ;;
            --resume) RESUME=yes ;;
            --rollback) ROLLBACK=yes RESUME_ARGUMENTS+=("$1") ;;
            --dry-run) DRY_RUN=yes ;;
            --json) JSON=yes ;;
            --reason | --release | --service | --timeout)
                [ -n "${2:-}" ] || missing_value "$1"
                [ "$1" = --reason ] || RESUME_ARGUMENTS+=("$1" "$2")
                case $1 in
                    --reason) REASON=$2 ;;
                    --release) RELEASE=$2 ;;
                    --service) LEDGER_SERVICE=$2 ;;
                    --timeout) TIMEOUT=$2 ;;
                esac
                shift
                ;;
            -*) unknown_option "$1" ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    [ ${#words[@]} -le 2 ] || unexpected_argument "${words[2]}"
    use_environment "${words[0]:-}"
    WANTED=${words[1]:-}
    [ -n "$WANTED" ] || missing_argument "VERSION or DIGEST"
    [[ $WANTED =~ ^(sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$ ]] || usage_error "'$WANTED' is not a valid image tag or digest (sha256: and 64 hexadecimal digits)."
    [[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || usage_error "--timeout must be a number of seconds, not '$TIMEOUT'."
    [ "$FORCE" = no ] || [ -n "$REASON" ] || usage_error "--force needs --reason TEXT; prop records the reason."
    [ "$RESUME" = no ] || [ "$TAKE_OVER$MIGRATE_FIRST$FORCE" = nonono ] || usage_error "--resume cannot be combined with --take-over, --migrate-first or --force."
}

# --- Preflight checks

PHASE=nothing # progress so far: nothing, recorded, migrating, rolling_out, verifying, rolling_back
# PREVIOUS is the revision to roll back to. LEFT is the revision that the service had before; with --take-over, it may be one
# whose rollout never completed. FIRST is yes if PREVIOUS has no image: then nothing ran here before.
VERSION='' DIGEST='' GIT_SHA='' NEW='' PREVIOUS='' LEFT='' FIRST=no ROLLOUT='' WHY='' RECORDING=no

# time_left: prints the seconds that are left of TIMEOUT. forward_left: those until the way back must begin.
time_left() { echo $((TIMEOUT - SECONDS + BEGUN)); }
forward_left() { echo $((TIMEOUT * 2 / 3 - SECONDS + BEGUN)); }

preflight() {
    check_identity
    require_service
    read_range
    PREVIOUS=$(last_completed_definition) LEFT=$(service_get .taskDefinition) DESIRED=$(service_get .desiredCount)
    find_first
    resolve_image "$WANTED" || {
        ! image_not_found || die "$EXIT_PREFLIGHT" "Image $WANTED not found in $ECR_REPOSITORY. To build it, run: scripts/build.sh"
        die "$EXIT_PREFLIGHT" "Cannot look up the image $WANTED in $ECR_REPOSITORY. $(aws_error)"
    }
    name_version
    LATEST=$(task_definition "$TASK_FAMILY") || die "$EXIT_PREFLIGHT" "Cannot read the task definition $TASK_FAMILY. $(aws_error)"
    [ "$(jq --arg name "$CONTAINER_NAME" 'any(.containerDefinitions[]; .name == $name)' <<<"$LATEST")" = true ] ||
        die "$EXIT_PREFLIGHT" "The task definition $TASK_FAMILY has no container '$CONTAINER_NAME'."
    use_log_stream_of "$LATEST"
    find_url || die "$EXIT_PREFLIGHT" "Cannot read the load balancer $LOAD_BALANCER. $(aws_error)"

    step "Deploying $BOLD$LEDGER_SERVICE $VERSION$PLAIN to $BOLD$ENVIRONMENT$PLAIN$([ "$DRY_RUN" = no ] || echo ' (dry run)')"
    detail "image    $IMAGE"
    detail "         tags: ${TAGS:-none}; commit: ${GIT_SHA:-unknown}"
    detail "account  $ACCOUNT in $AWS_REGION, as $IDENTITY"
    detail "service  $ECS_SERVICE: revision $(revision "$LEFT"), $(service_get .runningCount) of $DESIRED tasks running"
    detail "address  $URL$([ "$INSECURE" = no ] || echo ' (certificate not verified: set APP_URL to its host name)')"
}

# find_first: sets FIRST.
find_first() {
    local definition
    definition=$(task_definition "$PREVIOUS") || die "$EXIT_PREFLIGHT" "Cannot read the task definition $PREVIOUS. $(aws_error)"
    [ -n "$(definition_digest "$definition")" ] || FIRST=yes
}

# name_version: sets VERSION. For an image given by digest, it is the image's tag.
name_version() {
    VERSION=$RELEASE
    [ -n "$VERSION" ] || [[ $WANTED == sha256:* ]] || VERSION=$WANTED
    [ -n "$VERSION" ] || VERSION=$(version_of "$TAGS")
    [ -n "$VERSION" ] || die "$EXIT_PREFLIGHT" "The image has no tag. Set its version with --release VERSION."
}

die_if_running() {
    [ "$(rollout_in_progress)" = false ] && return
    # Tasks without an image never start, so such a rollout cannot complete.
    [ "$FIRST" = no ] || [ "$(service_get .taskDefinition)" != "$PREVIOUS" ] || return 0
    local rolling
    rolling=$(primary_get '"revision \(.taskDefinition | split(":") | last), since \(.createdAt)"')
    if [ "$TAKE_OVER" = yes ]; then
        warn "ECS is rolling out $rolling. This deployment replaces it."
    else
        rolling="ECS is rolling out $rolling."
        fail "$EXIT_RUNNING" "$rolling" \
            "Another deployment is running: $rolling The service was not changed. To watch a rollout of this version, use --resume; to replace it, use --take-over."
    fi
}

# A service without tasks was either never started, or stopped by hand or by the schedule together with its database.
die_if_stopped() {
    local status
    # The role may not be allowed to read databases. Then only the service's task count counts.
    status=$(database_status "$DB_INSTANCE") || status=unknown
    case $status in
        stop* | starting) ;;
        *) [ "$DESIRED" = 0 ] && [ "$FIRST" = no ] || return 0 ;;
    esac
    if [ "$WAKE" = no ]; then
        WHY="$ENVIRONMENT is stopped (desired tasks: $DESIRED, database: $status)."
        die "$EXIT_PREFLIGHT" "$WHY Nothing was changed. To start it first, use --wake or run: scripts/db.sh $ENVIRONMENT start"
    fi
    WAKE=needed DATABASE=$status
}

# The database starts first: without it, tasks fail their health checks.
wake() {
    [ "$WAKE" = needed ] || return 0
    step "Starting $ENVIRONMENT"
    [ "$DATABASE" = unknown ] || start_database "$DB_INSTANCE" "$(forward_left)" || die "$EXIT_PREFLIGHT" "$WHY"
}

# --- The deployment

register() {
    # Into a file, so that the interrupt handler can deregister the revision if Ctrl-C is pressed during the call.
    aws_change ecs register-task-definition --cli-input-json "$(with_image "$LATEST")" >"$WORK/registered" ||
        fail "$EXIT_PREFLIGHT" "Cannot register the task definition. $(aws_error) The service was not changed."
    if [ "$DRY_RUN" = yes ]; then
        NEW="${PREVIOUS%:*}:NEXT"
    else
        NEW=$(registered)
        success "Registered revision $(revision "$NEW") of $TASK_FAMILY."
    fi
}

registered() { jq -r .taskDefinition.taskDefinitionArn "$WORK/registered"; }

migrate() {
    [ "$MIGRATE_FIRST" = yes ] || return 0
    step "Migrating the database with the new image"
    PHASE=migrating
    if run_task "$NEW" '["migrate"]' "$(forward_left)" >&2 && [ "$TASK_EXIT" = 0 ]; then
        [ "$DRY_RUN" = yes ] || success "Migration completed."
        return
    fi
    fail "$EXIT_MIGRATION" "The migration failed: ${WHY:-the task gave no reason.} The service was not changed."
}

roll_out() {
    local arguments=()
    # Another deployment may have started during the migration.
    read_service_with_retries || fail "$EXIT_PREFLIGHT" "$WHY It was not changed."
    die_if_running
    [ "$(forward_left)" -gt 0 ] || fail "$EXIT_TIMED_OUT" "The time is over (--timeout $TIMEOUT). The service was not changed."
    [ "$(service_get .desiredCount)" -ge "$MIN_TASKS" ] || arguments=(--desired-count "$MIN_TASKS")
    step "Rolling out revision $(revision "$NEW")"
    PHASE=rolling_out
    update_service "$NEW" ${arguments[@]+"${arguments[@]}"} || {
        WHY=$(aws_error) PHASE=recorded
        fail "$EXIT_PREFLIGHT" "Cannot update the service. $WHY It still runs the previous revision."
    }
    allow_tasks
}

# allow_tasks: lets autoscaling keep the tasks of this rollout, and the schedule stop and start them. Not before the rollout has
# begun: AWS would start tasks of the previous revision, which may have no image.
ALLOWED=no
allow_tasks() {
    persist set_range "$MIN_TASKS" "$MAX_TASKS" --suspended-state ScheduledScalingSuspended=false ||
        roll_back_and_fail "$EXIT_ROLLED_BACK" "Cannot set the number of tasks that autoscaling allows. $(aws_error)"
    ALLOWED=yes
}

# watch_and_verify: waits for the rollout, then checks the targets and the service. Rolls back if a step fails.
watch_and_verify() {
    local ended=0 started=$SECONDS
    watch_rollout "$(forward_left)" || ended=$?
    case $ended in
        0) success "Rollout completed in $(duration $((SECONDS - started)))." ;;
        1) roll_back_and_fail "$EXIT_ROLLED_BACK" "ECS stopped the rollout${STOP_REASON:+: $STOP_REASON}.${WHY:+ ($WHY)}" ;;
        2)
            [ "$(primary_get .taskDefinition)" != "$PREVIOUS" ] ||
                roll_back_and_fail "$EXIT_ROLLED_BACK" "ECS rolled back${STOP_REASON:+: $STOP_REASON}."
            fail "$EXIT_NOT_ROLLED_BACK" "$WHY Somebody else is deploying, so nothing was rolled back."
            ;;
        3)
            print_stop_reasons
            roll_back_and_fail "$EXIT_TIMED_OUT" "$WHY${STOP_REASON:+ $STOP_REASON}"
            ;;
        *) fail "$EXIT_NOT_ROLLED_BACK" "$WHY ECS continues the rollout. To check it, run: scripts/status.sh $ENVIRONMENT" ;;
    esac
    PHASE=verifying
    watch_targets "$PROOF_SECONDS" || roll_back_and_fail "$EXIT_ROLLED_BACK" "$WHY"
    clear_progress
    [ -z "${TARGETS:-}" ] || success "$HEALTHY of $TARGETS load balancer targets are healthy."
    if [ "${OUTSIDE_CHECKS:-yes}" = no ]; then
        warn "OUTSIDE_CHECKS is no: $URL was not asked which image it runs."
        return
    fi
    smoke_test "$PROOF_SECONDS" || roll_back_and_fail "$EXIT_ROLLED_BACK" "$WHY"
    WHY='' # from failed tries before
    success "$URL runs $(jq -r '"\(.version), commit \(.git_sha // "?" | .[:12]), image \(.image_digest // "?" | .[:19])…"' <<<"$ANSWERED")"
}
PROOF_SECONDS=${PROOF_SECONDS:-90} # time for the targets and the service to show the new version after the rollout

# roll_back_and_fail CODE REASON: restores the previous revision, unless ECS already does, and ends the script.
roll_back_and_fail() {
    local code=$1 reason=${2% }
    clear_progress
    info "${RED}failed:$PLAIN $reason"
    PHASE=rolling_back
    roll_back || fail "$EXIT_NOT_ROLLED_BACK" "$reason $WHY"
    fail "$code" "$reason $ROLLBACK_NOTE" "$LEDGER_SERVICE $VERSION is not live in $ENVIRONMENT. $ROLLBACK_NOTE"
}

# roll_back: restores the previous revision. Fails if that is not possible or another deployment has started; WHY is the reason.
roll_back() {
    local ended=0 waited=$SECONDS
    await_listing "$ROLLOUT" || return 1
    # The circuit breaker starts its rollback a few seconds after it has marked the rollout as failed.
    if [ "$FIRST" = no ] && [ "$(service_get '.deploymentConfiguration | .deploymentCircuitBreaker.rollback or .alarms.rollback')" = true ]; then
        while [ "$(primary_get '"\(.id) \(.rolloutState)"')" = "$ROLLOUT FAILED" ] && [ $((SECONDS - waited)) -lt "$PROOF_SECONDS" ]; do
            sleep "$POLL_SECONDS"
            read_service_with_retries || return 1
        done
    fi
    if [ "$(primary_get .id)" != "$ROLLOUT" ] && [ "$(primary_get .taskDefinition)" != "$PREVIOUS" ]; then
        WHY="Another deployment replaced this one, so nothing was rolled back."
        return 1
    fi
    if [ "$FIRST" = yes ]; then
        stop_first
        return
    fi
    step "Rolling back to revision $(revision "$PREVIOUS")"
    if [ "$(primary_get .id)" != "$ROLLOUT" ]; then
        detail "ECS has already started the rollback."
        ROLLOUT=$(primary_get .id)
    else
        update_service_back || return 1
    fi
    watch_rollout "$(time_left)" || ended=$?
    # A rollback that bakes when the time is over has all its tasks.
    if [ "$ended" != 0 ] && [ "$ended$BAKING" != 3yes ]; then
        WHY="The rollback failed: $WHY"
        return 1
    fi
    ROLLBACK_NOTE="Revision $(revision "$PREVIOUS") is running again."
    success "$ROLLBACK_NOTE"
}

# stop_first: ends the tasks of a first deployment, and allows none. Fails if that is not possible; WHY is the reason.
stop_first() {
    step "Stopping the tasks: nothing ran here before"
    update_service_back --desired-count 0 || return 1
    if [ "$ALLOWED" = yes ] && ! persist set_range 0 0 --suspended-state ScheduledScalingSuspended=true; then
        WHY="The tasks were stopped, but autoscaling may start them again. $(aws_error)"
        return 1
    fi
    ROLLBACK_NOTE="No tasks are running, as before."
}

# update_service_back [ARGUMENT]...: starts the rollout of PREVIOUS. WHY is the reason why it fails.
update_service_back() {
    persist update_service "$PREVIOUS" "$@" || {
        WHY="The rollback failed: $(aws_error)"
        return 1
    }
}

# deregister ARN: makes a revision inactive, so that no rollback uses it.
deregister() {
    aws_change ecs deregister-task-definition --task-definition "$1" >/dev/null ||
        warn "Cannot deregister revision $(revision "$1"): a later rollback might use it. $(aws_error)"
}

# discard CODE: deregisters the new revision if it was never verified. Not if the service runs it, or if an interrupted rollout
# continues with it.
discard() {
    [ "$DRY_RUN" = no ] || return 0
    case $PHASE in
        nothing) return 0 ;;
        rolling_out | verifying)
            [ "$1" != "$EXIT_INTERRUPTED" ] && [ "$(primary_get .taskDefinition)" != "$NEW" ] || return 0
            ;;
        rolling_back) [ "$1" = "$EXIT_INTERRUPTED" ] || [ "$(primary_get .taskDefinition)" != "$NEW" ] || return 0 ;;
    esac
    [ -n "$NEW" ] || NEW=$(registered 2>/dev/null) || return 0
    [ -z "$NEW" ] || deregister "$NEW"
}

# --- Exit

# fail CODE REASON [MESSAGE]: records the deployment as failed and ends the script with MESSAGE (default: REASON).
fail() {
    WHY=$2
    if [ "$RECORDING" = yes ]; then
        RECORDING=no
        finish_recording failed "$2"
    fi
    die "$1" "${3:-$2}"
}

interrupted() {
    trap '' INT TERM
    set +e
    clear_progress
    info ''
    local again
    again="scripts/deploy.sh $ENVIRONMENT $WANTED --resume$(quote_words ${RESUME_ARGUMENTS[@]+"${RESUME_ARGUMENTS[@]}"})"
    case $PHASE in
        nothing) WHY="Interrupted before anything was changed." ;;
        recorded) WHY="Interrupted before the service was changed. It still runs the previous revision." ;;
        migrating) WHY="Interrupted during the migration. The service was not changed. The task ${TASK:-} continues until it ends." ;;
        rolling_out) WHY="Interrupted while ECS was rolling out revision $(revision "$NEW"). ECS continues the rollout, or rolls back if it fails." ;;
        verifying) WHY="Interrupted after the rollout of revision $(revision "$NEW"). It is live, but not verified." ;;
        rolling_back) WHY="Interrupted while ECS was rolling back to revision $(revision "$PREVIOUS"). ECS continues the rollback." ;;
    esac
    warn "$WHY"
    case $PHASE in
        rolling_out | verifying)
            detail "To watch and finish it:  $again"
            detail "To check its state:      scripts/status.sh $ENVIRONMENT"
            detail "To roll back:            scripts/rollback.sh $ENVIRONMENT --take-over"
            RECORDING=no # the ledger has it as running, which is true
            ;;
        migrating | rolling_back) detail "To check its state:  scripts/status.sh $ENVIRONMENT" ;;
    esac
    if [ "$RECORDING" = yes ]; then
        RECORDING=no
        if [ "$PHASE" = rolling_back ]; then finish_recording failed "$WHY"; else finish_recording cancelled "$WHY"; fi
    fi
    exit "$EXIT_INTERRUPTED"
}

# finish CODE: runs at every exit. Cleans up, records and prints the result.
finish() {
    local code=$1 outcome
    trap - EXIT INT TERM
    set +e # all of it must run, and in a trap a bare `return` returns the script's exit code
    # Ended neither by `die` nor by Ctrl-C: a command failed unexpectedly, and its exit code is not one of this script's.
    if [ "$code" != 0 ] && [ "$code" != "$EXIT_INTERRUPTED" ] && [ -z "$DIE_MESSAGE" ]; then
        code=$EXIT_FAILED WHY="Unexpected error."
        [ ! -s "$WORK/aws-error" ] || WHY+=" $(aws_error)"
        clear_progress
        info "$RED$SCRIPT:$PLAIN $WHY"
    fi
    case $code in
        0) outcome=succeeded ;;
        "$EXIT_USAGE" | "$EXIT_PREFLIGHT") outcome=refused ;;
        "$EXIT_BLOCKED") outcome=blocked ;;
        "$EXIT_RUNNING") outcome=already_running ;;
        "$EXIT_ROLLED_BACK") outcome=rolled_back ;;
        "$EXIT_NOT_ROLLED_BACK") outcome=failed ;;
        "$EXIT_TIMED_OUT") outcome=timed_out ;;
        "$EXIT_MIGRATION") outcome=migration_failed ;;
        "$EXIT_INTERRUPTED") outcome=interrupted ;;
        *) outcome=error ;;
    esac
    if [ "$code" != 0 ]; then
        WHY=${WHY:-$DIE_MESSAGE}
        discard "$code"
    fi
    [ "$RECORDING" = no ] || finish_recording failed "deploy.sh: $WHY"
    [ "$DRY_RUN" = yes ] || [ "$outcome" = refused ] || notify_slack "$outcome"
    [ "$JSON" = no ] || print_result "$outcome" "$code"
    rm -rf "$WORK"
    exit "$code"
}

print_result() {
    jq -n --arg outcome "$1" --argjson exit_code "$2" --arg environment "$ENVIRONMENT" --arg service "$LEDGER_SERVICE" --arg version "$VERSION" \
        --arg digest "$DIGEST" --arg sha "$GIT_SHA" --arg new "$NEW" --arg previous "$PREVIOUS" --arg rollout "$ROLLOUT" --arg ledger "$LEDGER" \
        --arg id "$LEDGER_ID" --arg url "${URL:-}" --arg reason "$WHY" --argjson seconds "$SECONDS" --arg dry "$DRY_RUN" '{
            outcome: $outcome, exit_code: $exit_code, dry_run: ($dry == "yes"), environment: $environment, service: $service, version: $version,
            image_digest: $digest, git_sha: $sha, task_definition: $new, previous_task_definition: $previous, ecs_deployment_id: $rollout,
            ledger: $ledger, ledger_deployment_id: $id, url: $url, reason: $reason, seconds: $seconds
        } | with_entries(if .value == "" then .value = null else . end)'
}

# notify_slack OUTCOME: posts one line. If that fails, prints a warning only.
notify_slack() {
    [ -n "${SLACK_WEBHOOK_URL:-}" ] || return 0
    local words
    case $1 in
        succeeded) words=':white_check_mark: is live in' ;;
        rolled_back | timed_out) words=':leftwards_arrow_with_hook: failed and was rolled back in' ;;
        migration_failed) words=':x: was not deployed because its migration failed in' ;;
        blocked | already_running) words=':no_entry: was blocked in' ;;
        interrupted) words=':warning: was interrupted during its deployment to' ;;
        *) words=':rotating_light: FAILED in' ;;
    esac
    jq -nc --arg words "$words" --arg what "$LEDGER_SERVICE ${VERSION:-$WANTED}" --arg where "$ENVIRONMENT" --arg who "${REQUESTED_BY:-}" \
        --arg took "$(duration $SECONDS)" --arg why "$WHY" --arg link "${RUN_URL:-${URL:-}}" '
        ($words | split(" ")) as $split
        | {text: "\($split[0]) *\($what)* \($split[1:] | join(" ")) *\($where)* · \($who) · \($took)\(
            if $why == "" then "" else " · " + $why[:300] end)\(if $link == "" then "" else " · " + $link end)"}' |
        curl -sSf --max-time 10 -o /dev/null -H 'Content-Type: application/json' --data-binary @- \
            -K <(printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL") 2>"$WORK/slack-error" || warn "Cannot notify Slack: $(head -n 1 "$WORK/slack-error")"
}

main() {
    ENVIRONMENT=''
    read_arguments "$@"
    require_tools aws jq curl
    describe_run
    trap 'finish $?' EXIT
    trap interrupted INT TERM
    preflight
    BEGUN=$SECONDS
    if [ "$RESUME" = yes ]; then
        resume
    else
        die_if_running
        die_if_stopped
        find_ledger
        [ "$TAKE_OVER" = no ] || cancel_running
        check_gate
        wake
        start_recording
        RECORDING=yes PHASE=recorded
        register
        migrate
        roll_out
    fi
    if [ "$DRY_RUN" = yes ]; then
        finish_recording succeeded ''
        RECORDING=no
        success "Dry run: nothing was changed."
        return
    fi
    watch_and_verify
    mark_live "$DIGEST"
    RECORDING=no
    finish_recording succeeded ''
    [ "$ROLLBACK" = no ] || [ "$LEFT" = "$NEW" ] || deregister "$LEFT"
    success "$BOLD$LEDGER_SERVICE $VERSION is live in $ENVIRONMENT$PLAIN ($(duration $SECONDS))."
}

# resume: finds the rollout of this image that is in progress or has just ended.
resume() {
    local definition
    NEW=$(primary_get .taskDefinition)
    definition=$(task_definition "$NEW") || die "$EXIT_PREFLIGHT" "$(aws_error)"
    if [ "$(definition_digest "$definition")" != "$DIGEST" ]; then
        WHY="ECS is not rolling out $VERSION; its newest rollout is revision $(revision "$NEW")."
        die "$EXIT_PREFLIGHT" "$WHY The deployment was replaced or rolled back. To check, run: scripts/status.sh $ENVIRONMENT"
    fi
    ROLLOUT=$(primary_get .id) LAST_EVENT=$(service_get '.events[0].id // ""')
    LEFT=$(service_get 'first(.deployments[] | select(.status == "ACTIVE").taskDefinition) // ""')
    PREVIOUS=$(service_get 'first(.deployments[] | select(.status == "ACTIVE" and .rolloutState == "COMPLETED").taskDefinition) // ""')
    PREVIOUS=${PREVIOUS:-$(revision_to_return_to "$NEW")} FIRST=no
    find_first
    LEFT=${LEFT:-$PREVIOUS}
    find_ledger
    resume_recording
    [ -n "$LEDGER_ID" ] || [ "$LEDGER" = none ] || {
        warn "The ledger has no running deployment of $VERSION: the outcome is not recorded."
        LEDGER=none
    }
    RECORDING=yes PHASE=rolling_out
    step "Watching the rollout of revision $(revision "$NEW")"
    allow_tasks # the interrupted run may not have come so far
}

main "$@"
