#!/usr/bin/env bash
# Puts a version into an environment, proves that it runs there, and goes back by itself when it does not.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"
. "$(dirname "$0")/ecs.sh"
. "$(dirname "$0")/rds.sh"
readonly EXIT_BLOCKED=4 EXIT_RUNNING=5 EXIT_ROLLED_BACK=6 EXIT_NOT_ROLLED_BACK=7 EXIT_TIMED_OUT=8 EXIT_MIGRATION=9 EXIT_INTERRUPTED=130
. "$(dirname "$0")/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/deploy.sh <environment> <version or digest> [OPTION]...

Deploys an image that is in ECR, named by its tag or digest. Asks prop's gate first and records what happens there; registers
a task definition with the image by digest; updates the service and watches until ECS says that this very rollout is
complete; then asks the load balancer for its targets and the service itself for /health and /version. When anything of
that fails, it puts back what ran before and says why.

  scripts/deploy.sh staging 1.4.2
  scripts/deploy.sh production sha256:9f86d081884c... --migrate-first
  scripts/deploy.sh production 1.4.3 --force --reason 'Card payments are down.'
  scripts/deploy.sh staging 1.4.2 --resume          after Ctrl-C: goes on watching

Options:
  --migrate-first     run `prop migrate` of the new image as a task of its own first; if it fails, the service is not touched
  --wake              an environment that was stopped is started first; without this it is refused
  --force             pass freezes with an override in prop, which needs --reason; nothing else is passed
  --reason TEXT       why; recorded
  --require-ledger    refuse when prop can't be reached, instead of going ahead and telling it later
  --take-over         go ahead although another deployment is running, which prop then takes for cancelled
  --resume            watch the rollout that an interrupted run has left, and finish it
  --rollback          it leaves what is not good: afterwards nothing goes back to that (rollback.sh says so)
  --release VERSION   the version's name in prop, when its image is named by digest and no tag tells
  --service NAME      the service's name in prop (prop)
  --timeout SECONDS   how long a rollout may take (900)
  --dry-run           print every call that would change something, and make none
  --json              the result as JSON on standard output
  --help

Variables:
  PROP_URL, PROP_KEY  the ledger, and a key for it with the scopes read and deploy (override for --force)
  PROP_SPOOL          where to keep what a ledger that is away is told later (.prop-spool.jsonl)
  SLACK_WEBHOOK_URL   is told the outcome in one line
  APP_URL             where the service answers, if not at its load balancer's own name (as with a certificate)
  AWS_ACCOUNT_ID      refuse any other account
  AWS_REGION          ap-south-1

Exit codes:
  0    deployed, and proven to run
  1    something unexpected
  2    an argument is wrong
  3    preflight: something is missing or denied; nothing was changed
  4    prop's gate keeps it back; nothing was changed
  5    another deployment is running; nothing was changed
  6    it failed, and what ran before is back
  7    it failed, and what ran before could not be put back: look at it
  8    it took too long, and what ran before is back
  9    the migration failed; the service was not touched
  130  interrupted; it says what state things are in
END
}

# --- What is asked

