# shellcheck shell=bash
# The service, its images, task definitions and rollouts: sourced after lib.sh and aws.sh.
# shellcheck disable=SC2034 # what is found is left in variables, for the script

POLL_SECONDS=${POLL_SECONDS:-5}

# --- The service

# read_service: the service as it is, in SERVICE.
read_service() {
    local answer
    answer=$(call ecs describe-services --cluster "$ECS_CLUSTER" --services "$ECS_SERVICE") || return 1
    SERVICE=$(jq -c '[.services[] | select(.status == "ACTIVE")][0] // empty' <<<"$answer")
}

# find_service: the same, for the beginning of a script.
find_service() {
    read_service || die "$EXIT_PREFLIGHT" "The service $ECS_SERVICE can't be read. $(aws_said)"
    [ -n "$SERVICE" ] || die "$EXIT_PREFLIGHT" \
        "There is no service $ECS_SERVICE in $ECS_CLUSTER ($AWS_REGION). scripts/infra.sh $ENVIRONMENT apply makes it."
}

# see_service: the same, where one look that fails must not decide. WHY says why it can't be seen.
see_service() {
    local blind=0
    until read_service && [ -n "$SERVICE" ]; do
        blind=$((blind + 1))
        if [ "$blind" -ge 5 ]; then
            WHY="The service can't be seen any more. $(aws_said)"
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# of_service FILTER: what jq finds in it.
of_service() { jq -r "$1" <<<"$SERVICE"; }

# of_primary FILTER: what jq finds in the deployment that the service has or is getting.
of_primary() { of_service "first(.deployments[] | select(.status == \"PRIMARY\")) | $1"; }

# proven_definition: what the service runs, or ran before what is still under way: what ECS would go back to, too.
proven_definition() {
    of_service 'if (.deployments | any(.status == "PRIMARY" and .rolloutState != "COMPLETED"))
        then first(.deployments[] | select(.rolloutState == "COMPLETED").taskDefinition) // .taskDefinition
        else .taskDefinition end'
}

# least_tasks: how many tasks a started service has: what the autoscaling wants at least.
least_tasks() {
    local answer
    answer=$(call application-autoscaling describe-scalable-targets --service-namespace ecs \
        --resource-ids "service/$ECS_CLUSTER/$ECS_SERVICE") || answer='{}'
    jq -r '.ScalableTargets[0].MinCapacity // 1 | if . < 1 then 1 else . end' <<<"$answer"
}

# --- Images

# resolve_image TAG_OR_DIGEST: sets DIGEST, IMAGE (by digest), TAGS, and GIT_SHA if that can be known. Fails when it is not there.
resolve_image() {
    local id="imageTag=$1" answer repository
    [[ $1 != sha256:* ]] || id="imageDigest=$1"
    answer=$(call ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids "$id") || return 1
    DIGEST=$(jq -r '.imageDetails[0].imageDigest' <<<"$answer")
    TAGS=$(jq -r '.imageDetails[0].imageTags // [] | join(" ")' <<<"$answer")
    repository=$(call ecr describe-repositories --repository-names "$ECR_REPOSITORY") || return 1
    IMAGE=$(jq -r '.repositories[0].repositoryUri' <<<"$repository")@$DIGEST
    GIT_SHA=$(revision_label) || GIT_SHA=$(commit_in_tags) || GIT_SHA=''
}

# revision_label: the commit that the image says it was built from (org.opencontainers.image.revision, in its configuration).
revision_label() {
    local manifest digest=$DIGEST url
    manifest=$(manifest_of "$digest") || return 1
    digest=$(jq -r 'first(.manifests[]? | select(.platform.os == "linux").digest) // ""' <<<"$manifest")
    [ -z "$digest" ] || manifest=$(manifest_of "$digest") || return 1
    url=$(call ecr get-download-url-for-layer --repository-name "$ECR_REPOSITORY" --layer-digest "$(jq -r .config.digest <<<"$manifest")" |
        jq -er .downloadUrl) || return 1
    curl -sSf --max-time 10 "$url" 2>/dev/null |
        jq -er '.config.Labels["org.opencontainers.image.revision"] | select(test("^[0-9a-f]{40}$"))' 2>/dev/null
}

manifest_of() {
    call ecr batch-get-image --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$1" | jq -er '.images[0].imageManifest'
}

# commit_in_tags: the same, from the tag that build.sh gives each image (0.1.0-7fd1a60b01f9), where the commit is at hand.
commit_in_tags() {
    [[ $TAGS =~ -([0-9a-f]{12})( |$) ]] && git -C "$ROOT" rev-parse --verify --quiet "${BASH_REMATCH[1]}^{commit}"
}

# no_image: whether the last call failed because there is no such image.
no_image() { grep -q 'ImageNotFoundException' "$WORK/aws-said"; }

# version_of TAGS: the tag that names a version, rather than a commit too; if there is none, the first.
version_of() {
    local tag
    for tag in $1; do
        [[ $tag =~ -[0-9a-f]{12}$ ]] || break
        tag=''
    done
    [ -n "${tag:-}" ] || tag=${1%% *}
    echo "$tag"
}

# digest_in TASK_DEFINITION_JSON: the digest of its image, if it names one.
digest_in() {
    jq -r --arg name "$CONTAINER_NAME" \
        '.containerDefinitions[] | select(.name == $name).image | capture("@(?<digest>sha256:[0-9a-f]{64})$").digest' <<<"$1"
}

# short DIGEST
short() { echo "${1:0:19}…"; }

# --- Task definitions

# task_definition NAME_OR_ARN: prints it; of a family, the latest active revision.
task_definition() {
    local answer
    answer=$(call ecs describe-task-definition --task-definition "$1" --include TAGS) || return 1
    jq -c '.taskDefinition + {tags: (.tags // [])}' <<<"$answer"
}

revision() { echo "${1##*:}"; }

# with_image TASK_DEFINITION_JSON: what to register: the same with IMAGE, which the container is told of.
with_image() {
    jq -c --arg name "$CONTAINER_NAME" --arg image "$IMAGE" --arg digest "$DIGEST" '
        del(.taskDefinitionArn, .revision, .status, .requiresAttributes, .compatibilities, .registeredAt, .registeredBy, .deregisteredAt)
        | if .tags == [] then del(.tags) else . end
        | (.containerDefinitions[] | select(.name == $name)) |= (
            .image = $image
            | .environment = [(.environment // [])[] | select(.name != "PROP_IMAGE_DIGEST")] + [{name: "PROP_IMAGE_DIGEST", value: $digest}])
    ' <<<"$1"
}

# last_good_revision LIVE_ARN: prints the latest active revision before it that has another image by digest. deploy.sh takes
# revisions that failed, or were left by a rollback, out of the active ones: so this one was good. Fails when there is none.
last_good_revision() {
    local live_digest arn definition arns digest
    definition=$(task_definition "$1") || return 1
    live_digest=$(digest_in "$definition")
    arns=$(call ecs list-task-definitions --family-prefix "$TASK_FAMILY" --status ACTIVE --sort DESC --max-items 50) || return 1
    for arn in $(jq -r '.taskDefinitionArns[]' <<<"$arns"); do
        [ "$(revision "$arn")" -lt "$(revision "$1")" ] || continue
        definition=$(task_definition "$arn") || return 1
        digest=$(digest_in "$definition")
        if [ -n "$digest" ] && [ "$digest" != "$live_digest" ]; then
            echo "$definition"
            return
        fi
    done
    return 1
}

# --- Rollouts

# update_service TASK_DEFINITION_ARN [ARGUMENT]...: starts a rollout that is ours; its id is in ROLLOUT.
update_service() {
    local arn=$1 answer
    shift
    LAST_EVENT=$(of_service '.events[0].id // ""')
    answer=$(alter ecs update-service --cluster "$ECS_CLUSTER" --service "$ECS_SERVICE" --task-definition "$arn" \
        --force-new-deployment "$@") || return 1
    [ "$DRY_RUN" = no ] || return 0
    SERVICE=$(jq -c .service <<<"$answer")
    ROLLOUT=$(of_primary .id)
}

# watch_rollout SECONDS: watches ROLLOUT until it has ended. Returns 0 when it is complete, 1 when it failed, 2 when another
# one took its place, 3 when the time is over, 4 when it can't be seen any more; WHY says why. A rollback by the circuit
# breaker ends just as steady as a success: only the id tells. ECS may show a new rollout some moments late: one that was
# never seen is looked for a few times before it is taken for replaced.
watch_rollout() {
    local started=$SECONDS blind=0 unseen=0 state mine primary failed told=0
    while :; do
        if read_service && [ -n "$SERVICE" ]; then
            blind=0
            print_events
            mine=$(jq -c --arg id "$ROLLOUT" 'first(.deployments[] | select(.id == $id)) // {}' <<<"$SERVICE")
            primary=$(of_primary .id)
            state=$(jq -r '.rolloutState // "GONE"' <<<"$mine") failed=$(jq -r '.failedTasks // 0' <<<"$mine")
            WHY=$(jq -r '.rolloutStateReason // ""' <<<"$mine")
            if [ "$failed" -gt "$told" ] || [ "$state" = FAILED ]; then
                [ "$failed" -le "$told" ] || { no_progress && why_tasks_stopped; }
                told=$failed
            fi
            [ "$state" = GONE ] || unseen=5
            if [ "$state" = FAILED ]; then
                no_progress
                return 1
            elif [ "$unseen" -lt 5 ]; then
                unseen=$((unseen + 1))
                sleep "$POLL_SECONDS"
                continue
            elif [ "$primary" != "$ROLLOUT" ]; then
                no_progress
                WHY="Another deployment, $primary, took its place."
                return 2
            elif [ "$state" = COMPLETED ]; then
                no_progress
                return 0
            fi
            progress "$(minutes $((SECONDS - started)))" "$(jq -r '
                "tasks: \(.runningCount) running, \(.pendingCount) pending, \(.failedTasks // 0) failed, of \(.desiredCount) · \(
                .rolloutState // "?" | ascii_downcase | sub("_"; " "))"' <<<"$mine")"
        else
            blind=$((blind + 1))
            if [ "$blind" -ge 5 ]; then
                no_progress
                WHY="It can't be seen any more. $(aws_said)"
                return 4
            fi
        fi
        if [ $((SECONDS - started)) -ge "$1" ]; then
            no_progress
            WHY="It is not complete after $(minutes "$1")."
            return 3
        fi
        sleep "$POLL_SECONDS"
    done
}

# print_events: what ECS said since LAST_EVENT, the oldest first.
print_events() {
    local event
    while IFS= read -r event; do
        no_progress
        note "ECS: $event"
    done < <(jq -r --arg last "$LAST_EVENT" '
        .events // [] | (map(.id) | index($last)) as $known | .[:$known] | reverse | .[].message
        | ltrimstr("(service ") | sub("^[^)]*\\) "; "")' <<<"$SERVICE")
    LAST_EVENT=$(of_service '.events[0].id // ""')
}

# why_tasks_stopped: what stopped the tasks of ROLLOUT, each reason once, and the last lines that such a task wrote. The first
# reason is left in TASKS_STOPPED. Helps, and never gets in the way.
TASKS_STOPPED='' REASONS_SAID=$'\n'
why_tasks_stopped() {
    local arns tasks reason task news=no
    arns=$(call ecs list-tasks --cluster "$ECS_CLUSTER" --service-name "$ECS_SERVICE" --desired-status STOPPED) || return 0
    arns=$(jq -r '.taskArns[:20][]' <<<"$arns")
    [ -n "$arns" ] || return 0
    # shellcheck disable=SC2086 # one argument each
    tasks=$(call ecs describe-tasks --cluster "$ECS_CLUSTER" --tasks $arns) || return 0
    tasks=$(jq -c --arg id "$ROLLOUT" '[.tasks[] | select(.startedBy == $id)]' <<<"$tasks")
    while IFS= read -r reason; do
        [[ $REASONS_SAID != *$'\n'"$reason"$'\n'* ]] || continue
        REASONS_SAID+=$reason$'\n' news=yes
        TASKS_STOPPED=${TASKS_STOPPED:-$reason}
        say "    ${RED}a task stopped:$PLAIN $reason"
    done < <(reasons_of "$tasks")
    task=$(jq -r 'first(.[] | select(.startedAt != null) | .taskArn) // ""' <<<"$tasks")
    [ "$news" = no ] || [ -z "$task" ] || print_last_lines "$task"
}

# reasons_of TASKS_JSON: each reason once, with what it means where ECS does not say.
reasons_of() {
    jq -r --arg name "$CONTAINER_NAME" '
        .[] | (first(.containers[]? | select(.name == $name)) // {}) as $container | .stoppedReason as $stopped
        | [.stoppedReason // empty, ($container.reason // empty | select(. != $stopped)),
            (if $container.exitCode != null then "exit code \($container.exitCode)" else empty end)] | join("; ")' <<<"$1" | sort -u | while IFS= read -r reason; do
        case $reason in
            *CannotPull*) reason="The image can't be pulled: does it exist for this processor, and do the endpoints ecr.api, ecr.dkr and s3 work? ($reason)" ;;
            *ResourceInitializationError*secret*) reason="A secret can't be read: does the execution role allow it, and does the endpoint secretsmanager work? ($reason)" ;;
            *OutOfMemory* | *'exit code 137'*) reason="It was killed, most likely for want of memory. ($reason)" ;;
            *'failed ELB health checks'*) reason="The load balancer found it unhealthy. ($reason)" ;;
        esac
        echo "$reason"
    done
}

# print_last_lines TASK_ARN [COUNT]
print_last_lines() {
    local lines
    lines=$(task_log "$1" --limit "${2:-10}") || return 0
    jq -r '.events[].message' <<<"$lines" | while IFS= read -r line; do note "| $line"; done
}

# task_log TASK_ARN [ARGUMENT]...: what a task wrote.
task_log() {
    local task=$1
    shift
    call logs get-log-events --log-group-name "$LOG_GROUP" --log-stream-name "$(log_stream "$task")" "$@"
}

# log_stream TASK_ARN: the stream that the awslogs driver writes to, PREFIX/CONTAINER/TASK.
log_stream() { echo "${LOG_STREAM_PREFIX:-prop}/$CONTAINER_NAME/${1##*/}"; }

# use_log_stream_of TASK_DEFINITION_JSON
use_log_stream_of() {
    LOG_STREAM_PREFIX=$(jq -r --arg name "$CONTAINER_NAME" '
        .containerDefinitions[] | select(.name == $name).logConfiguration.options["awslogs-stream-prefix"] // ""' <<<"$1")
}

# --- One-off tasks

# run_once TASK_DEFINITION_ARN COMMAND_JSON SECONDS: runs a task with the network of the service, and prints what it writes to
# standard output.
# Sets TASK, TASK_EXIT (empty when it never ran) and WHY. Fails when it can't be started or does not end in time.
run_once() {
    local arn=$1 command=$2 network platform answer state started=$SECONDS token=''
    network=$(of_service '.networkConfiguration | tojson') platform=$(of_service '.platformVersion // "LATEST"')
    TASK='' TASK_EXIT=''
    answer=$(alter ecs run-task --cluster "$ECS_CLUSTER" --task-definition "$arn" --launch-type FARGATE --platform-version "$platform" \
        --network-configuration "$network" --started-by "$SCRIPT" \
        --overrides "$(jq -nc --arg name "$CONTAINER_NAME" --argjson command "$command" \
            '{containerOverrides: [{name: $name, command: $command}]}')") || {
        WHY=$(aws_said)
        return 1
    }
    if [ "$DRY_RUN" = yes ]; then
        TASK_EXIT=0
        return
    fi
    TASK=$(jq -r '.tasks[0].taskArn // ""' <<<"$answer")
    if [ -z "$TASK" ]; then
        WHY="ECS started no task: $(jq -r '[.failures[] | .reason // "?"] | join(", ")' <<<"$answer")."
        return 1
    fi
    while :; do
        if answer=$(call ecs describe-tasks --cluster "$ECS_CLUSTER" --tasks "$TASK"); then
            state=$(jq -r '.tasks[0].lastStatus' <<<"$answer")
            print_new_lines
            if [ "$state" = STOPPED ]; then
                # The last lines come a little later than the end.
                sleep "$POLL_SECONDS"
                print_new_lines
                no_progress
                TASK_EXIT=$(jq -r --arg name "$CONTAINER_NAME" '.tasks[0].containers[] | select(.name == $name).exitCode // ""' <<<"$answer")
                WHY=$(reasons_of "$(jq -c '.tasks' <<<"$answer")" | head -n 1)
                return 0
            fi
            progress "$(minutes $((SECONDS - started)))" "task ${TASK##*/}: $(tr '[:upper:]' '[:lower:]' <<<"$state")"
        fi
        if [ $((SECONDS - started)) -ge "$3" ]; then
            no_progress
            WHY="The task ${TASK##*/} has not ended after $(minutes "$3")."
            return 1
        fi
        sleep "$POLL_SECONDS"
    done
}

# print_new_lines: what TASK has written since `token`, which it moves on.
print_new_lines() {
    local page line
    page=$(task_log "$TASK" --start-from-head ${token:+--next-token "$token"}) || return 0
    token=$(jq -r '.nextForwardToken' <<<"$page")
    while IFS= read -r line; do
        no_progress
        printf '%s\n' "$line"
    done < <(jq -r '.events[].message' <<<"$page")
}

# --- From outside

# find_url: where the service answers, in URL: APP_URL, or the load balancer's own address.
find_url() {
    local balancer listeners
    URL=${APP_URL:-} INSECURE=no
    [ -z "$URL" ] || return 0
    balancer=$(call elbv2 describe-load-balancers --names "$LOAD_BALANCER") || return 1
    URL=http://$(jq -r '.LoadBalancers[0].DNSName' <<<"$balancer")
    listeners=$(call elbv2 describe-listeners --load-balancer-arn "$(jq -r '.LoadBalancers[0].LoadBalancerArn' <<<"$balancer")") || return 1
    if jq -e 'any(.Listeners[]; .Protocol == "HTTPS")' <<<"$listeners" >/dev/null; then
        # The certificate is for a name that only APP_URL can tell.
        URL=https://${URL#http://} INSECURE=yes
    fi
}

# fetch PATH: what the service answers there; fails on anything but 200.
fetch() {
    local options=(-sSf --max-time 5)
    [ "$INSECURE" = no ] || options+=(--insecure)
    curl "${options[@]}" "$URL$1" 2>"$WORK/curl-said"
}

# watch_targets SECONDS: waits until every target that is not being drained is healthy, and there is one. WHY says what is wrong.
watch_targets() {
    local group health started=$SECONDS summary
    group=$(of_service '.loadBalancers[0].targetGroupArn // ""')
    [ -n "$group" ] || return 0
    while :; do
        health=$(call elbv2 describe-target-health --target-group-arn "$group") || {
            WHY="The targets can't be read. $(aws_said)"
            return 1
        }
        summary=$(jq -r '[.TargetHealthDescriptions[].TargetHealth | select(.State != "draining")] as $all
            | [$all[] | select(.State == "healthy")] as $good
            | "\($good | length) \($all | length) \([$all[] | select(.State != "healthy") | .Description // .State] | unique | join("; "))"' <<<"$health")
        read -r HEALTHY TARGETS WHY <<<"$summary"
        [ "$HEALTHY" = 0 ] || [ "$HEALTHY" != "$TARGETS" ] || return 0
        if [ $((SECONDS - started)) -ge "$1" ]; then
            WHY="$HEALTHY of $TARGETS targets of the load balancer are healthy${WHY:+: $WHY}."
            return 1
        fi
        progress "$(minutes $((SECONDS - started)))" "targets: $HEALTHY of $TARGETS healthy"
        sleep "$POLL_SECONDS"
    done
}

# smoke_test SECONDS: waits until the service answers as what was deployed, three times running: old tasks may still be
# answering at first. WHY says what came instead. The image's digest decides, and its commit if a tag tells it.
smoke_test() {
    local started=$SECONDS good=0 answer
    while :; do
        if ! fetch /health >/dev/null; then
            WHY="$URL/health does not answer 200 ($(tr -d '\n' <"$WORK/curl-said"))."
        elif ! answer=$(fetch /version) || ! answer=$(jq -ce . <<<"$answer" 2>/dev/null); then
            WHY="$URL/version does not answer."
        elif is_deployed "$answer"; then
            good=$((good + 1))
            ANSWERED=$answer
            [ "$good" -lt 3 ] || return 0
            sleep "$(jq -n "[1, $POLL_SECONDS] | min")"
            continue
        else
            WHY="$URL/version answers as $(jq -r '"\(.version // "?") (commit \(.git_sha // "?" | .[:12]), image \(.image_digest // "unknown" | .[:19]))"' \
                <<<"$answer"), not as what was deployed."
        fi
        good=0
        [ $((SECONDS - started)) -lt "$1" ] || return 1
        sleep "$POLL_SECONDS"
    done
}

# is_deployed VERSION_JSON: whether that answer is the deployed image's. What it does not tell can't contradict.
is_deployed() {
    jq -e --arg digest "$DIGEST" --arg sha "$GIT_SHA" --arg version "$VERSION" '
        if .image_digest then .image_digest == $digest and ($sha == "" or (.git_sha // $sha | . == $sha or . == "unknown"))
        elif $sha != "" and .git_sha then .git_sha == $sha
        else .version == $version end' <<<"$1" >/dev/null
}
