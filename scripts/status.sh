#!/usr/bin/env bash
# Prints what runs in an environment and compares it with prop's record.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecr.sh"
source "$(dirname "$0")/lib/ecs.sh"
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/status.sh ENVIRONMENT [OPTION]...
Print what runs in an environment and compare it with prop's record.

The output has the image and the time of its rollout, tasks, load balancer targets, database, the response of /version, and
what prop has recorded. The script changes nothing.

Options:
  --json          print JSON
  --service NAME  name of the service in prop (default: prop)
  -h, --help      print this help

Environment:
  PROP_URL, PROP_KEY  address of prop, and a key with the scope read; without them, prop's record is not compared
  APP_URL             address of the service (default: the load balancer's address)
  AWS_REGION          AWS region (default: ap-south-1)

Examples:
  scripts/status.sh production
  scripts/status.sh staging --json | jq -r .image_digest

Exit codes:
  0  no problems
  1  problems were found and printed
  2  wrong argument
  3  something is missing or access is denied
END
}

JSON=no
words=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --json) JSON=yes ;;
        --dry-run) ;; # accepted because other scripts have it; this one never changes anything
        --service)
            [ -n "${2:-}" ] || missing_value "$1"
            LEDGER_SERVICE=$2
            shift
            ;;
        -*) unknown_option "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || unexpected_argument "${words[1]}"
use_environment "${words[0]:-}"
require_tools aws jq curl

check_identity
require_service
definition=$(task_definition "$(service_get .taskDefinition)") || die "$EXIT_PREFLIGHT" "$(aws_error)"
digest=$(definition_digest "$definition")
tags=''
if [ -n "$digest" ] && answer=$(aws_json ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$digest"); then
    tags=$(other_tags "$answer")
fi
database=unknown
! answer=$(aws_json rds describe-db-instances --db-instance-identifier "$DB_INSTANCE") ||
    database=$(jq -r '.DBInstances[0].DBInstanceStatus' <<<"$answer")
targets='[]' group=$(service_get '.loadBalancers[0].targetGroupArn // ""')
[ -z "$group" ] || ! answer=$(aws_json elbv2 describe-target-health --target-group-arn "$group") ||
    targets=$(jq -c '[.TargetHealthDescriptions[].TargetHealth.State]' <<<"$answer")
version=null
! find_url || ! answer=$(fetch /version) || version=$(jq -ce . <<<"$answer" 2>/dev/null) || version=null
ledger=null
if [ -n "${PROP_URL:+${PROP_KEY:-}}" ] && load_place; then
    ledger=$LEDGER_ANSWER
fi

status=$(jq -n --arg environment "$ENVIRONMENT" --argjson service "$SERVICE" --arg digest "$digest" --arg tags "$tags" --arg database "$database" \
    --argjson targets "$targets" --argjson version "$version" --argjson ledger "$ledger" --arg url "${URL:-}" '
    ($service.deployments | map(select(.status == "PRIMARY"))[0]) as $primary
    | {
        environment: $environment, image_digest: (if $digest == "" then null else $digest end), tags: ($tags | split(" ") | map(select(. != ""))),
        task_definition: $service.taskDefinition, since: $primary.createdAt, rollout: $primary.rolloutState,
        tasks: {desired: $service.desiredCount, running: $service.runningCount, pending: ($service.pendingCount // 0)},
        targets: {healthy: ($targets | map(select(. == "healthy")) | length), all: ($targets | length)},
        database: $database, url: $url, answers: $version,
        ledger: (if $ledger then $ledger | {live, previous, running} | map_values(if . then {id, version, image_digest, requested_by, since: (.finished_at // .started_at)} else null end) else null end),
        events: [$service.events[:3][]? | {at: .createdAt, message}],
        problems: [
            (if $service.desiredCount == 0 then "The desired number of tasks is 0: the environment is stopped or was never deployed to." else empty end),
            (if $service.runningCount < $service.desiredCount then "\($service.runningCount) of \($service.desiredCount) tasks are running." else empty end),
            (if $primary.rolloutState == "IN_PROGRESS" then "A rollout is in progress." elif $primary.rolloutState == "FAILED" then "The last rollout failed." else empty end),
            (if ($targets | any(. == "unhealthy")) then "A load balancer target is unhealthy." else empty end),
            (if $database == "unknown" or $database == "available" or $database == "backing-up" then empty else "The database is \($database)." end),
            (if $service.desiredCount > 0 and $version == null then "The service does not respond to /version." else empty end),
            (if $version.image_digest and $digest != "" and $version.image_digest != $digest then "The service reports another image than ECS runs: \($version.image_digest)." else empty end),
            (if $ledger.live.image_digest and $digest != "" and $ledger.live.image_digest != $digest and $ledger.running == null
                then "prop has \($ledger.live.version) as live: a deployment was not reported to it." else empty end)
        ]
    }')

if [ "$JSON" = yes ]; then
    echo "$status"
else
    line() { printf '%-10s %s\n' "$1" "$(jq -r "$2" <<<"$status")"; }
    jq -r --arg bold "$BOLD" --arg plain "$PLAIN" '"\($bold)\(.environment)\($plain)  \(.url)"' <<<"$status"
    line image '"\(.image_digest // "none")\(if .tags == [] then "" else " (" + (.tags | join(", ")) + ")" end)"'
    line since '"\(.since // "?"), revision \(.task_definition | split(":") | last), rollout \(.rollout // "?" | ascii_downcase | sub("_"; " "))"'
    line tasks '"\(.tasks.running) running, \(.tasks.pending) pending, \(.tasks.desired) desired"'
    line targets '"\(.targets.healthy) of \(.targets.all) healthy"'
    line database '.database'
    line version 'if .answers then "\(.answers.version), commit \(.answers.git_sha // "?"), image \(.answers.image_digest // "?" | .[:19])" else "no response" end'
    if [ "$ledger" != null ]; then
        line prop '.ledger.live | if . then "live: \(.version) since \(.since), requested by \(.requested_by)" else "live: nothing" end'
        line '' '.ledger.previous | if . then "previous: \(.version)" else "previous: nothing" end'
        line '' '.ledger.running | if . then "running: \(.version) since \(.since), requested by \(.requested_by)" else "running: nothing" end'
    else
        printf '%-10s %s\n' prop "not configured or not reachable"
    fi
    jq -r '.events[] | "           \(.at)  \(.message)"' <<<"$status"
    jq -r '.problems[]' <<<"$status" | while IFS= read -r problem; do warn "$problem"; done
fi
jq -e '.problems == []' <<<"$status" >/dev/null || exit "$EXIT_FAILED"
