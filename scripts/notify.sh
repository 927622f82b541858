#!/usr/bin/env bash
# Posts the outcome of a workflow run to Slack, in one line. deploy.sh posts about each deployment itself.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'END'
Usage: JOBS=JSON scripts/notify.sh
Print the outcome of a workflow run in one line and post it to Slack.

If the message cannot be sent, the script prints a warning and still succeeds. It needs curl and jq.

Options:
  -h, --help  print this help

Environment:
  JOBS               the jobs with their results, in the format of toJSON(needs) in GitHub Actions
  SLACK_WEBHOOK_URL  Slack webhook; if it is not set, the line is only printed
  GITHUB_REPOSITORY, GITHUB_REF_NAME, GITHUB_SHA, GITHUB_TRIGGERING_ACTOR, GITHUB_RUN_ID, GITHUB_SERVER_URL
                     as GitHub sets them

Examples:
  JOBS='{"test": {"result": "success"}, "deploy-production": {"result": "failure"}}' scripts/notify.sh

Exit codes:
  0  done, even if the message was not sent
  2  wrong argument, or JOBS is missing or not a JSON object
  3  a tool is missing
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    '') ;;
    -*) unknown_option "$1" ;;
    *) unexpected_argument "$1" ;;
esac
require_tools curl jq
[ -n "${JOBS:-}" ] || usage_error "the variable JOBS is not set."
jq -e 'type == "object"' <<<"$JOBS" >/dev/null 2>&1 || usage_error "JOBS must be a JSON object, as toJSON(needs) makes it."

message=$(jq -r --arg repository "${GITHUB_REPOSITORY:-}" --arg branch "${GITHUB_REF_NAME:-}" --arg sha "${GITHUB_SHA:-}" --arg actor "${GITHUB_TRIGGERING_ACTOR:-}" \
    --arg url "${GITHUB_SERVER_URL:-}/${GITHUB_REPOSITORY:-}/actions/runs/${GITHUB_RUN_ID:-}" '
    def named($result): to_entries | map(select(.value.result == $result).key);
    named("failure") as $failed | named("cancelled") as $cancelled
    | (to_entries | map(select(.value.outputs.outcome? == "superseded").key)) as $superseded
    | (if $failed != [] then ":x: failed: \($failed | join(", "))"
       elif $cancelled != [] then ":heavy_minus_sign: cancelled: \($cancelled | join(", "))"
       elif $superseded != [] then ":fast_forward: superseded: \($superseded | join(", ")), because a newer commit is live"
       else ":white_check_mark: done: \(named("success") | join(", "))" end) as $outcome
    | "\($outcome) · *\($repository)* \($branch) \($sha[:12]) · \($actor) · \($url)"' <<<"$JOBS")
info "$message"
[ -n "${SLACK_WEBHOOK_URL:-}" ] || exit 0
# Not in the arguments: the address is a secret, because anybody who has it can post.
jq -nc --arg text "$message" '{text: $text}' | curl -sSf --max-time 10 --retry 2 -o /dev/null -H 'Content-Type: application/json' --data-binary @- \
    -K <(printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL") 2>"$WORK/slack" || warn "Cannot notify Slack: $(head -n 1 "$WORK/slack")"
