#!/usr/bin/env bash
# Deploys an image for a pipeline: in its turn, and unless a newer commit is live already.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecr.sh"
source "$(dirname "$0")/lib/ecs.sh"
source "$(dirname "$0")/lib/ledger.sh"
readonly EXIT_RUNNING=5

usage() {
    cat <<'END'
Usage: scripts/deploy-in-turn.sh ENVIRONMENT VERSION|DIGEST [OPTION]...
Wait until no other deployment of the environment is running, then deploy the image with deploy.sh, unless a newer commit is live.

Pipelines of several pushes run at the same time, and the one of the older push may end last. So this script compares the commit
of the image with that of the live image. If the live one descends from it, the image is superseded: nothing is deployed, prop
records the deployment as cancelled, and the script succeeds. To deploy an older version on purpose, use deploy.sh or rollback.sh.

The script needs git and the history of both commits. If the commit of the live image is unknown, it deploys.

Options:
  OPTION...   options of deploy.sh, except --dry-run and --resume
  -h, --help  print this help

With --json, the outcome of what is superseded is "superseded".

Environment, besides that of deploy.sh:
  TURN_SECONDS         maximum duration of the wait (default: 600)
  GITHUB_STEP_SUMMARY  file to which a line is added if the image is superseded, as GitHub sets it

Examples:
  scripts/deploy-in-turn.sh staging sha256:9f86d081884c... --wake --json

Exit codes:
  0  deployed and verified, or superseded
  3  preflight check failed: something is missing or access is denied; nothing was changed
  5  another deployment was still running after TURN_SECONDS; nothing was changed
  others: those of deploy.sh
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
esac
use_environment "${1:-}"
WANTED=${2:-}
[ -n "$WANTED" ] || missing_argument "VERSION or DIGEST"
JSON=no REASON=''
for argument in "${@:3}"; do
    case $argument in
        --dry-run | --resume) unknown_option "$argument" ;;
        --json) JSON=yes ;;
    esac
done

# wait_for_turn: returns when ECS rolls nothing out and prop has no other deployment running, or when time is up.
wait_for_turn() {
    while :; do
        read_service_with_retries || die "$EXIT_PREFLIGHT" "$WHY"
        [ "$(rollout_in_progress)" = true ] || is_running_in_ledger || break
        [ "$SECONDS" -lt "$deadline" ] || break
        progress "$(duration "$SECONDS")" "waiting: another deployment of $ENVIRONMENT is running"
        sleep "$POLL_SECONDS"
    done
    clear_progress
}

# is_running_in_ledger: succeeds if prop has another deployment running. That of this run, which GitHub's webhook may
# have reported, does not count: the gate knows it by the address of the run.
is_running_in_ledger() {
    [ -n "${PROP_URL:+${PROP_KEY:-}}" ] || return 1
    local query
    query=$(deployment_body | jq -r '[{service, environment, version, run_url} | to_entries[] | select(.value)
        | "\(.key)=\(.value | @uri)"] | join("&")')
    ledger_request GET "/v1/gate?$query" && [ "$LEDGER_STATUS" = 200 ] &&
        jq -e 'any(.reasons[]; .code == "deployment_running")' <<<"$LEDGER_ANSWER" >/dev/null
}

# find_live_commit: sets LIVE_SHA to the commit of the image that the service runs, or to nothing if it is not known.
find_live_commit() {
    local definition live
    LIVE_SHA=''
    definition=$(task_definition "$(service_get .taskDefinition)") ||
        die "$EXIT_PREFLIGHT" "Cannot read what is live. $(aws_error)"
    live=$(definition_digest "$definition")
    [ -n "$live" ] || return 0 # nothing was deployed yet
    LIVE_SHA=$(resolve_image "$live" && echo "$GIT_SHA") || LIVE_SHA=''
}

# is_superseded: succeeds if the live commit descends from the commit of this image.
is_superseded() {
    find_live_commit
    [ -n "$LIVE_SHA" ] && [ -n "$GIT_SHA" ] && [ "$LIVE_SHA" != "$GIT_SHA" ] || return 1
    if ! has_commit "$LIVE_SHA" || ! has_commit "$GIT_SHA"; then
        warn "The commit ${GIT_SHA:0:12} cannot be compared with ${LIVE_SHA:0:12}, which is live: one is not in this repository."
        return 1
    fi
    git -C "$ROOT" merge-base --is-ancestor "$GIT_SHA" "$LIVE_SHA"
}

has_commit() { git -C "$ROOT" cat-file -e "$1^{commit}" 2>/dev/null; }

# record_superseded REASON: records a deployment that was asked for and never started.
record_superseded() {
    [ -n "${PROP_URL:+${PROP_KEY:-}}" ] || return 0
    local request cancelled
    request=$(deployment_body | jq -c 'del(.start)')
    cancelled=$(jq -nc --arg reason "$1" '{to: "cancelled", reason: $reason}')
    if ledger_request POST /v1/deployments "$request" "$EXTERNAL_ID" && [ "$LEDGER_STATUS" -lt 300 ] &&
        ledger_request POST "/v1/deployments/$(ledger_get .id)/transitions" "$cancelled" && [ "$LEDGER_STATUS" = 200 ]; then
        return
    fi
    warn "prop has not recorded this deployment as cancelled: ${LEDGER_WHY:-$(ledger_problem)}"
}

end_as_superseded() {
    local reason="Superseded: the commit ${LIVE_SHA:0:12}, which is live, is newer than ${GIT_SHA:0:12}." message
    message="$LEDGER_SERVICE $VERSION was not deployed to $ENVIRONMENT. $reason"
    record_superseded "$reason"
    success "$message"
    [ -z "${GITHUB_STEP_SUMMARY:-}" ] || echo "$message" >>"$GITHUB_STEP_SUMMARY"
    [ "$JSON" = no ] || jq -n --arg environment "$ENVIRONMENT" --arg service "$LEDGER_SERVICE" --arg version "$VERSION" \
        --arg digest "$DIGEST" --arg sha "$GIT_SHA" --arg url "$URL" --arg reason "$reason" \
        '{outcome: "superseded", exit_code: 0, environment: $environment, service: $service, version: $version,
            image_digest: $digest, git_sha: $sha, url: $url, reason: $reason}'
    exit
}

require_tools aws jq curl git
[ "$(git -C "$ROOT" rev-parse --is-shallow-repository)" = false ] ||
    die "$EXIT_PREFLIGHT" "This clone lacks the history that compares commits. In a workflow, check out with fetch-depth: 0."
describe_run
check_identity
require_service
resolve_image "$WANTED" || die "$EXIT_PREFLIGHT" "Cannot look up the image $WANTED in $ECR_REPOSITORY. $(aws_error)"
VERSION=$(version_of "$TAGS")
find_url || die "$EXIT_PREFLIGHT" "Cannot read the load balancer $LOAD_BALANCER. $(aws_error)"
deadline=$((SECONDS + ${TURN_SECONDS:-600}))
while :; do
    wait_for_turn
    ! is_superseded || end_as_superseded
    code=0
    "$ROOT/scripts/deploy.sh" "$@" >"$WORK/result" || code=$?
    if [ "$code" != "$EXIT_RUNNING" ] || [ "$SECONDS" -ge "$deadline" ]; then break; fi
    # Somebody else was a moment faster.
    sleep "$POLL_SECONDS"
done
cat "$WORK/result"
exit "$code"