WANTED='' RELEASE='' TIMEOUT=900
MIGRATE_FIRST=no WAKE=no FORCE=no REASON='' REQUIRE_LEDGER=no TAKE_OVER=no RESUME=no ROLLBACK=no JSON=no
GIVEN_TOO=() # what --resume wants to be given again

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
            --rollback) ROLLBACK=yes GIVEN_TOO+=("$1") ;;
            --dry-run) DRY_RUN=yes ;;
            --json) JSON=yes ;;
            --reason | --release | --service | --timeout)
                [ -n "${2:-}" ] || misused "$1 wants a value."
                [ "$1" = --reason ] || GIVEN_TOO+=("$1" "$2")
                case $1 in
                    --reason) REASON=$2 ;;
                    --release) RELEASE=$2 ;;
                    --service) LEDGER_SERVICE=$2 ;;
                    --timeout) TIMEOUT=$2 ;;
                esac
                shift
                ;;
            -*) misused "There is no option $1." ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    [ ${#words[@]} -le 2 ] || misused "What is '${words[2]}'?"
    use_environment "${words[0]:-}"
    WANTED=${words[1]:-}
    [ -n "$WANTED" ] || misused "Which version, or digest?"
    [[ $WANTED =~ ^(sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$ ]] || misused "'$WANTED' is neither a tag nor a digest (sha256:...)."
    [[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || misused "--timeout is a number of seconds."
    [ "$FORCE" = no ] || [ -n "$REASON" ] || misused "--force wants a --reason: it is recorded."
    [ "$RESUME" = no ] || [ "$TAKE_OVER$MIGRATE_FIRST$FORCE" = nonono ] || misused "--resume only watches: it goes with none of --take-over, --migrate-first, --force."
}

# --- Before anything is changed

PHASE=nothing # how far it came: nothing recorded migrating rolling proving back
# PREVIOUS is what to go back to; LEFT what the service was told to run, which with --take-over is not proven.
VERSION='' DIGEST='' GIT_SHA='' NEW='' PREVIOUS='' LEFT='' ROLLOUT='' WHY='' RECORDING=no

preflight() {
    identify
    find_service
    PREVIOUS=$(proven_definition) LEFT=$(of_service .taskDefinition) DESIRED=$(of_service .desiredCount)
    resolve_image "$WANTED" || {
        ! no_image || die "$EXIT_PREFLIGHT" "There is no image $WANTED in $ECR_REPOSITORY. scripts/build.sh makes it."
        die "$EXIT_PREFLIGHT" "The image $WANTED can't be looked up in $ECR_REPOSITORY. $(aws_said)"
    }
    name_version
    LATEST=$(task_definition "$TASK_FAMILY") || die "$EXIT_PREFLIGHT" "The task definition $TASK_FAMILY can't be read. $(aws_said)"
    [ "$(jq --arg name "$CONTAINER_NAME" 'any(.containerDefinitions[]; .name == $name)' <<<"$LATEST")" = true ] ||
        die "$EXIT_PREFLIGHT" "The task definition $TASK_FAMILY has no container '$CONTAINER_NAME'."
    use_log_stream_of "$LATEST"
    find_url || die "$EXIT_PREFLIGHT" "The load balancer $LOAD_BALANCER can't be read. $(aws_said)"

    step "$BOLD$LEDGER_SERVICE $VERSION$PLAIN to $BOLD$ENVIRONMENT$PLAIN$([ "$DRY_RUN" = no ] || echo ', as a dry run')"
    note "image    $IMAGE"
    note "         tags: ${TAGS:-none}; commit: ${GIT_SHA:-not known}"
    note "account  $ACCOUNT in $AWS_REGION, as $IDENTITY"
    note "service  $ECS_SERVICE: revision $(revision "$LEFT"), $(of_service .runningCount) of $DESIRED tasks running"
    note "answers  $URL$([ "$INSECURE" = no ] || echo ' (certificate not checked: APP_URL names the host that it is for)')"
}

# name_version: what the release is called. Its own tag, if it is named by digest.
name_version() {
    VERSION=$RELEASE
    [ -n "$VERSION" ] || [[ $WANTED == sha256:* ]] || VERSION=$WANTED
    [ -n "$VERSION" ] || VERSION=$(version_of "$TAGS")
    [ -n "$VERSION" ] || die "$EXIT_PREFLIGHT" "That image has no tag. --release VERSION says what it is called."
}

is_rolling() { of_service '(.deployments | length > 1) or any(.deployments[]; .rolloutState == "IN_PROGRESS")'; }

refuse_if_running() {
    [ "$(is_rolling)" = false ] && return
    local rolling
    rolling=$(of_primary '"revision \(.taskDefinition | split(":") | last), since \(.createdAt)"')
    if [ "$TAKE_OVER" = yes ]; then
        warn "ECS is rolling out $rolling; this deployment takes its place."
    else
        rolling="ECS is rolling out $rolling."
        fail "$EXIT_RUNNING" "$rolling" \
            "Another deployment is running: $rolling The service was not touched. --resume goes on watching one of this version; --take-over replaces it."
    fi
}

# A service that has no tasks was never started, or somebody or the schedule has stopped it, and then its database too.
refuse_if_stopped() {
    local status answer
    # The role may be one that can't look at databases: then the service alone tells.
    status=$(database_status "$DB_INSTANCE") || status=unknown
    STARTING=no
    if [ "$DESIRED" = 0 ]; then
        STARTING=yes
        answer=$(task_definition "$PREVIOUS") || die "$EXIT_PREFLIGHT" "$(aws_said)"
        [ -n "$(digest_in "$answer")" ] || case $status in stop* | starting) ;; *) return 0 ;; esac
    else
        case $status in stop* | starting) ;; *) return 0 ;; esac
    fi
    if [ "$WAKE" = no ]; then
        WHY="$ENVIRONMENT is stopped (tasks wanted: $DESIRED, database: $status)."
        die "$EXIT_PREFLIGHT" "$WHY Nothing was changed. --wake starts it first; scripts/db.sh $ENVIRONMENT start does it by hand."
    fi
    WAKE=needed DATABASE=$status
}

