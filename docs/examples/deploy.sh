#!/usr/bin/env bash
# Rolls a release out and records it in prop, whose gate decides before anything changes.
#
#   deploy.sh SERVICE ENVIRONMENT VERSION IMAGE_DIGEST COMMAND [ARGUMENT]...
#
# COMMAND rolls the release out; its exit code decides whether the deployment succeeded.
# PROP_URL  where prop is
# PROP_KEY  a key with the scope deploy, from your secret store
# RUN_ID    the name of this pipeline run: the same one again is the same deployment
#
# Exit codes: 0 deployed, 1 prop did not record it, 2 an argument is missing, 4 the gate blocked it,
# else that of COMMAND. Requires curl and jq.
set -euo pipefail

if [ $# -lt 5 ] || [ -z "${PROP_URL:-}" ] || [ -z "${PROP_KEY:-}" ] || [ -z "${RUN_ID:-}" ]; then
    echo "usage: PROP_URL=... PROP_KEY=... RUN_ID=... $0 SERVICE ENVIRONMENT VERSION IMAGE_DIGEST COMMAND..." >&2
    exit 2
fi
service=$1 environment=$2 version=$3 digest=$4
shift 4

# post PATH BODY: prints prop's answer. The key goes through a pipe, where no process list shows it.
post() {
    curl --silent --show-error --fail-with-body --max-time 30 --retry 3 --retry-connrefused \
        --header @<(printf 'Authorization: Bearer %s\n' "$PROP_KEY") --json "$2" "$PROP_URL$1"
}

# explain ANSWER: prints why prop rejected a request, with every reason of the gate.
explain() {
    jq -r '"prop: \(if .reasons then .title else .detail end)", (.reasons[]? | "  - \(.detail)")' <<<"$1" >&2 ||
        echo "prop: $1" >&2
}

release=$(jq -n --arg service "$service" --arg version "$version" --arg digest "$digest" \
    '{service: $service, version: $version, image_digest: $digest, create_missing: true}')
answer=$(post /v1/releases "$release") || {
    explain "$answer"
    exit 1
}

# Creates and starts the deployment in one request: prop records it as running, or says why not.
deployment=$(jq -n --arg service "$service" --arg environment "$environment" --arg version "$version" --arg run "$RUN_ID" \
    '{service: $service, environment: $environment, version: $version, external_id: $run, start: true}')
answer=$(post /v1/deployments "$deployment") || {
    explain "$answer"
    if jq -e '.code == "gate_blocked"' <<<"$answer" >/dev/null; then exit 4; else exit 1; fi
}
id=$(jq -r .id <<<"$answer") state=$(jq -r .state <<<"$answer")
if [ "$state" != running ]; then
    echo "prop: the deployment of run $RUN_ID has ended already: $state" >&2
    exit 1
fi

# Runs when the script ends, however it ends: a deployment that stays running blocks the next one.
report() {
    local status=$? outcome=succeeded reason=null
    if [ "$status" != 0 ]; then
        outcome=failed
        reason="\"The rollout ended with exit code $status.\""
    fi
    answer=$(post "/v1/deployments/$id/transitions" "{\"to\": \"$outcome\", \"reason\": $reason}") || {
        explain "$answer"
        [ "$status" != 0 ] || status=1
    }
    exit "$status"
}
trap report EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$@"
