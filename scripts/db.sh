#!/usr/bin/env bash
# Stops, starts, snapshots, restores and adopts the database of an environment.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecs.sh"
source "$(dirname "$0")/lib/rds.sh"
source "$(dirname "$0")/lib/terraform.sh"

usage() {
    cat <<'END'
Usage: scripts/db.sh ENVIRONMENT COMMAND [OPTION]...
Stop, start, snapshot, restore or adopt the database of an environment.

Commands:
  stop      stop the tasks, then the database; RDS starts a stopped database again after 7 days
  start     start the database, wait until it is available, then start the minimum number of tasks
  snapshot  take a snapshot and print its name
  restore   create a new instance from a point in time or a snapshot, with the same network, security groups, parameters and
            backups, and with deletion protection; check it, and print how to switch over. The running instance does not change
  adopt     after the names are exchanged: import the instance into Terraform's state in place of the old one, and set what is
            left to set, with the passwords that Secrets Manager holds. Needs terraform; may be run again

Options:
  --to TIME          restore: point in time in UTC (default: the latest possible)
  --snapshot NAME    restore: use this snapshot instead of a point in time
  --name NAME        name of the snapshot or of the new instance (default: the database's name and the current time); the
                     policy that bootstrap.sh prints allows names that begin with prop-
  --timeout SECONDS  maximum time to wait (default: 3600)
  --dry-run          print the calls that would change something, without making them
  --json             snapshot, restore: print the result as JSON to standard output
  -h, --help         print this help

Environment:
  AWS_REGION                             AWS region (default: ap-south-1)
  STATE_BUCKET, LOCK_TABLE, STATE_REGION  adopt: as for bootstrap.sh

Examples:
  scripts/db.sh staging stop
  scripts/db.sh production snapshot
  scripts/db.sh production restore --to 2026-02-03T04:05:06Z
  scripts/db.sh production restore --snapshot prop-db-20260203-040506
  scripts/db.sh production adopt

Exit codes:
  0    done
  1    failed, or did not finish in time
  2    wrong argument
  3    something is missing, access is denied, or the state does not allow the command; nothing was changed
  130  interrupted; AWS continues what it has started
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
            [ -n "${2:-}" ] || missing_value "$1"
            case $1 in
                --to) TO=$2 ;;
                --snapshot) FROM=$2 ;;
                --name) NAME=$2 ;;
                --timeout) TIMEOUT=$2 ;;
            esac
            shift
            ;;
        -*) unknown_option "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 2 ] || unexpected_argument "${words[2]}"
use_environment "${words[0]:-}"
action=${words[1]:-}
[ -n "$action" ] || missing_argument "COMMAND (one of: stop, start, snapshot, restore, adopt)"
[[ $action =~ ^(stop|start|snapshot|restore|adopt)$ ]] ||
    usage_error "unknown command '$action'; must be one of: stop, start, snapshot, restore, adopt."
[ "$action" = restore ] || [ -z "$TO$FROM" ] || usage_error "--to and --snapshot are options of restore only."
[ -z "$TO" ] || [ -z "$FROM" ] || usage_error "--to and --snapshot cannot be combined."
[ -z "$TO" ] || [[ $TO =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$ ]] || usage_error "--to must be a time in UTC such as 2026-02-03T04:05:06Z, not '$TO'."
[[ $TIMEOUT =~ ^[1-9][0-9]*$ ]] || usage_error "--timeout must be a number of seconds, not '$TIMEOUT'."
require_tools aws jq
trap 'clear_progress; info ""; warn "Interrupted. AWS continues what it has started. To check, run: scripts/status.sh $ENVIRONMENT"; exit 130' INT TERM

# read_database NAME: sets DATABASE to the current state of the instance.
read_database() {
    local answer
    answer=$(aws_json rds describe-db-instances --db-instance-identifier "$1") || return 1
    DATABASE=$(jq -c '.DBInstances[0]' <<<"$answer")
}

# database_get FILTER: prints a part of DATABASE, selected by a jq filter.
database_get() { jq -r "$1" <<<"$DATABASE"; }