# Database first: tasks that don't find it are taken for broken.
wake() {
    [ "$WAKE" = needed ] || return 0
    step "Waking $ENVIRONMENT"
    [ "$DATABASE" = unknown ] || start_database "$DB_INSTANCE" "$TIMEOUT" || die "$EXIT_PREFLIGHT" "$WHY"
}

# --- The deployment

register() {
    # Into a file: a Ctrl-C that comes meanwhile is heard before anything could be done with the answer.
    alter ecs register-task-definition --cli-input-json "$(with_image "$LATEST")" >"$WORK/registered" ||
        fail "$EXIT_PREFLIGHT" "The task definition can't be registered. $(aws_said) The service was not touched."
    if [ "$DRY_RUN" = yes ]; then
        NEW="${PREVIOUS%:*}:NEXT"
    else
        NEW=$(registered)
        done_with "Registered revision $(revision "$NEW") of $TASK_FAMILY."
    fi
}

registered() { jq -r .taskDefinition.taskDefinitionArn "$WORK/registered"; }

migrate() {
    [ "$MIGRATE_FIRST" = yes ] || return 0
    step "Migrating the database, with the new image"
    PHASE=migrating
    if run_once "$NEW" '["migrate"]' "$TIMEOUT" >&2 && [ "$TASK_EXIT" = 0 ]; then
        [ "$DRY_RUN" = yes ] || done_with "Migrated."
        return
    fi
    fail "$EXIT_MIGRATION" "The migration failed: ${WHY:-it wrote no reason.} The service was not touched."
}

roll_out() {
    local arguments=()
    # Registering and migrating took their time: what has begun since then is not rolled over.
    see_service || fail "$EXIT_PREFLIGHT" "$WHY It was not touched."
    refuse_if_running
    [ "$STARTING" = no ] || arguments=(--desired-count "$(least_tasks)")
    step "Rolling out revision $(revision "$NEW")"
    PHASE=rolling
    update_service "$NEW" ${arguments[@]+"${arguments[@]}"} || {
        WHY=$(aws_said) PHASE=recorded
        fail "$EXIT_PREFLIGHT" "The service can't be updated. $WHY It runs on as it was."
    }
}

