#!/usr/bin/env bash
# Says what runs in an environment, since when, and what the ledger knows of it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"
. "$(dirname "$0")/ecs.sh"
. "$(dirname "$0")/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/status.sh <environment> [--json] [--service NAME]

Says what runs: image, since when, tasks, targets of the load balancer, database, the answer of /version; what prop has
recorded; and whether the two agree. Changes nothing.

  scripts/status.sh production
  scripts/status.sh staging --json | jq -r .image_digest

Exit codes: 0 all is well, 1 something is not (it says what), 2 an argument is wrong, 3 something is missing or denied.
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
        --dry-run) ;; # it changes nothing anyway
        --service)
            [ -n "${2:-}" ] || misused "$1 wants a value."
            LEDGER_SERVICE=$2
            shift
            ;;
        -*) misused "There is no option $1." ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || misused "What is '${words[1]}'?"
use_environment "${words[0]:-}"
need aws jq curl

identify
find_service
definition=$(task_definition "$(of_service .taskDefinition)") || die "$EXIT_PREFLIGHT" "$(aws_said)"
digest=$(digest_in "$definition")
tags=''
if [ -n "$digest" ] && answer=$(call ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$digest"); then
    tags=$(jq -r '.imageDetails[0].imageTags // [] | join(" ")' <<<"$answer")
fi
database=unknown
! answer=$(call rds describe-db-instances --db-instance-identifier "$DB_INSTANCE") ||
    database=$(jq -r '.DBInstances[0].DBInstanceStatus' <<<"$answer")
targets='[]' group=$(of_service '.loadBalancers[0].targetGroupArn // ""')
[ -z "$group" ] || ! answer=$(call elbv2 describe-target-health --target-group-arn "$group") ||
    targets=$(jq -c '[.TargetHealthDescriptions[].TargetHealth.State]' <<<"$answer")
version=null
! find_url || ! answer=$(fetch /version) || version=$(jq -ce . <<<"$answer" 2>/dev/null) || version=null
ledger=null
if [ -n "${PROP_URL:+${PROP_KEY:-}}" ] && ask_place; then
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
            (if $service.desiredCount == 0 then "No tasks are wanted: it is stopped, or was never deployed." else empty end),
            (if $service.runningCount < $service.desiredCount then "\($service.runningCount) of \($service.desiredCount) tasks run." else empty end),
            (if $primary.rolloutState == "IN_PROGRESS" then "A rollout is under way." elif $primary.rolloutState == "FAILED" then "The last rollout failed." else empty end),
            (if ($targets | any(. == "unhealthy")) then "A target of the load balancer is unhealthy." else empty end),
            (if $database == "unknown" or $database == "available" or $database == "backing-up" then empty else "The database is \($database)." end),
            (if $service.desiredCount > 0 and $version == null then "It does not answer /version." else empty end),
            (if $version.image_digest and $digest != "" and $version.image_digest != $digest then "It answers as another image: \($version.image_digest)." else empty end),
            (if $ledger.live.image_digest and $digest != "" and $ledger.live.image_digest != $digest and $ledger.running == null
                then "The ledger takes \($ledger.live.version) for live: something was deployed past it." else empty end)
        ]
    }')

if [ "$JSON" = yes ]; then
    echo "$status"
else
    line() { printf '%-10s %s\n' "$1" "$(jq -r "$2" <<<"$status")"; }
    jq -r --arg bold "$BOLD" --arg plain "$PLAIN" '"\($bold)\(.environment)\($plain)  \(.url)"' <<<"$status"
    line image '"\(.image_digest // "none")\(if .tags == [] then "" else " (" + (.tags | join(", ")) + ")" end)"'
    line since '"\(.since // "?"), as revision \(.task_definition | split(":") | last), rollout \(.rollout // "?" | ascii_downcase | sub("_"; " "))"'
    line tasks '"\(.tasks.running) running, \(.tasks.pending) pending, of \(.tasks.desired)"'
    line targets '"\(.targets.healthy) of \(.targets.all) healthy"'
    line database '.database'
    line answers 'if .answers then "\(.answers.version), commit \(.answers.git_sha // "?"), image \(.answers.image_digest // "?" | .[:19])" else "nothing" end'
    if [ "$ledger" != null ]; then
        line ledger '.ledger.live | if . then "\(.version) live since \(.since), by \(.requested_by)" else "nothing is live" end'
        line '' '.ledger.previous | if . then "\(.version) was live before" else "nothing was live before" end'
        line '' '.ledger.running | if . then "\(.version) is running since \(.since), by \(.requested_by)" else "nothing is running" end'
    else
        printf '%-10s %s\n' ledger "not asked, or it did not answer"
    fi
    jq -r '.events[] | "           \(.at)  \(.message)"' <<<"$status"
    jq -r '.problems[]' <<<"$status" | while IFS= read -r problem; do warn "$problem"; done
fi
jq -e '.problems == []' <<<"$status" >/dev/null || exit "$EXIT_FAILED"