# wait_for STATUS NAME: waits until the instance is available or stopped.
wait_for() {
    local started=$SECONDS status
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        status=unknown
        ! read_database "$2" || status=$(database_get .DBInstanceStatus)
        [ "$status" != "$1" ] || break
        case $status in
            failed | *incompatible* | storage-full) die "$2 is $status." ;;
            stopped) die "$EXIT_PREFLIGHT" "$2 is stopped; it must be available." ;;
        esac
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "$2 is still $status after $(duration "$TIMEOUT"). AWS continues."
        progress "$(duration $((SECONDS - started)))" "$2: $status"
        sleep "$POLL_SECONDS"
    done
    clear_progress
    success "$2 is $1."
}

# allow_tasks MIN MAX: lets autoscaling keep that many tasks, and starts or stops as many as this takes.
allow_tasks() {
    local desired
    desired=$(service_get .desiredCount)
    persist set_range "$1" "$2" || die "Cannot set the number of tasks that autoscaling allows. $(aws_error)"
    # AWS has moved the number into the range, unless the range was the same before.
    if [ "$desired" -lt "$1" ]; then desired=$1; elif [ "$desired" -gt "$2" ]; then desired=$2; else return 0; fi
    persist aws_change ecs update-service --cluster "$ECS_CLUSTER" --service "$ECS_SERVICE" --desired-count "$desired" >/dev/null ||
        die "Cannot update the service. $(aws_error)"
}

# wait_for_tasks COUNT: waits until at least COUNT tasks are running. With 0, until none is.
wait_for_tasks() {
    local started=$SECONDS running
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        running=''
        ! read_service || [ -z "$SERVICE" ] || running=$(service_get .runningCount)
        # A failed request says nothing about the number of tasks.
        if [ -n "$running" ]; then
            [ "$running" != "$1" ] || break
            [ "$1" = 0 ] || [ "$running" -lt "$1" ] || break
        fi
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "${running:-An unknown number} of $1 tasks are running after $(duration "$TIMEOUT"). $([ -n "$running" ] || aws_error)"
        progress "$(duration $((SECONDS - started)))" "tasks: ${running:-?} running, of $1"
        sleep "$POLL_SECONDS"
    done
    clear_progress
    success "Running tasks: $running."
}

stop() {
    require_service
    # Checked before any task is stopped: if RDS cannot stop the database, the tasks keep running.
    case $(database_get .DBInstanceStatus) in
        available | stopping | stopped) ;;
        *) die "$EXIT_PREFLIGHT" "$DB_INSTANCE is $(database_get .DBInstanceStatus); it can be stopped only when it is available. Nothing was changed." ;;
    esac
    step "Stopping $ENVIRONMENT"
    # The tasks stop first: without the database they would fail their health checks and be restarted repeatedly.
    allow_tasks 0 0
    wait_for_tasks 0
    [ "$(database_get .DBInstanceStatus)" != available ] ||
        aws_change rds stop-db-instance --db-instance-identifier "$DB_INSTANCE" >/dev/null || die "Cannot stop $DB_INSTANCE. $(aws_error)"
    wait_for stopped "$DB_INSTANCE"
}

start() {
    require_service
    step "Starting $ENVIRONMENT"
    start_database "$DB_INSTANCE" "$TIMEOUT" || die "$WHY"
    [ "$DRY_RUN" = yes ] || success "$DB_INSTANCE is available."
    local definition
    definition=$(task_definition "$(service_get .taskDefinition)") || die "$(aws_error)"
    if [ -z "$(definition_digest "$definition")" ]; then
        detail "Nothing has been deployed yet, so no tasks are started."
        return
    fi
    read_range
    allow_tasks "$MIN_TASKS" "$MAX_TASKS"
    wait_for_tasks "$MIN_TASKS"
}