# watch: until it is complete and proven, or has failed and is undone.
watch() {
    local ended=0 started=$SECONDS
    watch_rollout "$TIMEOUT" || ended=$?
    case $ended in
        0) done_with "Rolled out in $(minutes $((SECONDS - started)))." ;;
        1) undo "$EXIT_ROLLED_BACK" "ECS gave it up${TASKS_STOPPED:+: $TASKS_STOPPED}.${WHY:+ ($WHY)}" ;;
        2)
            [ "$(of_primary .taskDefinition)" != "$PREVIOUS" ] ||
                undo "$EXIT_ROLLED_BACK" "ECS went back by itself${TASKS_STOPPED:+: $TASKS_STOPPED}."
            fail "$EXIT_NOT_ROLLED_BACK" "$WHY Somebody else is deploying; it was left alone."
            ;;
        3)
            why_tasks_stopped
            undo "$EXIT_TIMED_OUT" "$WHY${TASKS_STOPPED:+ $TASKS_STOPPED}"
            ;;
        *) fail "$EXIT_NOT_ROLLED_BACK" "$WHY ECS goes on by itself: scripts/status.sh $ENVIRONMENT." ;;
    esac
    PHASE=proving
    watch_targets "$PROOF_SECONDS" || undo "$EXIT_ROLLED_BACK" "$WHY"
    no_progress
    [ -z "${TARGETS:-}" ] || done_with "Healthy targets of the load balancer: $HEALTHY of $TARGETS."
    smoke_test "$PROOF_SECONDS" || undo "$EXIT_ROLLED_BACK" "$WHY"
    WHY='' # what was wrong on the way is no reason
    done_with "$URL answers as $(jq -r '"\(.version), commit \(.git_sha // "?" | .[:12]), image \(.image_digest // "?" | .[:19])…"' <<<"$ANSWERED")"
}
PROOF_SECONDS=${PROOF_SECONDS:-90} # how long targets and service may take to show the new version, once it is rolled out

# undo CODE REASON: puts back what ran before, unless ECS does it already; and ends the script.
undo() {
    local code=$1 reason=${2% }
    no_progress
    say "${RED}failed:$PLAIN $reason"
    PHASE=back
    go_back || fail "$EXIT_NOT_ROLLED_BACK" "$reason $WHY"
    fail "$code" "$reason $BACK" "$LEDGER_SERVICE $VERSION is not live in $ENVIRONMENT. $BACK"
}

# go_back: fails when that can't be done, or is not for us to do; WHY says why.
go_back() {
    local ended=0 waited=$SECONDS
    see_service || return 1
    # A moment passes between the circuit breaker's verdict and its way back.
    if [ "$STARTING" = no ] && [ "$(of_service '.deploymentConfiguration | .deploymentCircuitBreaker.rollback or .alarms.rollback')" = true ]; then
        while [ "$(of_primary '"\(.id) \(.rolloutState)"')" = "$ROLLOUT FAILED" ] && [ $((SECONDS - waited)) -lt "$PROOF_SECONDS" ]; do
            sleep "$POLL_SECONDS"
            see_service || return 1
        done
    fi
    if [ "$(of_primary .id)" != "$ROLLOUT" ] && [ "$(of_primary .taskDefinition)" != "$PREVIOUS" ]; then
        WHY="Another deployment took its place; it was left alone."
        return 1
    fi
    if [ "$STARTING" = yes ]; then
        step "Stopping the tasks again: nothing ran here before"
        update_service "$PREVIOUS" --desired-count 0 || {
            WHY="It could not be undone: $(aws_said)"
            return 1
        }
        BACK="No tasks run, as before."
        return
    fi
    step "Going back to revision $(revision "$PREVIOUS")"
    if [ "$(of_primary .id)" != "$ROLLOUT" ]; then
        note "ECS does it by itself."
        ROLLOUT=$(of_primary .id)
    else
        update_service "$PREVIOUS" || {
            WHY="It could not be undone: $(aws_said)"
            return 1
        }
    fi
    watch_rollout "$TIMEOUT" || ended=$?
    if [ "$ended" != 0 ]; then
        WHY="It could not be undone: $WHY"
        return 1
    fi
    BACK="Revision $(revision "$PREVIOUS") is back."
    done_with "$BACK"
}

# deregister ARN: takes a revision that is not good out of the active ones, so that nothing goes back to it.
deregister() {
    alter ecs deregister-task-definition --task-definition "$1" >/dev/null ||
        warn "Revision $(revision "$1") stays active, although it is not good. $(aws_said)"
}

# discard CODE: a revision that never proved good is no longer active when this ends, unless it is what the service has, or is
# getting with nobody watching.
discard() {
    [ "$DRY_RUN" = no ] || return 0
    case $PHASE in
        nothing) return 0 ;;
        rolling | proving)
            [ "$1" != "$EXIT_INTERRUPTED" ] && [ "$(of_primary .taskDefinition)" != "$NEW" ] || return 0
            ;;
        back) [ "$1" = "$EXIT_INTERRUPTED" ] || [ "$(of_primary .taskDefinition)" != "$NEW" ] || return 0 ;;
    esac
    [ -n "$NEW" ] || NEW=$(registered 2>/dev/null) || return 0
    [ -z "$NEW" ] || deregister "$NEW"
}

