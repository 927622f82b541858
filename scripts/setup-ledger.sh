#!/usr/bin/env bash
# Creates the pipeline's environments, rules and keys in prop.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<END
Usage: scripts/setup-ledger.sh [OPTION]...
Create or update the environments staging and production, their rules, and the service's repository in prop.

A release may be deployed to production after it has passed a scan, has succeeded in staging and has been approved. GitHub's
webhooks for the repository may report deployments of the service. The script needs curl and jq.

Options:
  --keys          also create the pipeline's three keys and print them as shell commands, for setup-github.sh. Older keys stay
                  valid, and the new ones get another name (pipeline-2): revoke the old ones when the new ones are in use
  --approvals N   number of approvals that production requires (default: 1)
  --soak MINUTES  time that a release must have been in staging (default: 0)
  --repository OWNER/REPOSITORY
                  repository on GitHub (default: that of the git remote "origin")
  --dry-run       print the requests without sending them
  -h, --help      print this help

Environment:
  PROP_URL        address of prop
  PROP_KEY        key for prop with the scope admin

Examples:
  scripts/setup-ledger.sh
  eval "\$(scripts/setup-ledger.sh --keys)" && scripts/setup-github.sh --reviewer alice

Exit codes:
  0  prop is configured
  1  prop rejected a request
  2  wrong argument
  3  a tool or a variable is missing, or prop cannot be reached
END
}

keys=no approvals=1 soak=0 repository=${GITHUB_REPOSITORY:-}
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --keys) keys=yes ;;
        --approvals | --soak)
            [[ ${2:-} =~ ^[0-9]+$ ]] || usage_error "$1 needs a number."
            if [ "$1" = --soak ]; then soak=$2; else approvals=$2; fi
            shift
            ;;
        --repository)
            [[ ${2:-} == */* ]] || usage_error "$1 needs OWNER/REPOSITORY."
            repository=$2
            shift
            ;;
        --dry-run) DRY_RUN=yes ;;
        -*) unknown_option "$1" ;;
        *) unexpected_argument "$1" ;;
    esac
    shift
done
require_tools curl jq
for name in PROP_URL PROP_KEY; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "The variable $name is not set."
done

# send METHOD PATH BODY: sends a request, and ends the script if prop does not respond.
send() { ledger_request "$@" || die "$EXIT_PREFLIGHT" "Cannot reach prop at $PROP_URL. $LEDGER_WHY"; }

# record KIND SLUG FIELDS_JSON: creates the resource, or updates it if it exists.
record() {
    local new
    new=$(jq -c --arg slug "$2" '{slug: $slug} + .' <<<"$3")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST "/v1/$1s" "$new"
        return
    fi
    send POST "/v1/$1s" "$new"
    if [ "$LEDGER_STATUS" = 409 ]; then
        send PATCH "/v1/$1s/$2" "$3"
    fi
    case $LEDGER_STATUS in
        200 | 201) success "$2: $(jq -r 'to_entries | map("\(.key) \(.value)") | join(", ")' <<<"$3")" ;;
        *) die "prop rejected the $1 $2: $(ledger_problem)" ;;
    esac
}

# key VARIABLE NAME SCOPES_JSON: creates a key and prints it as a shell command. While a valid key has the name, the new one is
# called NAME-2, NAME-3 and so on.
key() {
    local new name=$2 number=1
    while :; do
        new=$(jq -nc --arg name "$name" --argjson scopes "$3" '{name: $name, scopes: $scopes}')
        if [ "$DRY_RUN" = yes ]; then
            would_send POST /v1/keys "$new"
            return
        fi
        send POST /v1/keys "$new"
        if [ "$LEDGER_STATUS" != 409 ] || [ "$(ledger_get .code)" != already_exists ]; then
            break
        fi
        number=$((number + 1))
        name=$2-$number
    done
    [ "$LEDGER_STATUS" = 201 ] || die "prop rejected the key $name: $(ledger_problem)"
    printf 'export %s=%s\n' "$1" "$(ledger_get .key)"
    success "key $name: $(jq -r 'join(", ")' <<<"$3")"
}

record environment staging '{"tier": "staging"}'
record environment production "$(jq -nc --argjson approvals "$approvals" --argjson soak "$soak" \
    '{tier: "production", predecessor: "staging", soak_minutes: $soak, require_scan: true, required_approvals: $approvals}')"
[ -n "$repository" ] || repository=$(origin_repository)
if [ -n "$repository" ]; then
    record service "$LEDGER_SERVICE" "$(jq -nc --arg url "${GITHUB_SERVER_URL:-https://github.com}/$repository" '{repository_url: $url}')"
else
    warn "Unknown repository: the git remote \"origin\" is not on GitHub. GitHub's webhooks cannot report deployments of $LEDGER_SERVICE. Use --repository to set it."
fi
if [ "$keys" = yes ]; then
    # The key that deploys can neither record approvals nor say that a scan passed: whoever gets hold of it cannot fulfil what
    # the gate of production asks for.
    key PIPELINE_KEY pipeline '["read", "deploy"]'
    key ATTEST_KEY scanner '["read", "attest"]'
    key MIRROR_KEY github-approvals '["read", "mirror"]'
fi