snapshot() {
    local name=${NAME:-$DB_INSTANCE-$(date -u +%Y%m%d-%H%M%S)} answer started=$SECONDS status
    step "Taking snapshot $name of $DB_INSTANCE"
    aws_change rds create-db-snapshot --db-instance-identifier "$DB_INSTANCE" --db-snapshot-identifier "$name" >/dev/null ||
        die "Cannot take the snapshot. $(aws_error)"
    [ "$DRY_RUN" = no ] || return 0
    while :; do
        answer=$(aws_json rds describe-db-snapshots --db-snapshot-identifier "$name") || answer='{}'
        status=$(jq -r '.DBSnapshots[0].Status // "unknown"' <<<"$answer")
        [ "$status" != available ] || break
        [ "$status" != failed ] || die "The snapshot failed."
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "The snapshot is still $status after $(duration "$TIMEOUT"). AWS continues."
        progress "$(duration $((SECONDS - started)))" "$name: $status, $(jq -r '.DBSnapshots[0].PercentProgress // 0' <<<"$answer") %"
        sleep "$POLL_SECONDS"
    done
    clear_progress
    success "$name is available, $(jq -r '.DBSnapshots[0].AllocatedStorage' <<<"$answer") GB."
    if [ "$JSON" = yes ]; then
        jq '.DBSnapshots[0] | {snapshot: .DBSnapshotIdentifier, database: .DBInstanceIdentifier, at: .SnapshotCreateTime, encrypted: .Encrypted}' <<<"$answer"
    else
        echo "$name"
    fi
}