# --- How it ends

# fail CODE REASON [LAST_WORDS]: records that it failed, and ends the script.
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
    no_progress
    say ''
    local again
    again="scripts/deploy.sh $ENVIRONMENT $WANTED --resume$(as_typed ${GIVEN_TOO[@]+"${GIVEN_TOO[@]}"})"
    case $PHASE in
        nothing) WHY="Interrupted before anything was changed." ;;
        recorded) WHY="Interrupted before the service was touched: it runs on as it was." ;;
        migrating) WHY="Interrupted while the migration ran. The service was not touched; the task ${TASK:-} goes on to its end: scripts/status.sh $ENVIRONMENT." ;;
        rolling) WHY="Interrupted while ECS was rolling out revision $(revision "$NEW"): it goes on, or back, by itself. Nobody watches it now." ;;
        proving) WHY="Interrupted after revision $(revision "$NEW") was rolled out: it is live, but not proven." ;;
        back) WHY="Interrupted while ECS was going back to revision $(revision "$PREVIOUS"): it goes on by itself." ;;
    esac
    warn "$WHY"
    case $PHASE in
        rolling | proving)
            note "To go on watching, and finish it:  $again"
            note "To look at it:                     scripts/status.sh $ENVIRONMENT"
            note "To go back:                        scripts/rollback.sh $ENVIRONMENT --take-over"
            RECORDING=no # it is running, and the ledger says so
            ;;
        back) note "To look at it:  scripts/status.sh $ENVIRONMENT" ;;
    esac
    if [ "$RECORDING" = yes ]; then
        RECORDING=no
        if [ "$PHASE" = back ]; then finish_recording failed "$WHY"; else finish_recording cancelled "$WHY"; fi
    fi
    exit "$EXIT_INTERRUPTED"
}

# ended CODE: the last word, whatever happened.
ended() {
    local code=$1 outcome
    trap - EXIT INT TERM
    set +e # there is no other end; and in a trap, a bare `return` gives what the script ended with
    # Neither ended by a sentence nor by Ctrl-C: a command failed that should not, and its code means nothing here.
    if [ "$code" != 0 ] && [ "$code" != "$EXIT_INTERRUPTED" ] && [ -z "$DIED" ]; then
        code=$EXIT_FAILED WHY="It ended unexpectedly."
        [ ! -s "$WORK/aws-said" ] || WHY+=" $(aws_said)"
        no_progress
        say "$RED$SCRIPT:$PLAIN $WHY"
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
        WHY=${WHY:-$DIED}
        discard "$code"
    fi
    [ "$RECORDING" = no ] || finish_recording failed "deploy.sh: $WHY"
    [ "$DRY_RUN" = yes ] || [ "$outcome" = refused ] || tell_slack "$outcome"
    [ "$JSON" = no ] || result "$outcome" "$code"
    rm -rf "$WORK"
    exit "$code"
}

result() {
    jq -n --arg outcome "$1" --argjson exit_code "$2" --arg environment "$ENVIRONMENT" --arg service "$LEDGER_SERVICE" --arg version "$VERSION" \
        --arg digest "$DIGEST" --arg sha "$GIT_SHA" --arg new "$NEW" --arg previous "$PREVIOUS" --arg rollout "$ROLLOUT" --arg ledger "$LEDGER" \
        --arg id "$LEDGER_ID" --arg url "${URL:-}" --arg reason "$WHY" --argjson seconds "$SECONDS" --arg dry "$DRY_RUN" '{
            outcome: $outcome, exit_code: $exit_code, dry_run: ($dry == "yes"), environment: $environment, service: $service, version: $version,
            image_digest: $digest, git_sha: $sha, task_definition: $new, previous_task_definition: $previous, ecs_deployment_id: $rollout,
            ledger: $ledger, ledger_deployment_id: $id, url: $url, reason: $reason, seconds: $seconds
        } | with_entries(if .value == "" then .value = null else . end)'
}

