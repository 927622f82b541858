#!/usr/bin/env bash
# Tells Slack how a run of the workflow ended, in one line. Deployments speak for themselves: deploy.sh tells of each.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

usage() {
    cat <<'END'
Usage: JOBS=JSON scripts/notify.sh

JOBS is what GitHub calls toJSON(needs): the jobs, each with its result. SLACK_WEBHOOK_URL is told; without it, the line is
only printed. A message that can't be sent is a warning and fails nothing.

  JOBS='{"test": {"result": "success"}, "deploy-production": {"result": "failure"}}' scripts/notify.sh

Exit codes: 0 told, or not; 2 JOBS is missing or no JSON; 3 a tool is missing.
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    '') ;;
    *) misused "There is no argument '$1'." ;;
esac
need curl jq
[ -n "${JOBS:-}" ] || misused "JOBS is not set."
jq -e 'type == "object"' <<<"$JOBS" >/dev/null 2>&1 || misused "JOBS is not what toJSON(needs) makes."

message=$(jq -r --arg repository "${GITHUB_REPOSITORY:-}" --arg branch "${GITHUB_REF_NAME:-}" --arg sha "${GITHUB_SHA:-}" --arg actor "${GITHUB_TRIGGERING_ACTOR:-}" \
    --arg url "${GITHUB_SERVER_URL:-}/${GITHUB_REPOSITORY:-}/actions/runs/${GITHUB_RUN_ID:-}" '
    def named($result): to_entries | map(select(.value.result == $result).key);
    named("failure") as $failed | named("cancelled") as $cancelled
    | (if $failed != [] then ":x: failed: \($failed | join(", "))"
       elif $cancelled != [] then ":heavy_minus_sign: cancelled: \($cancelled | join(", "))"
       else ":white_check_mark: done: \(named("success") | join(", "))" end) as $outcome
    | "\($outcome) · *\($repository)* \($branch) \($sha[:12]) · \($actor) · \($url)"' <<<"$JOBS")
say "$message"
[ -n "${SLACK_WEBHOOK_URL:-}" ] || exit 0
# Its address is a secret: whoever has it can write there.
jq -nc --arg text "$message" '{text: $text}' | curl -sSf --max-time 10 --retry 2 -o /dev/null -H 'Content-Type: application/json' --data-binary @- \
    -K <(printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL") 2>"$WORK/slack" || warn "Slack was not told: $(head -n 1 "$WORK/slack")"