# A jq filter for the properties that the new instance must share with the one it replaces.
readonly COMMON='{
    class: .DBInstanceClass, engine_version: .EngineVersion, public: (.PubliclyAccessible // false), encrypted: (.StorageEncrypted // false),
    subnet_group: .DBSubnetGroup.DBSubnetGroupName, multi_az: (.MultiAZ // false), security_groups: ([.VpcSecurityGroups[].VpcSecurityGroupId] | sort),
    parameter_group: [.DBParameterGroups[].DBParameterGroupName], backup_days: .BackupRetentionPeriod, user: .MasterUsername,
    copy_tags: (.CopyTagsToSnapshot // false), storage_ceiling: .MaxAllocatedStorage, backup_window: .PreferredBackupWindow, maintenance_window: .PreferredMaintenanceWindow,
    logs: (.EnabledCloudwatchLogsExports // [] | sort), ca: .CACertificateIdentifier, minor_upgrades: .AutoMinorVersionUpgrade,
    performance_insights: (.PerformanceInsightsEnabled // false)
}'

# settings_of JSON: prints the arguments that give an instance the settings which a restore does not copy, one word per line.
settings_of() {
    jq -r '
        def option($name; $value): if $value == null then empty else "--" + $name, ($value | tostring) end;
        option("backup-retention-period"; .BackupRetentionPeriod // 0),
        option("max-allocated-storage"; .MaxAllocatedStorage),
        option("preferred-backup-window"; .PreferredBackupWindow),
        option("preferred-maintenance-window"; .PreferredMaintenanceWindow),
        option("ca-certificate-identifier"; .CACertificateIdentifier),
        (if .AutoMinorVersionUpgrade == false then "--no-auto-minor-version-upgrade" else empty end),
        (if .PerformanceInsightsEnabled then "--enable-performance-insights" else empty end),
        (.EnabledCloudwatchLogsExports // [] | select(. != []) | "--cloudwatch-logs-export-configuration", ({EnableLogTypes: .} | tojson))
    ' <<<"$1"
}

# differences OLD_JSON: prints the properties in which DATABASE differs, one per line.
differences() {
    jq -rn --argjson old "$(jq -c "$COMMON" <<<"$1")" --argjson new "$(jq -c "$COMMON + {protected: .DeletionProtection}" <<<"$DATABASE")" '
        (($old | keys[]) | select($old[.] != $new[.]) | "\(.) is \($new[.]), not \($old[.])"), (if $new.protected then empty else "it has no deletion protection" end)'
}

restore() {
    local new=${NAME:-$DB_INSTANCE-$(date -u +%Y%m%d-%H%M%S)} old=$DATABASE arguments groups of
    arguments=(--db-instance-class "$(database_get .DBInstanceClass)" --db-subnet-group-name "$(database_get .DBSubnetGroup.DBSubnetGroupName)"
    --db-parameter-group-name "$(database_get '.DBParameterGroups[0].DBParameterGroupName')" --no-publicly-accessible --deletion-protection
    --copy-tags-to-snapshot --storage-type "$(database_get '.StorageType // "gp3"')")
    if [ "$(database_get .MultiAZ)" = true ]; then arguments+=(--multi-az); else arguments+=(--no-multi-az); fi
    read -ra groups <<<"$(database_get '[.VpcSecurityGroups[].VpcSecurityGroupId] | join(" ")')"
    arguments+=(--vpc-security-group-ids "${groups[@]}")
    if [ -n "$FROM" ]; then
        of="snapshot $FROM"
        aws_json rds describe-db-snapshots --db-snapshot-identifier "$FROM" >/dev/null || die "$EXIT_PREFLIGHT" "Cannot read the snapshot $FROM. $(aws_error)"
        arguments=(rds restore-db-instance-from-db-snapshot --db-snapshot-identifier "$FROM" --db-instance-identifier "$new" "${arguments[@]}")
    else
        of=${TO:-'the latest possible time'}
        [ "$(database_get '.BackupRetentionPeriod // 0')" -gt 0 ] || die "$EXIT_PREFLIGHT" "$DB_INSTANCE has no backups, so only a snapshot can be restored. Use --snapshot NAME."
        local latest
        latest=$(database_get '.LatestRestorableTime // "" | .[:19]')
        [ -z "$TO" ] || [ -z "$latest" ] || [[ ! ${TO:0:19} > $latest ]] ||
            die "$EXIT_PREFLIGHT" "--to $TO is too late: $DB_INSTANCE can be restored up to ${latest}Z."
        arguments=(rds restore-db-instance-to-point-in-time --source-db-instance-identifier "$DB_INSTANCE" --target-db-instance-identifier "$new" "${arguments[@]}")
        if [ -n "$TO" ]; then arguments+=(--restore-time "$TO"); else arguments+=(--use-latest-restorable-time); fi
    fi

    step "Restoring $DB_INSTANCE from $of to $new"
    aws_change "${arguments[@]}" >/dev/null || die "Cannot restore $DB_INSTANCE. $(aws_error)"
    wait_for available "$new"
    local modify
    mapfile -t modify < <(settings_of "$old")
    aws_change rds modify-db-instance --db-instance-identifier "$new" --apply-immediately "${modify[@]}" >/dev/null ||
        die "Cannot modify $new. $(aws_error)"
    [ "$DRY_RUN" = no ] || return 0
    local different settled=0 started=$SECONDS
    # RDS may report the instance as available while changes are still pending, or before it has begun with them.
    while :; do
        if read_database "$new"; then
            different=$(differences "$old")
            if [ -z "$different" ] || [ "$settled" -ge 12 ]; then break; fi
            settled=$((settled + 1))
            [ "$(database_get '(.PendingModifiedValues // {}) == {} and .DBInstanceStatus == "available"')" = true ] || settled=0
        fi
        [ $((SECONDS - started)) -lt "$TIMEOUT" ] || die "The changes to $new are still pending after $(duration "$TIMEOUT"). AWS continues."
        sleep "$POLL_SECONDS"
    done
    [ -z "$different" ] || die "$new was created, but differs from $DB_INSTANCE: $(paste -sd';' <<<"$different"). The running instance did not change."
    success "$new has the network, security groups, parameters and backups of $DB_INSTANCE, and deletion protection."
    switch_over "$new"
    [ "$JSON" = no ] || jq -n --arg database "$DB_INSTANCE" --argjson new "$DATABASE" \
        '{database: $database, restored: $new.DBInstanceIdentifier, endpoint: $new.Endpoint.Address, class: $new.DBInstanceClass}'
}

# switch_over NEW: prints the commands that replace the running instance. An instance's address follows from its name, so
# renaming the instances is enough: no secret and no setting changes.
switch_over() {
    local aside=$DB_INSTANCE-before-restore rds="aws rds modify-db-instance --region $AWS_REGION --apply-immediately"
    info ''
    info "The running instance did not change. To inspect $1 first, run a task with its address: only tasks can reach it. To switch over:"
    info ''
    info "  scripts/db.sh $ENVIRONMENT snapshot                       # keeps the current data"
    info "  aws ecs update-service --region $AWS_REGION --cluster $ECS_CLUSTER --service $ECS_SERVICE --desired-count 0"
    info "  $rds --db-instance-identifier $DB_INSTANCE --new-db-instance-identifier $aside"
    info "  aws rds wait db-instance-available --region $AWS_REGION --db-instance-identifier $aside   # once RDS lists that name"
    info "  $rds --db-instance-identifier $1 --new-db-instance-identifier $DB_INSTANCE"
    info "  scripts/db.sh $ENVIRONMENT adopt                          # lets Terraform know it, and sets the passwords"
    info "  scripts/db.sh $ENVIRONMENT start                          # starts the tasks"
    info "  scripts/status.sh $ENVIRONMENT"
    info ''
    info "Delete $aside when it is no longer needed."
    info "The restored data ends at the restored time. Deployments that are saved in spool files are reported again by the next run."
}

# adopt: puts the instance into Terraform's state in place of the one before it. Terraform stores no password, so it takes an
# imported instance's for unset and sends one: here the one that Secrets Manager holds and the tasks use, whatever else is set.
adopt() {
    local resource=aws_db_instance.main plan=$WORK/plan known adopted
    require_tools terraform
    use_passwords
    wait_for available "$DB_INSTANCE"
    step "Adopting $DB_INSTANCE into Terraform's state"
    initialise || die "$EXIT_PREFLIGHT" "Cannot initialise Terraform. Nothing was changed."
    known='the old one' adopted=$(database_get .DbiResourceId)
    [ "$DRY_RUN" = yes ] || known=$(known_instance) || die "$EXIT_PREFLIGHT" "Cannot read Terraform's state. Nothing was changed."
    if [ -n "$known" ] && [ "$known" = "$adopted" ]; then
        success "the state names this instance already."
    else
        [ -z "$known" ] || terraform_in state rm "$resource" >&2 || die "Cannot remove the old instance from the state."
        terraform_in import -input=false "${variables[@]}" "$resource" "$DB_INSTANCE" >&2 ||
            die "Cannot import $DB_INSTANCE. To try again, run this command again."
    fi
    terraform_in plan -input=false -target="$resource" "${variables[@]}" -out="$plan" >&2 ||
        die "Cannot plan. To try again, run this command again."
    [ "$DRY_RUN" = yes ] || keeps_everything "$plan" ||
        die "The plan above deletes or replaces something, so it was not applied. Compare $DB_INSTANCE with envs/$ENVIRONMENT.tfvars."
    terraform_in apply -input=false "$plan" >&2 || die "Terraform failed. To try again, run this command again."
    [ "$DRY_RUN" = yes ] || success "Terraform manages $DB_INSTANCE. To check, run: scripts/infra.sh $ENVIRONMENT drift"
}

# known_instance: prints the resource ID of the instance in the state, which no rename changes, or nothing.
known_instance() {
    terraform_in state pull |
        jq -r 'first(.resources[]? | select(.type == "aws_db_instance" and .name == "main").instances[0].attributes.resource_id) // ""'
}

# keeps_everything PLAN: succeeds if the plan deletes nothing.
keeps_everything() { [ "$(plan_query '[.resource_changes[]? | select(.change.actions | index("delete"))] | length' "$1")" = 0 ]; }

# use_passwords: sets the passwords that Terraform sends to those of the secret.
use_passwords() {
    local answer suffix=
    [ "$ENVIRONMENT" = production ] || suffix=-$ENVIRONMENT
    : "${DATABASE_SECRET:=prop/database$suffix}"
    answer=$(aws_json secretsmanager get-secret-value --secret-id "$DATABASE_SECRET") ||
        die "$EXIT_PREFLIGHT" "Cannot read the secret $DATABASE_SECRET. $(aws_error) Nothing was changed."
    TF_VAR_database_password=$(jq -r '.SecretString | fromjson.password' <<<"$answer")
    TF_VAR_database_app_password=$(jq -r '.SecretString | fromjson.app_password // ""' <<<"$answer")
    export TF_VAR_database_password TF_VAR_database_app_password
}

# A renamed instance takes some minutes to appear by its new name; adopt waits for it.
read_database "$DB_INSTANCE" || { [ "$action" = adopt ] && grep -q DBInstanceNotFound "$WORK/aws-error"; } ||
    die "$EXIT_PREFLIGHT" "Cannot read the database $DB_INSTANCE. $(aws_error)"
"$action"
