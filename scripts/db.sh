#!/usr/bin/env bash
# Stops, starts, snapshots and restores the database of an environment.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"
. "$(dirname "$0")/ecs.sh"
. "$(dirname "$0")/rds.sh"

usage() {
    cat <<'END'
Usage: scripts/db.sh <environment> stop|start|snapshot|restore [OPTION]...

  stop       ends the tasks, then stops the database, as the schedule does in the evening. RDS starts it again after 7 days
  start      starts the database, waits until it is available, then wants as many tasks as the autoscaling does at least
  snapshot   takes a snapshot, and prints its name
  restore    makes a new instance beside the running one, of a point in time or a snapshot, with the same network, security
             groups, parameters and backups, and with deletion protection; checks all that, and says how to switch over.
             Touches nothing that runs

  scripts/db.sh staging stop
  scripts/db.sh production snapshot
  scripts/db.sh production restore --to 2026-02-03T04:05:06Z
  scripts/db.sh production restore --snapshot prop-db-20260203-040506

Options:
  --to TIME        of restore: the moment, in UTC; without it and --snapshot, the latest that can be had
  --snapshot NAME  of restore: a snapshot instead of a moment
  --name NAME      what the snapshot, or the new instance, is called (the database's name, and the time)
  --timeout SECONDS  how long to wait (3600)
  --dry-run        print the calls that would change something, and make none
  --json           of snapshot and restore: the result as JSON on standard output

Exit codes: 0 done, 1 it failed or did not end in time, 2 an argument is wrong, 3 something is missing or denied, or in no
state for this; nothing was changed, 130 interrupted: AWS goes on.
END
}

TO='' FROM='' NAME='' TIMEOUT=3600 JSON=no
words=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        --json) JSON=yes ;;
        --to | --snapshot | --name | --timeout)
            [ -n "${2:-}" ] || misused "$1 wants a value."
            case $1 in
                --to) TO=$2 ;;
                --snapshot) FROM=$2 ;;
                --name) NAME=$2 ;;
                --timeout) TIMEOUT=$2 ;;
            esac
            shift
            ;;
        -*) misused "There is no option $1." ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 2 ] || misused "What is '${words[2]}'?"
use_environment "${words[0]:-}"
action=${words[1]:-}
[[ $action =~ ^(stop|start|snapshot|restore)$ ]] || misused "What to do: stop, start, snapshot or restore?"
[ "$action" = restore ] || [ -z "$TO$FROM" ] || misused "--to and --snapshot are for restore."
[ -z "$TO" ] || [ -z "$FROM" ] || misused "--to or --snapshot, not both."
[ -z "$TO" ] || [[ $TO =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$ ]] || misused "--to is a time in UTC, as in 2026-02-03T04:05:06Z."
[[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || misused "--timeout is a number of seconds."
need aws jq
trap 'no_progress; say ""; warn "Interrupted. What AWS has begun, it goes on with: scripts/status.sh $ENVIRONMENT."; exit 130' INT TERM

# read_database NAME: the instance as it is, in DATABASE.
read_database() {
    local answer
    answer=$(call rds describe-db-instances --db-instance-identifier "$1") || return 1
    DATABASE=$(jq -c '.DBInstances[0]' <<<"$answer")
}

of_database() { jq -r "$1" <<<"$DATABASE"; }

# wait_for STATUS NAME: until the instance is in that state. STATUS is available or stopped.
wait_for() {
    local started=$SECONDS status
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        status=unknown
        ! read_database "$2" || status=$(of_database .DBInstanceStatus)
        [ "$status" != "$1" ] || break
        case $status in
            failed | *incompatible* | storage-full) die "$2 is $status." ;;
        esac
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "$2 is still $status after $(minutes "$TIMEOUT"). AWS goes on."
        progress "$(minutes $((SECONDS - started)))" "$2: $status"
        sleep "$POLL_SECONDS"
    done
    no_progress
    done_with "$2 is $1."
}

# want_tasks COUNT
want_tasks() {
    alter ecs update-service --cluster "$ECS_CLUSTER" --service "$ECS_SERVICE" --desired-count "$1" >/dev/null ||
        die "The service can't be changed. $(aws_said)"
}

# wait_for_tasks COUNT: until as many run, or more; with 0, until none does.
wait_for_tasks() {
    local started=$SECONDS running
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        running=''
        ! read_service || [ -z "$SERVICE" ] || running=$(of_service .runningCount)
        # Not seen is neither.
        if [ -n "$running" ]; then
            [ "$running" != "$1" ] || break
            [ "$1" = 0 ] || [ "$running" -lt "$1" ] || break
        fi
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "${running:-An unknown number} of $1 tasks run after $(minutes "$TIMEOUT"). $([ -n "$running" ] || aws_said)"
        progress "$(minutes $((SECONDS - started)))" "tasks: ${running:-?} running, of $1"
        sleep "$POLL_SECONDS"
    done
    no_progress
    done_with "Tasks running: $running."
}

stop() {
    find_service
    # Before any task is ended: one that RDS won't stop is left to its tasks.
    case $(of_database .DBInstanceStatus) in
        available | stopping | stopped) ;;
        *) die "$EXIT_PREFLIGHT" "$DB_INSTANCE is $(of_database .DBInstanceStatus); only an available one can be stopped. Nothing was changed." ;;
    esac
    step "Stopping $ENVIRONMENT"
    # Tasks first: without their database they would be taken for broken, and started again and again.
    want_tasks 0
    wait_for_tasks 0
    [ "$(of_database .DBInstanceStatus)" != available ] ||
        alter rds stop-db-instance --db-instance-identifier "$DB_INSTANCE" >/dev/null || die "$DB_INSTANCE can't be stopped. $(aws_said)"
    wait_for stopped "$DB_INSTANCE"
}

