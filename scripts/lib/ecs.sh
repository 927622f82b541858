# shellcheck shell=bash
# The ECS service, its images, task definitions and rollouts. Source it after common.sh and aws.sh; resolve_image needs ecr.sh.
# shellcheck disable=SC2034 # the calling script reads the variables that are set here

POLL_SECONDS=${POLL_SECONDS:-5}

# persist COMMAND...: runs it up to three times, until it succeeds: for calls that must not fail because AWS throttles them.
persist() {
    local failures=0
    until "$@"; do
        failures=$((failures + 1))
        [ "$failures" -lt 3 ] || return 1
        sleep "$POLL_SECONDS"
    done
}

# --- The service

# read_service: sets SERVICE to the current state of the service, or to nothing if there is no such service.
read_service() {
    local answer
    answer=$(aws_json ecs describe-services --cluster "$ECS_CLUSTER" --services "$ECS_SERVICE" --include TAGS) || return 1
    # The AWS CLI 1 prints times in seconds.
    SERVICE=$(jq -c '[.services[] | select(.status == "ACTIVE")][0] // empty
        | (.deployments[]?, .events[]?).createdAt |= (if type == "number" then floor | todate else . end)' <<<"$answer")
}

# require_service: the same, and ends the script if the service cannot be read or does not exist.
require_service() {
    read_service || die "$EXIT_PREFLIGHT" "Cannot read the service $ECS_SERVICE. $(aws_error)"
    [ -n "$SERVICE" ] || die "$EXIT_PREFLIGHT" \
        "The service $ECS_SERVICE does not exist in $ECS_CLUSTER ($AWS_REGION). To create it, run: scripts/infra.sh $ENVIRONMENT apply"
}

# read_service_with_retries: the same, but fails only after five failed requests. WHY is the reason.
read_service_with_retries() {
    local failures=0
    until read_service && [ -n "$SERVICE" ]; do
        failures=$((failures + 1))
        if [ "$failures" -ge 5 ]; then
            WHY="The service can no longer be read. $(aws_error)"
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# await_listing DEPLOYMENT_ID: reads the service until it lists the deployment, because ECS may do so a few seconds late. Gives
# up after five more requests: then ECS no longer lists it.
await_listing() {
    local tries=0
    read_service_with_retries || return 1
    until [ "$tries" = 5 ] || jq -e --arg id "$1" 'any(.deployments[]; .id == $id)' <<<"$SERVICE" >/dev/null; do
        tries=$((tries + 1))
        sleep "$POLL_SECONDS"
        read_service_with_retries || return 1
    done
}

# service_get FILTER: prints a part of SERVICE, selected by a jq filter.
service_get() { jq -r "$1" <<<"$SERVICE"; }

# primary_get FILTER: prints a part of the service's newest deployment.
primary_get() { service_get "first(.deployments[] | select(.status == \"PRIMARY\")) | $1"; }

# rollout_in_progress: prints whether ECS is rolling something out: true or false.
rollout_in_progress() { service_get '(.deployments | length > 1) or any(.deployments[]; .rolloutState == "IN_PROGRESS")'; }

# last_completed_definition: prints the task definition of the last completed rollout. ECS rolls back to the same one, and no
# longer lists that rollout when its tasks have ended.
last_completed_definition() {
    local arn
    arn=$(service_get 'if (.deployments | any(.status == "PRIMARY" and .rolloutState != "COMPLETED"))
        then first(.deployments[] | select(.rolloutState == "COMPLETED").taskDefinition) // ""
        else .taskDefinition end')
    echo "${arn:-$(revision_to_return_to "$(service_get .taskDefinition)")}"
}

# read_range: sets MIN_TASKS and MAX_TASKS from the service's tags, in which Terraform keeps them. Ends the script if there are
# none.
read_range() {
    read -r MIN_TASKS MAX_TASKS < <(service_get '[.tags[]? | {(.key): .value}] | add // {} | "\(.MinTasks // "") \(.MaxTasks // "")"')
    [ -n "$MAX_TASKS" ] || die "$EXIT_PREFLIGHT" \
        "The service $ECS_SERVICE has no tag MinTasks or MaxTasks. To set them, run: scripts/infra.sh $ENVIRONMENT apply"
}

# set_range MIN MAX [ARGUMENT]...: sets how many tasks autoscaling allows. AWS moves the desired number of tasks into that range
# at once, so a higher minimum starts tasks and 0 0 stops them all.
set_range() {
    local minimum=$1 maximum=$2
    shift 2
    aws_change application-autoscaling register-scalable-target --service-namespace ecs --scalable-dimension ecs:service:DesiredCount \
        --resource-id "service/$ECS_CLUSTER/$ECS_SERVICE" --min-capacity "$minimum" --max-capacity "$maximum" "$@" >/dev/null
}

# --- Images

# resolve_image TAG_OR_DIGEST: sets DIGEST, IMAGE (by digest), TAGS (without those of mark_live), and GIT_SHA if it can be found.
# Fails if the image is not in ECR.
resolve_image() {
    local id="imageTag=$1" answer repository
    [[ $1 != sha256:* ]] || id="imageDigest=$1"
    answer=$(aws_json ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids "$id") || return 1
    DIGEST=$(jq -r '.imageDetails[0].imageDigest' <<<"$answer") TAGS=$(other_tags "$answer")
    repository=$(aws_json ecr describe-repositories --repository-names "$ECR_REPOSITORY") || return 1
    IMAGE=$(jq -r '.repositories[0].repositoryUri' <<<"$repository")@$DIGEST
    GIT_SHA=$(revision_label) || GIT_SHA=$(commit_in_tags) || GIT_SHA=''
}

# revision_label: prints the commit from the image's label org.opencontainers.image.revision.
revision_label() {
    local manifest digest=$DIGEST url
    manifest=$(manifest_of "$digest") || return 1
    digest=$(jq -r 'first(.manifests[]? | select(.platform.os == "linux").digest) // ""' <<<"$manifest")
    [ -z "$digest" ] || manifest=$(manifest_of "$digest") || return 1
    url=$(aws_json ecr get-download-url-for-layer --repository-name "$ECR_REPOSITORY" --layer-digest "$(jq -r .config.digest <<<"$manifest")" |
        jq -er .downloadUrl) || return 1
    curl -sSf --max-time 10 "$url" 2>/dev/null |
        jq -er '.config.Labels["org.opencontainers.image.revision"] | select(test("^[0-9a-f]{40}$"))' 2>/dev/null
}

manifest_of() {
    aws_json ecr batch-get-image --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$1" | jq -er '.images[0].imageManifest'
}

# commit_in_tags: prints the commit from the tag that build.sh gives each image (0.1.0-7fd1a60b01f9), if the local clone has it.
commit_in_tags() {
    [[ $TAGS =~ -([0-9a-f]{12})( |$) ]] && git -C "$ROOT" rev-parse --verify --quiet "${BASH_REMATCH[1]}^{commit}"
}

# image_not_found: succeeds if the last call failed because the image does not exist.
image_not_found() { grep -q 'ImageNotFoundException' "$WORK/aws-error"; }

# version_of TAGS: prints the first tag that does not end in a commit. If all do, prints the first tag.
version_of() {
    local tag
    for tag in $1; do
        [[ $tag =~ -[0-9a-f]{12}$ ]] || break
        tag=''
    done
    [ -n "${tag:-}" ] || tag=${1%% *}
    echo "$tag"
}

# definition_digest TASK_DEFINITION_JSON: prints the digest of its image, or nothing if the image has only a tag.
definition_digest() {
    jq -r --arg name "$CONTAINER_NAME" \
        '.containerDefinitions[] | select(.name == $name).image | capture("@(?<digest>sha256:[0-9a-f]{64})$").digest' <<<"$1"
}

# short_digest DIGEST: prints the digest's first 12 hexadecimal digits.
short_digest() { echo "${1:0:19}…"; }

# --- Task definitions

# task_definition NAME_OR_ARN: prints the task definition. For the name of a family, its latest active revision.
task_definition() {
    local answer
    answer=$(aws_json ecs describe-task-definition --task-definition "$1" --include TAGS) || return 1
    jq -c '.taskDefinition + {tags: (.tags // [])}' <<<"$answer"
}

revision() { echo "${1##*:}"; }

# with_image TASK_DEFINITION_JSON: prints a copy to register, with IMAGE and with its digest in the environment.
with_image() {
    jq -c --arg name "$CONTAINER_NAME" --arg image "$IMAGE" --arg digest "$DIGEST" '
        del(.taskDefinitionArn, .revision, .status, .requiresAttributes, .compatibilities, .registeredAt, .registeredBy, .deregisteredAt)
        | if .tags == [] then del(.tags) else . end
        | (.containerDefinitions[] | select(.name == $name)) |= (
            .image = $image
            | .environment = [(.environment // [])[] | select(.name != "PROP_IMAGE_DIGEST")] + [{name: "PROP_IMAGE_DIGEST", value: $digest}])
    ' <<<"$1"
}

# active_revisions_before ARN: prints the active revisions before ARN, the latest first, each as JSON in one line.
active_revisions_before() {
    local arn arns
    arns=$(aws_json ecs list-task-definitions --family-prefix "$TASK_FAMILY" --status ACTIVE --sort DESC --max-items 50) || return 1
    for arn in $(jq -r '.taskDefinitionArns[]' <<<"$arns"); do
        [ "$(revision "$arn")" -ge "$(revision "$1")" ] || task_definition "$arn" || return 1
    done
}

# last_good_revision LIVE_ARN: prints the latest active revision before LIVE_ARN that has another image. deploy.sh deregisters
# revisions that failed or that a rollback replaced, so an active one was good. Fails if there is none.
last_good_revision() {
    local live_digest definition digest
    definition=$(task_definition "$1") || return 1
    live_digest=$(definition_digest "$definition")
    while IFS= read -r definition; do
        digest=$(definition_digest "$definition")
        if [ -n "$digest" ] && [ "$digest" != "$live_digest" ]; then
            echo "$definition"
            return
        fi
    done < <(active_revisions_before "$1")
    return 1
}

# revision_to_return_to LIVE_ARN: prints the ARN of the last good revision before LIVE_ARN. If there is none, prints that of
# Terraform's revision without an image, which means that nothing ran before.
revision_to_return_to() {
    local definition
    if definition=$(last_good_revision "$1"); then
        jq -r .taskDefinitionArn <<<"$definition"
        return
    fi
    while IFS= read -r definition; do
        if [ -z "$(definition_digest "$definition")" ]; then
            jq -r .taskDefinitionArn <<<"$definition"
            return
        fi
    done < <(active_revisions_before "$1")
    echo "$1"
}

# --- Rollouts

# update_service TASK_DEFINITION_ARN [ARGUMENT]...: starts a rollout and sets ROLLOUT to its id.
update_service() {
    local arn=$1 answer
    shift
    LAST_EVENT=$(service_get '.events[0].id // ""')
    answer=$(aws_change ecs update-service --cluster "$ECS_CLUSTER" --service "$ECS_SERVICE" --task-definition "$arn" \
        --force-new-deployment "$@") || return 1
    [ "$DRY_RUN" = no ] || return 0
    SERVICE=$(jq -c .service <<<"$answer")
    ROLLOUT=$(primary_get .id)
}

# watch_rollout SECONDS: waits until ROLLOUT has ended. Returns 0 when it completed, 1 when it failed, 2 when another rollout
# replaced it, 3 when the time is over, 4 when the service can no longer be read. WHY is the reason. A rollback by the circuit
# breaker also ends in a steady state, so the rollout's id decides. ECS may list a new rollout a few seconds late: it counts as
# replaced only after it was missing several times. When all tasks run, a rollout with alarms bakes: ECS watches the alarms for
# some minutes, which it computes from their periods, before it completes the rollout. BAKING is yes meanwhile.
watch_rollout() {
    local started=$SECONDS read_failures=0 missing=0 state primary failed tasks='' reported=0
    BAKING=no
    while :; do
        if read_service && [ -n "$SERVICE" ]; then
            read_failures=0
            print_events
            {
                read -r state failed primary BAKING
                read -r tasks
                read -r WHY
            } < <(jq -r --arg id "$ROLLOUT" '
                (first(.deployments[] | select(.status == "PRIMARY").id) // "") as $primary
                | (.deploymentConfiguration.alarms.enable // false) as $alarms
                | first(.deployments[] | select(.id == $id)) // {}
                | ($alarms and .rolloutState == "IN_PROGRESS" and .runningCount == .desiredCount) as $baking
                | "\(.rolloutState // "GONE") \(.failedTasks // 0) \($primary) \(if $baking then "yes" else "no" end)",
                    "tasks: \(.runningCount) running, \(.pendingCount) pending, \(.failedTasks // 0) failed, of \(.desiredCount) · \(
                        if $baking then "baking: ECS watches the alarms" else .rolloutState // "?" | ascii_downcase | sub("_"; " ") end)",
                    .rolloutStateReason // ""' <<<"$SERVICE")
            if [ "$failed" -gt "$reported" ] || [ "$state" = FAILED ]; then
                [ "$failed" -le "$reported" ] || { clear_progress && print_stop_reasons; }
                reported=$failed
            fi
            [ "$state" = GONE ] || missing=5
            if [ "$state" = FAILED ]; then
                clear_progress
                return 1
            elif [ "$missing" -lt 5 ]; then
                missing=$((missing + 1))
                sleep "$POLL_SECONDS"
                continue
            elif [ "$primary" != "$ROLLOUT" ]; then
                clear_progress
                WHY="Another deployment ($primary) replaced it."
                return 2
            elif [ "$state" = COMPLETED ]; then
                clear_progress
                return 0
            fi
            progress "$(duration $((SECONDS - started)))" "$tasks"
        else
            read_failures=$((read_failures + 1))
            if [ "$read_failures" -ge 5 ]; then
                clear_progress
                WHY="The rollout can no longer be read. $(aws_error)"
                return 4
            fi
        fi
        if [ $((SECONDS - started)) -ge "$1" ]; then
            clear_progress
            WHY="The rollout did not complete within $(duration "$1")${tasks:+ ($tasks)}."
            return 3
        fi
        sleep "$POLL_SECONDS"
    done
}

# print_events: prints the service's events since LAST_EVENT, the oldest first. Sets STOP_REASON if ECS found no place for a
# task, because then no task stops that could give a reason.
print_events() {
    local event
    {
        read -r LAST_EVENT
        while IFS= read -r event; do
            clear_progress
            detail "ECS: $event"
            [[ $event != *'unable to place a task'* ]] || STOP_REASON=${event%.}
        done
    } < <(jq -r --arg last "$LAST_EVENT" '
        .events // [] | .[0].id // "", ((map(.id) | index($last)) as $known | .[:$known] | reverse | .[].message
        | ltrimstr("(service ") | sub("^[^)]*\\) "; ""))' <<<"$SERVICE")
}

# print_stop_reasons: prints why tasks of ROLLOUT stopped, each reason once, and the last log lines of such a task. Sets
# STOP_REASON to the first reason. Never fails: the reasons are only information.
STOP_REASON='' STOP_REASONS_SHOWN=$'\n'
print_stop_reasons() {
    local arns tasks reason task new=no
    arns=$(aws_json ecs list-tasks --cluster "$ECS_CLUSTER" --service-name "$ECS_SERVICE" --desired-status STOPPED) || return 0
    arns=$(jq -r '.taskArns[:20][]' <<<"$arns")
    [ -n "$arns" ] || return 0
    # shellcheck disable=SC2086 # one argument each
    tasks=$(aws_json ecs describe-tasks --cluster "$ECS_CLUSTER" --tasks $arns) || return 0
    tasks=$(jq -c --arg id "$ROLLOUT" '[.tasks[] | select(.startedBy == $id)]' <<<"$tasks")
    while IFS= read -r reason; do
        [[ $STOP_REASONS_SHOWN != *$'\n'"$reason"$'\n'* ]] || continue
        STOP_REASONS_SHOWN+=$reason$'\n' new=yes
        STOP_REASON=${STOP_REASON:-$reason}
        info "    ${RED}a task stopped:$PLAIN $reason"
    done < <(stop_reasons "$tasks")
    task=$(jq -r 'first(.[] | select(.startedAt != null) | .taskArn) // ""' <<<"$tasks")
    [ "$new" = no ] || [ -z "$task" ] || print_last_lines "$task"
}

# stop_reasons TASKS_JSON: prints each reason once. Adds a hint where the text of ECS does not name the cause.
stop_reasons() {
    jq -r --arg name "$CONTAINER_NAME" '
        .[] | (first(.containers[]? | select(.name == $name)) // {}) as $container | .stoppedReason as $stopped
        | [.stoppedReason // empty, ($container.reason // empty | select(. != $stopped)),
            (if $container.exitCode != null then "exit code \($container.exitCode)" else empty end)] | join("; ")' <<<"$1" | sort -u | while IFS= read -r reason; do
        case $reason in
            *CannotPull*) reason="Cannot pull the image. Check that it exists for this CPU architecture and that the endpoints ecr.api, ecr.dkr and s3 work. ($reason)" ;;
            # "unable to pull secrets or registry auth" stands before both causes. What follows names the service.
            *ResourceInitializationError*'ecr registry auth'* | *ResourceInitializationError*GetAuthorizationToken*)
                reason="Cannot log in to ECR. Check that the execution role allows ecr:GetAuthorizationToken and that the endpoint ecr.api works. ($reason)"
                ;;
            *ResourceInitializationError*' asm'* | *ResourceInitializationError*secretsmanager*)
                reason="Cannot read a secret. Check that the execution role allows it and that the endpoint secretsmanager works. ($reason)"
                ;;
            *ResourceInitializationError*'secrets or registry auth'*)
                reason="Cannot log in to ECR or read a secret. Check the execution role, and the endpoints ecr.api and secretsmanager. ($reason)"
                ;;
            *OutOfMemory* | *'exit code 137'*) reason="The container was killed, most likely because it ran out of memory. ($reason)" ;;
            *'failed ELB health checks'*) reason="The load balancer's health checks failed. ($reason)" ;;
        esac
        echo "$reason"
    done
}

# print_last_lines TASK_ARN [COUNT]: prints the last log lines of a task (default: 10).
print_last_lines() {
    local lines
    lines=$(task_log "$1" --limit "${2:-10}") || return 0
    jq -r '.events[].message' <<<"$lines" | while IFS= read -r line; do detail "| $line"; done
}

# task_log TASK_ARN [ARGUMENT]...: prints a page of the task's log, as JSON.
task_log() {
    local task=$1
    shift
    aws_json logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name "$(log_stream "$task")" "$@"
}

# log_stream TASK_ARN: prints the name of the task's log stream, PREFIX/CONTAINER/TASK.
log_stream() { echo "${LOG_STREAM_PREFIX:-prop}/$CONTAINER_NAME/${1##*/}"; }

# use_log_stream_of TASK_DEFINITION_JSON: sets LOG_STREAM_PREFIX.
use_log_stream_of() {
    LOG_STREAM_PREFIX=$(jq -r --arg name "$CONTAINER_NAME" '
        .containerDefinitions[] | select(.name == $name).logConfiguration.options["awslogs-stream-prefix"] // ""' <<<"$1")
}

# --- One-off tasks

# run_task TASK_DEFINITION_ARN COMMAND_JSON SECONDS: runs a task in the service's network and prints its log to standard output.
# Sets TASK, TASK_EXIT (empty if the task never ran) and WHY. Fails if the task cannot be started or does not end in time.
run_task() {
    local arn=$1 command=$2 network platform answer state started=$SECONDS token=''
    network=$(service_get '.networkConfiguration | tojson') platform=$(service_get '.platformVersion // "LATEST"')
    TASK='' TASK_EXIT=''
    answer=$(aws_change ecs run-task --cluster "$ECS_CLUSTER" --task-definition "$arn" --launch-type FARGATE --platform-version "$platform" \
        --network-configuration "$network" --started-by "$SCRIPT" \
        --overrides "$(jq -nc --arg name "$CONTAINER_NAME" --argjson command "$command" \
            '{containerOverrides: [{name: $name, command: $command}]}')") || {
        WHY=$(aws_error)
        return 1
    }
    if [ "$DRY_RUN" = yes ]; then
        TASK_EXIT=0
        return
    fi
    TASK=$(jq -r '.tasks[0].taskArn // ""' <<<"$answer")
    if [ -z "$TASK" ]; then
        WHY="ECS did not start the task: $(jq -r '[.failures[] | .reason // "?"] | join(", ")' <<<"$answer")."
        return 1
    fi
    while :; do
        if answer=$(aws_json ecs describe-tasks --cluster "$ECS_CLUSTER" --tasks "$TASK"); then
            state=$(jq -r '.tasks[0].lastStatus' <<<"$answer")
            print_new_lines
            if [ "$state" = STOPPED ]; then
                # The last log lines arrive shortly after the task's end.
                sleep "$POLL_SECONDS"
                print_new_lines
                clear_progress
                TASK_EXIT=$(jq -r --arg name "$CONTAINER_NAME" '.tasks[0].containers[] | select(.name == $name).exitCode // ""' <<<"$answer")
                WHY=$(stop_reasons "$(jq -c '.tasks' <<<"$answer")" | head -n 1)
                return 0
            fi
            progress "$(duration $((SECONDS - started)))" "task ${TASK##*/}: $(tr '[:upper:]' '[:lower:]' <<<"$state")"
        fi
        if [ $((SECONDS - started)) -ge "$3" ]; then
            clear_progress
            WHY="The task ${TASK##*/} did not end within $(duration "$3")."
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# print_new_lines: prints the log lines of TASK that are new since `token`, and advances `token`.
print_new_lines() {
    local page line
    page=$(task_log "$TASK" --start-from-head ${token:+--next-token "$token"}) || return 0
    token=$(jq -r '.nextForwardToken' <<<"$page")
    while IFS= read -r line; do
        clear_progress
        printf '%s\n' "$line"
    done < <(jq -r '.events[].message' <<<"$page")
}

# --- Requests to the service

# find_url: sets URL to APP_URL or to the load balancer's address.
find_url() {
    local balancer listeners
    URL=${APP_URL:-} INSECURE=no
    [ -z "$URL" ] || return 0
    balancer=$(aws_json elbv2 describe-load-balancers --names "$LOAD_BALANCER") || return 1
    URL=http://$(jq -r '.LoadBalancers[0].DNSName' <<<"$balancer")
    listeners=$(aws_json elbv2 describe-listeners --load-balancer-arn "$(jq -r '.LoadBalancers[0].LoadBalancerArn' <<<"$balancer")") || return 1
    if jq -e 'any(.Listeners[]; .Protocol == "HTTPS")' <<<"$listeners" >/dev/null; then
        # The certificate is for a host name that only APP_URL can give, so it is not verified here.
        URL=https://${URL#http://} INSECURE=yes
    fi
}

# fetch PATH: prints the service's response. Fails unless its status is 200.
fetch() {
    local options=(-sSf --max-time 5)
    [ "$INSECURE" = no ] || options+=(--insecure)
    curl "${options[@]}" "$URL$1" 2>"$WORK/curl-error"
}

# watch_targets SECONDS: waits until there is a target and all targets that are not draining are healthy. If not, WHY is the
# reason.
watch_targets() {
    local group health started=$SECONDS summary
    group=$(service_get '.loadBalancers[0].targetGroupArn // ""')
    [ -n "$group" ] || return 0
    while :; do
        # A single failed request must not undo a good rollout.
        if health=$(aws_json elbv2 describe-target-health --target-group-arn "$group"); then
            summary=$(jq -r '[.TargetHealthDescriptions[].TargetHealth | select(.State != "draining")] as $all
                | [$all[] | select(.State == "healthy")] as $good
                | "\($good | length) \($all | length) \([$all[] | select(.State != "healthy") | .Description // .State] | unique | join("; "))"' <<<"$health")
            read -r HEALTHY TARGETS WHY <<<"$summary"
            [ "$HEALTHY" = 0 ] || [ "$HEALTHY" != "$TARGETS" ] || return 0
            WHY="$HEALTHY of $TARGETS targets of the load balancer are healthy${WHY:+: $WHY}."
            progress "$(duration $((SECONDS - started)))" "targets: $HEALTHY of $TARGETS healthy"
        else
            WHY="Cannot read the load balancer's targets. $(aws_error)"
        fi
        [ $((SECONDS - started)) -lt "$1" ] || return 1
        sleep "$POLL_SECONDS"
    done
}

# smoke_test SECONDS: waits until /version returns the deployed image three times in a row, because old tasks may still answer
# at first. If not, WHY is the reason. The image's digest decides, and its commit if it is known.
smoke_test() {
    local started=$SECONDS good=0 answer pause=1
    [[ $POLL_SECONDS != 0.* ]] || pause=$POLL_SECONDS
    while :; do
        if ! fetch /health >/dev/null; then
            WHY="$URL/health did not return 200 ($(tr -d '\n' <"$WORK/curl-error"))."
        elif answer=$(fetch /version) && is_deployed "$answer"; then
            good=$((good + 1))
            ANSWERED=$answer
            [ "$good" -lt 3 ] || return 0
            sleep "$pause"
            continue
        elif ! jq -e . <<<"$answer" >/dev/null 2>&1; then
            WHY="$URL/version did not return JSON with status 200."
        else
            WHY="$URL/version returned $(jq -r '"\(.version // "?") (commit \(.git_sha // "?" | .[:12]), image \(.image_digest // "unknown" | .[:19]))"' \
                <<<"$answer"), not the deployed image."
        fi
        good=0
        [ $((SECONDS - started)) -lt "$1" ] || return 1
        sleep "$POLL_SECONDS"
    done
}

# is_deployed VERSION_JSON: succeeds if that response comes from the deployed image. Missing fields are not compared.
is_deployed() {
    jq -e --arg digest "$DIGEST" --arg sha "$GIT_SHA" --arg version "$VERSION" '
        if .image_digest then .image_digest == $digest and ($sha == "" or (.git_sha // $sha | . == $sha or . == "unknown"))
        elif $sha != "" and .git_sha then .git_sha == $sha
        else .version == $version end' <<<"$1" >/dev/null 2>&1
}
