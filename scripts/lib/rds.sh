# shellcheck shell=bash
# Reads and starts the database instance. Source it after common.sh, aws.sh and ecs.sh.
# shellcheck disable=SC2034 # the calling script reads the variables that are set here

# database_status NAME: prints the instance's status, as RDS names it.
database_status() {
    local answer
    answer=$(aws_json rds describe-db-instances --db-instance-identifier "$1") || return 1
    jq -r '.DBInstances[0].DBInstanceStatus' <<<"$answer"
}

# start_database NAME SECONDS: waits until the instance is stopped, starts it and waits until it is available. Fails if it
# cannot be started or the time is over; WHY is the reason.
start_database() {
    local started=$SECONDS status=unknown begun=no
    while :; do
        # A single failed request must not end the wait.
        status=$(database_status "$1") || status=unknown
        case $status in
            available) break ;;
            failed | *incompatible* | storage-full)
                WHY="The database $1 is $status."
                return 1
                ;;
        esac
        if [ "$DRY_RUN" = yes ] || { [ "$status" = stopped ] && [ "$begun" = no ]; }; then
            aws_change rds start-db-instance --db-instance-identifier "$1" >/dev/null || {
                WHY="Cannot start the database $1. $(aws_error)"
                return 1
            }
            [ "$DRY_RUN" = no ] || return 0
            begun=yes
        fi
        if [ $((SECONDS - started)) -ge "$2" ]; then
            WHY="The database $1 is still $status after $(duration "$2")."
            return 1
        fi
        progress "$(duration $((SECONDS - started)))" "$1: $status"
        sleep "$POLL_SECONDS"
    done
    clear_progress
}
