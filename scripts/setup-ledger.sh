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
that passed, for success in staging before, and for one person's approval. And tells the service its repository, whose
webhooks may then say how it is deployed.

  --keys          make the pipeline's two keys too, and print them as lines that a shell takes, for setup-github.sh. Keys of
                  that name from before go on working: revoke them when the new ones are in place
  --approvals N   how many people must approve a release for production; 1, if not said
  --repository OWNER/REPOSITORY
                  on GitHub; that of the remote origin, if not said
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

keys=no approvals=1 soak=0 repository=${GITHUB_REPOSITORY:-}
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
        --repository)
            [[ ${2:-} == */* ]] || misused "$1 wants OWNER/REPOSITORY."
            repository=$2
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

# record KIND SLUG FIELDS: made, or changed to that.
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
        200 | 201) done_with "$2: $(jq -r 'to_entries | map("\(.key) \(.value)") | join(", ")' <<<"$3")" ;;
        *) die "prop does not take the $1 $2: $(answered '.detail // .title')" ;;
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

record environment staging '{"tier": "staging"}'
record environment production "$(jq -nc --argjson approvals "$approvals" --argjson soak "$soak" \
    '{tier: "production", predecessor: "staging", soak_minutes: $soak, require_scan: true, required_approvals: $approvals}')"
[ -n "$repository" ] || repository=$(origin_repository)
if [ -n "$repository" ]; then
    record service "$LEDGER_SERVICE" "$(jq -nc --arg url "${GITHUB_SERVER_URL:-https://github.com}/$repository" '{repository_url: $url}')"
else
    warn "Which repository is it? There is no remote origin that tells: no webhook may say how $LEDGER_SERVICE is deployed."
fi
if [ "$keys" = yes ]; then
    # Two, so that what deploys can't also say that somebody approved.
    key PIPELINE_KEY pipeline '["read", "deploy", "attest"]'
    key MIRROR_KEY github-approvals '["read", "mirror"]'
fi
