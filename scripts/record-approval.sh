#!/usr/bin/env bash
# Copies the approvals and rejections of a GitHub run to prop.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/github.sh"
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<END
Usage: scripts/record-approval.sh ENVIRONMENT VERSION [OPTION]...
Copy the reviews of a GitHub environment in this workflow run to prop, so that prop's gate counts them.

prop records each review with its reviewer, the run's address and the key that sent it. Reviews that prop already has are not
recorded twice, so the script can be run again. If the run needed no review, there is nothing to copy; approvals given in prop
itself still count. The script needs curl and jq.

Options:
  --require-ledger  fail if prop cannot be reached; by default, the script prints a warning and succeeds
  --dry-run         print the requests without sending them
  -h, --help        print this help

Environment:
  GITHUB_TOKEN      token that may read actions
  GITHUB_REPOSITORY, GITHUB_RUN_ID, GITHUB_SERVER_URL, GITHUB_API_URL
                    as GitHub sets them
  PROP_URL          address of prop; without PROP_URL and PROP_KEY, nothing is recorded
  PROP_KEY          key for prop with the scope mirror

Examples:
  scripts/record-approval.sh production 0.1.0-3f2a9c1
  scripts/record-approval.sh production 0.1.0-3f2a9c1 --dry-run

Exit codes:
  0  the reviews are recorded, or there are none
  1  a request to GitHub failed, or prop rejected a review
  2  wrong argument
  3  a tool or a variable is missing, or prop cannot be reached and --require-ledger is set
END
}

environment='' version='' require_ledger=no
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        --require-ledger) require_ledger=yes ;;
        -*) unknown_option "$1" ;;
        *)
            if [ -z "$environment" ]; then
                environment=$1
            elif [ -z "$version" ]; then
                version=$1
            else
                unexpected_argument "$1"
            fi
            ;;
    esac
    shift
done
[ -n "$environment" ] || missing_argument ENVIRONMENT
[ -n "$version" ] || missing_argument VERSION
require_tools curl jq
for name in GITHUB_TOKEN GITHUB_REPOSITORY GITHUB_RUN_ID; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "The variable $name is not set."
done
run_url=${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID

# reviews: prints one JSON line for each review of the environment, as prop's API needs it. GitHub's reviews have no ids, and a
# run that is started again is reviewed again. So each review is numbered per reviewer and state, which gives the same id on
# every run of this script. Rejections come first: the last review decides in prop, and a run that continues was approved last.
reviews() {
    jq -c --arg environment "$environment" --arg version "$version" --arg run "$run_url" --arg service "$LEDGER_SERVICE" '
        [.[] | select(.state == "approved" or .state == "rejected") | select(any(.environments[]?; .name == $environment))]
        | group_by([.state, .user.login]) | map(to_entries) | add // [] | sort_by(.value.state == "approved")[]
        | {service: $service, version: $version, environment: $environment, decision: .value.state, source: "github",
            approver: .value.user.login, run_url: $run, review_id: "\($run) \(.value.user.login) \(.value.state) \(.key + 1)"}
            + if (.value.comment // "") == "" then {} else {comment: .value.comment[:4000]} end' <<<"$answer"
}

# record_review REVIEW_JSON: sends one review to prop.
record_review() {
    local who
    who=$(jq -r '"\(.decision) by \(.approver)"' <<<"$1")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/approvals "$1"
        return
    fi
    ledger_request POST /v1/approvals "$1" || {
        [ "$require_ledger" = no ] || die "$EXIT_PREFLIGHT" "Cannot reach prop: the review '$environment $who' is not recorded. $LEDGER_WHY"
        warn "${BOLD}Cannot reach prop:$PLAIN the review '$environment $who' is not recorded. $LEDGER_WHY Run this script again when prop is available."
        return 0
    }
    case $LEDGER_STATUS in
        201) success "$environment $who: recorded for $LEDGER_SERVICE $version." ;;
        200) success "$environment $who: already recorded." ;;
        409)
            [ "$(ledger_get .code)" = approval_used ] || die "prop rejected the review '$environment $who': $(ledger_problem)"
            success "$environment $who: already recorded, and a deployment has used it."
            ;;
        *) die "prop rejected the review '$environment $who': $(ledger_problem)" ;;
    esac
}

github_must GET "/repos/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID/approvals"
mapfile -t found < <(reviews)
if [ ${#found[@]} = 0 ]; then
    info "There are no reviews of $environment in this run: GitHub required no approval."
    exit
fi
if [ -z "${PROP_URL:-}" ] || [ -z "${PROP_KEY:-}" ]; then
    warn "PROP_URL or PROP_KEY is not set: ${#found[@]} reviews of $environment are not recorded in prop."
    exit
fi
for review in "${found[@]}"; do
    record_review "$review"
done