start() {
    find_service
    step "Starting $ENVIRONMENT"
    start_database "$DB_INSTANCE" "$TIMEOUT" || die "$WHY"
    [ "$DRY_RUN" = yes ] || done_with "$DB_INSTANCE is available."
    local definition least desired
    definition=$(task_definition "$(of_service .taskDefinition)") || die "$(aws_said)"
    if [ -z "$(digest_in "$definition")" ]; then
        note "Nothing was deployed yet: no tasks are started."
        return
    fi
    least=$(least_tasks) desired=$(of_service .desiredCount)
    if [ "$desired" -lt "$least" ]; then
        want_tasks "$least"
        desired=$least
    fi
    wait_for_tasks "$desired"
}

snapshot() {
    local name=${NAME:-$DB_INSTANCE-$(date -u +%Y%m%d-%H%M%S)} answer started=$SECONDS status
    step "Taking snapshot $name of $DB_INSTANCE"
    alter rds create-db-snapshot --db-instance-identifier "$DB_INSTANCE" --db-snapshot-identifier "$name" >/dev/null ||
        die "The snapshot can't be taken. $(aws_said)"
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        answer=$(call rds describe-db-snapshots --db-snapshot-identifier "$name") || answer='{}'
        status=$(jq -r '.DBSnapshots[0].Status // "unknown"' <<<"$answer")
        [ "$status" != available ] || break
        [ "$status" != failed ] || die "The snapshot failed."
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "The snapshot is still $status after $(minutes "$TIMEOUT"). AWS goes on."
        progress "$(minutes $((SECONDS - started)))" "$name: $status, $(jq -r '.DBSnapshots[0].PercentProgress // 0' <<<"$answer") %"
        sleep "$POLL_SECONDS"
    done
    no_progress
    done_with "$name is available, $(jq -r '.DBSnapshots[0].AllocatedStorage' <<<"$answer") GB."
    if [ "$JSON" = yes ]; then
        jq '.DBSnapshots[0] | {snapshot: .DBSnapshotIdentifier, database: .DBInstanceIdentifier, at: .SnapshotCreateTime, encrypted: .Encrypted}' <<<"$answer"
    else
        echo "$name"
    fi
}

