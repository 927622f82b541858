#!/usr/bin/env bash
# Tells prop who approved this GitHub run, or rejected it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/github.sh
source "$(dirname "$0")/github.sh"
# shellcheck source=scripts/ledger.sh
source "$(dirname "$0")/ledger.sh"

usage() {
    cat <<END
Usage: scripts/record-approval.sh ENVIRONMENT VERSION [OPTION]

Reads the reviews of a GitHub environment in this run and mirrors them into prop, where its gate counts them: as what the
reviewer said, with the run's address, told by the holder of the key. What prop knows already stays as it is, so this may
run as often as it likes. A run nobody had to review has nothing to tell, and prop's own approvals count.

  --require-ledger   fail when prop can't be reached; else that is said loudly, and the deployment is not kept back for it
  --dry-run          say what would be told, and tell nothing
  --help             this

From the environment:

  GITHUB_TOKEN                          a token that may read actions
  GITHUB_REPOSITORY, GITHUB_RUN_ID, GITHUB_SERVER_URL, GITHUB_API_URL    as GitHub sets them
  PROP_URL, PROP_KEY                    the ledger, and a key with the scope mirror; without them nothing is told

Examples:

  scripts/record-approval.sh production 0.1.0-3f2a9c1
  scripts/record-approval.sh production 0.1.0-3f2a9c1 --dry-run

Exit codes: 0 told, or nothing to tell; 1 GitHub can't be asked, or prop refused; 2 an argument is wrong; 3 something that
this needs is missing, or prop can't be reached and --require-ledger was given.
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
        -*) misused "There is no option '$1'." ;;
        *)
            if [ -z "$environment" ]; then
                environment=$1
            elif [ -z "$version" ]; then
                version=$1
            else
                misused "'$1' is one argument too many."
            fi
            ;;
    esac
    shift
done
[ -n "$environment" ] || misused "Which environment was approved?"
[ -n "$version" ] || misused "Which version was approved?"
need curl jq
for name in GITHUB_TOKEN GITHUB_REPOSITORY GITHUB_RUN_ID; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "$name is not set: which run of which repository?"
done
run_url=${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID

# reviews: one JSON line for each review of the environment, as prop takes it. Reviews have no name of their own there, and a
# run that is started again is reviewed again: each is the nth of its reviewer, which is the same however often it is
# asked. Rejections first: prop keeps back what was rejected last, and a run that goes on was approved last.
reviews() {
    jq -c --arg environment "$environment" --arg version "$version" --arg run "$run_url" --arg service "$LEDGER_SERVICE" '
        [.[] | select(.state == "approved" or .state == "rejected") | select(any(.environments[]?; .name == $environment))]
        | group_by([.state, .user.login]) | map(to_entries) | add // [] | sort_by(.value.state == "approved")[]
        | {service: $service, version: $version, environment: $environment, decision: .value.state, source: "github",
            approver: .value.user.login, run_url: $run, review_id: "\($run) \(.value.user.login) \(.value.state) \(.key + 1)"}
            + if (.value.comment // "") == "" then {} else {comment: .value.comment[:4000]} end' <<<"$answer"
}

# tell REVIEW
tell() {
    local who
    who=$(jq -r '"\(.decision) by \(.approver)"' <<<"$1")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/approvals "$1"
        return
    fi
    ledger POST /v1/approvals "$1" || {
        [ "$require_ledger" = no ] || die "$EXIT_PREFLIGHT" "$environment was $who, but prop could not be told. $LEDGER_WHY"
        warn "$environment was $who, but ${BOLD}prop could not be told.$PLAIN $LEDGER_WHY Run this again when it is back."
        return 0
    }
    case $LEDGER_STATUS in
        201) done_with "$environment was $who: recorded for $LEDGER_SERVICE $version." ;;
        200) done_with "$environment was $who: prop knows." ;;
        409)
            [ "$(answered .code)" = approval_used ] || die "prop does not take that $environment was $who: $(answered .detail)"
            done_with "$environment was $who: prop knows, and a deployment has started with it."
            ;;
        *) die "prop does not take that $environment was $who: $(answered '.detail // .title')" ;;
    esac
}

ask GET "/repos/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID/approvals"
mapfile -t found < <(reviews)
if [ ${#found[@]} = 0 ]; then
    say "Nobody reviewed $environment in this run: GitHub asked for no approval."
    exit
fi
if [ -z "${PROP_URL:-}" ] || [ -z "${PROP_KEY:-}" ]; then
    warn "PROP_URL or PROP_KEY is not set: ${#found[@]} reviews of $environment stay with GitHub."
    exit
fi
for review in "${found[@]}"; do
    tell "$review"
done