# tell_slack OUTCOME: one line; it fails nothing.
tell_slack() {
    [ -n "${SLACK_WEBHOOK_URL:-}" ] || return 0
    local words
    case $1 in
        succeeded) words=':white_check_mark: is live in' ;;
        rolled_back | timed_out) words=':leftwards_arrow_with_hook: failed, and what ran before is back, in' ;;
        migration_failed) words=':x: was not deployed: its migration failed in' ;;
        blocked | already_running) words=':no_entry: was kept back from' ;;
        interrupted) words=':warning: was interrupted on its way to' ;;
        *) words=':rotating_light: FAILED in' ;;
    esac
    jq -nc --arg words "$words" --arg what "$LEDGER_SERVICE ${VERSION:-$WANTED}" --arg where "$ENVIRONMENT" --arg who "${REQUESTED_BY:-}" \
        --arg took "$(minutes $SECONDS)" --arg why "$WHY" --arg link "${RUN_URL:-${URL:-}}" '
        ($words | split(" ")) as $split
        | {text: "\($split[0]) *\($what)* \($split[1:] | join(" ")) *\($where)* · \($who) · \($took)\(
            if $why == "" then "" else " · " + $why[:300] end)\(if $link == "" then "" else " · " + $link end)"}' |
        curl -sSf --max-time 10 -o /dev/null -H 'Content-Type: application/json' --data-binary @- \
            -K <(printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL") 2>"$WORK/slack-said" || warn "Slack was not told: $(head -n 1 "$WORK/slack-said")"
}

main() {
    ENVIRONMENT=''
    read_arguments "$@"
    need aws jq curl
    describe_run
    trap 'ended $?' EXIT
    trap interrupted INT TERM
    preflight
    if [ "$RESUME" = yes ]; then
        resume
    else
        refuse_if_running
        refuse_if_stopped
        find_ledger
        [ "$TAKE_OVER" = no ] || give_up_running
        pass_gate
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
        done_with "A dry run: nothing was changed."
        return
    fi
    watch
    RECORDING=no
    finish_recording succeeded ''
    [ "$ROLLBACK" = no ] || [ "$LEFT" = "$NEW" ] || deregister "$LEFT"
    done_with "$BOLD$LEDGER_SERVICE $VERSION is live in $ENVIRONMENT$PLAIN, after $(minutes $SECONDS)."
}

# resume: takes up the rollout of this image that is under way or has just ended.
resume() {
    local definition
    NEW=$(of_primary .taskDefinition)
    definition=$(task_definition "$NEW") || die "$EXIT_PREFLIGHT" "$(aws_said)"
    if [ "$(digest_in "$definition")" != "$DIGEST" ]; then
        WHY="ECS is not rolling out $VERSION, but revision $(revision "$NEW")."
        die "$EXIT_PREFLIGHT" "$WHY It was given up, or went back: scripts/status.sh $ENVIRONMENT."
    fi
    ROLLOUT=$(of_primary .id) LAST_EVENT=$(of_service '.events[0].id // ""') STARTING=no
    LEFT=$(of_service 'first(.deployments[] | select(.status == "ACTIVE").taskDefinition) // ""')
    PREVIOUS=$(of_service 'first(.deployments[] | select(.status == "ACTIVE" and .rolloutState == "COMPLETED").taskDefinition) // ""')
    [ -n "$PREVIOUS" ] || PREVIOUS=$(last_good_revision "$NEW" | jq -r .taskDefinitionArn) || PREVIOUS=$NEW
    LEFT=${LEFT:-$PREVIOUS}
    find_ledger
    resume_recording
    [ -n "$LEDGER_ID" ] || [ "$LEDGER" = none ] || {
        warn "The ledger knows of no running deployment of $VERSION: the outcome is not recorded."
        LEDGER=none
    }
    RECORDING=yes PHASE=rolling
    step "Watching revision $(revision "$NEW") again"
}

main "$@"