# What the new instance must have in common with the one it replaces.
readonly COMMON='{
    class: .DBInstanceClass, engine_version: .EngineVersion, public: (.PubliclyAccessible // false), encrypted: (.StorageEncrypted // false),
    subnet_group: .DBSubnetGroup.DBSubnetGroupName, multi_az: (.MultiAZ // false), security_groups: ([.VpcSecurityGroups[].VpcSecurityGroupId] | sort),
    parameter_group: [.DBParameterGroups[].DBParameterGroupName], backup_days: .BackupRetentionPeriod, user: .MasterUsername, copy_tags: (.CopyTagsToSnapshot // false)
}'

# differences OLD_JSON: what DATABASE has not in common with it, one a line.
differences() {
    jq -rn --argjson old "$(jq -c "$COMMON" <<<"$1")" --argjson new "$(jq -c "$COMMON + {protected: .DeletionProtection}" <<<"$DATABASE")" '
        (($old | keys[]) | select($old[.] != $new[.]) | "\(.) is \($new[.]), not \($old[.])"), (if $new.protected then empty else "it has no deletion protection" end)'
}

restore() {
    local new=${NAME:-$DB_INSTANCE-$(date -u +%Y%m%d-%H%M%S)} old=$DATABASE arguments groups of
    arguments=(--db-instance-class "$(of_database .DBInstanceClass)" --db-subnet-group-name "$(of_database .DBSubnetGroup.DBSubnetGroupName)"
    --db-parameter-group-name "$(of_database '.DBParameterGroups[0].DBParameterGroupName')" --no-publicly-accessible --deletion-protection
    --copy-tags-to-snapshot --storage-type "$(of_database '.StorageType // "gp3"')")
    if [ "$(of_database .MultiAZ)" = true ]; then arguments+=(--multi-az); else arguments+=(--no-multi-az); fi
    read -ra groups <<<"$(of_database '[.VpcSecurityGroups[].VpcSecurityGroupId] | join(" ")')"
    arguments+=(--vpc-security-group-ids "${groups[@]}")
    if [ -n "$FROM" ]; then
        of="snapshot $FROM"
        call rds describe-db-snapshots --db-snapshot-identifier "$FROM" >/dev/null || die "$EXIT_PREFLIGHT" "There is no snapshot $FROM. $(aws_said)"
        arguments=(rds restore-db-instance-from-db-snapshot --db-snapshot-identifier "$FROM" --db-instance-identifier "$new" "${arguments[@]}")
    else
        of=${TO:-'the latest moment'}
        [ "$(of_database '.BackupRetentionPeriod // 0')" -gt 0 ] || die "$EXIT_PREFLIGHT" "$DB_INSTANCE keeps no backups: only a snapshot can be restored."
        local latest
        latest=$(of_database '.LatestRestorableTime // "" | .[:19]')
        [ -z "$TO" ] || [ -z "$latest" ] || [[ ! ${TO:0:19} > $latest ]] ||
            die "$EXIT_PREFLIGHT" "$DB_INSTANCE can be restored up to ${latest}Z, not $TO."
        arguments=(rds restore-db-instance-to-point-in-time --source-db-instance-identifier "$DB_INSTANCE" --target-db-instance-identifier "$new" "${arguments[@]}")
        if [ -n "$TO" ]; then arguments+=(--restore-time "$TO"); else arguments+=(--use-latest-restorable-time); fi
    fi

    step "Restoring $DB_INSTANCE as of $of, into $new"
    alter "${arguments[@]}" >/dev/null || die "It can't be restored. $(aws_said)"
    wait_for available "$new"
    # What a restore does not take over.
    local modify=(--backup-retention-period "$(jq -r '.BackupRetentionPeriod // 0' <<<"$old")" --apply-immediately)
    [ "$(jq -r '.PerformanceInsightsEnabled // false' <<<"$old")" = false ] || modify+=(--enable-performance-insights)
    alter rds modify-db-instance --db-instance-identifier "$new" "${modify[@]}" >/dev/null || die "$new can't be adjusted. $(aws_said)"
    [ "$DRY_RUN" = no ] || return 0
    local different started=$SECONDS
    different=$(differences "$old")
    # It may be called available while what was asked for is pending.
    while [ -n "$different" ] && [ "$(of_database '.PendingModifiedValues // {} | length')" != 0 ]; do
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "$new is not adjusted after $(minutes "$TIMEOUT"). AWS goes on."
        sleep "$POLL_SECONDS"
        ! read_database "$new" || different=$(differences "$old")
    done
    [ -z "$different" ] || die "$new is there, but is not as $DB_INSTANCE: $(paste -sd';' <<<"$different"). Nothing was switched over."
    done_with "$new has the network, security groups, parameters and backups of $DB_INSTANCE, and deletion protection."
    switch_over "$new"
    [ "$JSON" = no ] || jq -n --arg database "$DB_INSTANCE" --argjson new "$DATABASE" \
        '{database: $database, restored: $new.DBInstanceIdentifier, endpoint: $new.Endpoint.Address, class: $new.DBInstanceClass}'
}

# An instance's address follows from its name: who takes the name takes the place, and no secret or setting changes.
switch_over() {
    local aside=$DB_INSTANCE-before-restore rds="aws rds modify-db-instance --region $AWS_REGION --apply-immediately"
    say ''
    say "Nothing that runs was touched. To look into $1 first, run a task with its address (the network admits nothing else). To switch over:"
    say ''
    say "  scripts/db.sh $ENVIRONMENT snapshot                       # what is there now, just in case"
    say "  aws ecs update-service --region $AWS_REGION --cluster $ECS_CLUSTER --service $ECS_SERVICE --desired-count 0"
    say "  $rds --db-instance-identifier $DB_INSTANCE --new-db-instance-identifier $aside"
    say "  aws rds wait db-instance-available --region $AWS_REGION --db-instance-identifier $aside   # once it shows under that name"
    say "  $rds --db-instance-identifier $1 --new-db-instance-identifier $DB_INSTANCE"
    say "  scripts/db.sh $ENVIRONMENT start                          # waits for the database, then wants tasks again"
    say "  scripts/status.sh $ENVIRONMENT"
    say ''
    say "Then let Terraform know which instance it is, and end the old one when nobody misses it:"
    say ''
    say "  scripts/infra.sh $ENVIRONMENT plan                        # initialises Terraform for $ENVIRONMENT"
    say "  terraform -chdir=terraform state rm aws_db_instance.main"
    say "  terraform -chdir=terraform import -var-file=envs/$ENVIRONMENT.tfvars aws_db_instance.main $DB_INSTANCE"
    say ''
    say "What was written after that moment is not in it: prop's clients tell what they have kept in their spool files."
}

read_database "$DB_INSTANCE" || die "$EXIT_PREFLIGHT" "The database $DB_INSTANCE can't be read. $(aws_said)"
"$action"
