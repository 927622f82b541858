#!/usr/bin/env bash
# Tells prop what this pipeline's environments ask of a release, and makes the pipeline's keys.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/ledger.sh
source "$(dirname "$0")/ledger.sh"

usage() {
    cat <<END
Usage: scripts/setup-ledger.sh [OPTION]...

Makes the environments staging and production in prop, or changes them to what they should be: production asks for a scan
that passed, for success in staging before, and for one person's approval.

  --keys          make the pipeline's two keys too, and print them as lines that a shell takes, for setup-github.sh. Keys of
                  that name from before go on working: revoke them when the new ones are in place
  --approvals N   how many people must approve a release for production; 1, if not said
  --soak MINUTES  how long it must have been in staging; 0, if not said
  --dry-run       print what would be sent, and send nothing
  --help          this

Needs curl and jq, and from the environment PROP_URL and PROP_KEY: a key with the scope admin.

Examples:

  scripts/setup-ledger.sh
  eval "\$(scripts/setup-ledger.sh --keys)" && scripts/setup-github.sh --reviewer alice

Exit codes: 0 it is so; 1 prop refused; 2 an argument is wrong; 3 a tool or setting is missing, or prop can't be reached.
END
}

keys=no approvals=1 soak=0
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --keys) keys=yes ;;
        --approvals | --soak)
            [[ ${2:-} =~ ^[0-9]+$ ]] || misused "$1 wants a number."
            if [ "$1" = --soak ]; then soak=$2; else approvals=$2; fi
            shift
            ;;
        --dry-run) DRY_RUN=yes ;;
        *) misused "There is no argument '$1'." ;;
    esac
    shift
done
need curl jq
for name in PROP_URL PROP_KEY; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "$name is not set: which ledger, and with which right?"
done

# send METHOD PATH BODY: what must be answered, in LEDGER_STATUS and LEDGER_ANSWER.
send() { ledger "$@" || die "$EXIT_PREFLIGHT" "prop can't be reached. $LEDGER_WHY"; }

# environment SLUG POLICY: made, or changed to that.
environment() {
    local new
    new=$(jq -c --arg slug "$1" '{slug: $slug} + .' <<<"$2")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/environments "$new"
        return
    fi
    send POST /v1/environments "$new"
    if [ "$LEDGER_STATUS" = 409 ]; then
        send PATCH "/v1/environments/$1" "$2"
    fi
    case $LEDGER_STATUS in
        200 | 201) done_with "$1: $(jq -r 'to_entries | map("\(.key) \(.value)") | join(", ")' <<<"$2")" ;;
        *) die "prop does not take the environment $1: $(answered '.detail // .title')" ;;
    esac
}

# key VARIABLE NAME SCOPES: made, and printed.
key() {
    local new
    new=$(jq -nc --arg name "$2" --argjson scopes "$3" '{name: $name, scopes: $scopes}')
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/keys "$new"
        return
    fi
    send POST /v1/keys "$new"
    [ "$LEDGER_STATUS" = 201 ] || die "prop does not make the key $2: $(answered '.detail // .title')"
    printf 'export %s=%s\n' "$1" "$(answered .key)"
    done_with "key $2: $(jq -r 'join(", ")' <<<"$3")"
}

environment staging '{"tier": "staging"}'
environment production "$(jq -nc --argjson approvals "$approvals" --argjson soak "$soak" \
    '{tier: "production", predecessor: "staging", soak_minutes: $soak, require_scan: true, required_approvals: $approvals}')"
if [ "$keys" = yes ]; then
    # Two, so that what deploys can't also say that somebody approved.
    key PIPELINE_KEY pipeline '["read", "deploy", "attest"]'
    key MIRROR_KEY github-approvals '["read", "mirror"]'
fi
