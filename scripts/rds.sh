# shellcheck shell=bash
# The database instance: sourced after lib.sh, aws.sh and ecs.sh.
# shellcheck disable=SC2034 # what is found is left in variables, for the script

# database_status NAME: prints what RDS calls it.
database_status() {
    local answer
    answer=$(call rds describe-db-instances --db-instance-identifier "$1") || return 1
    jq -r '.DBInstances[0].DBInstanceStatus' <<<"$answer"
}

# start_database NAME SECONDS: starts it, as soon as it is stopped, and waits until it is available. Fails when it can't be
# started, or not in that time; WHY says why.
start_database() {
    local started=$SECONDS status=unknown begun=no
    while :; do
        # One look that fails decides nothing.
        status=$(database_status "$1") || status=unknown
        case $status in
            available) break ;;
            failed | *incompatible* | storage-full)
                WHY="The database $1 is $status."
                return 1
                ;;
        esac
        if [ "$DRY_RUN" = yes ] || { [ "$status" = stopped ] && [ "$begun" = no ]; }; then
            alter rds start-db-instance --db-instance-identifier "$1" >/dev/null || {
                WHY="The database $1 can't be started. $(aws_said)"
                return 1
            }
            [ "$DRY_RUN" = no ] || return 0
            begun=yes
        fi
        if [ $((SECONDS - started)) -ge "$2" ]; then
            WHY="The database $1 is still $status after $(minutes "$2")."
            return 1
        fi
        progress "$(minutes $((SECONDS - started)))" "$1: $status"
        sleep "$POLL_SECONDS"
    done
    no_progress
}
