#!/usr/bin/env bash
# Puts a throw-away AWS account through the life of an environment, and takes everything down again.
# shellcheck disable=SC2317 # `timed` calls the steps
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"

readonly EXIT_LEFT=4 ENVIRONMENT_TRIED=staging

usage() {
    cat <<'END'
Usage: scripts/nightly-account.sh --account ID [OPTION]...
Put a throw-away AWS account through the life of an environment: create staging, deploy, deploy an image that does not start,
restore the database, stop and start, and destroy everything. Print how long each step took.

It has not been run yet: no account was at hand. It costs about 0.25 USD an hour, and takes about an hour by what AWS documents
of its own times. The account must have nothing of prop in it, and nothing else of value. State bucket and lock table stay, for
the next night.

The script needs the AWS CLI with administrator's credentials, terraform, docker with buildx, jq, curl, git and openssl, and the
prop binary on PATH, or cargo, for a first admin key.

Options:
  --account ID   the account; refused if the credentials are of another one
  --keep         if a step fails, leave everything as it is, for a look. It goes on costing
  --destroy      only take down what an earlier run has left
  --report FILE  write the times as JSON to FILE
  --dry-run      print the commands, without running them
  -h, --help     print this help

Environment:
  AWS_REGION    AWS region (default: ap-south-1)
  STATE_BUCKET  bucket of Terraform's state (default: prop-nightly-ID)

Examples:
  scripts/nightly-account.sh --account 123456789012 --dry-run
  scripts/nightly-account.sh --account 123456789012 --report nightly.json

Exit codes:
  0    every step ended as it should, and nothing is left
  1    a step did not; everything was taken down
  2    wrong argument
  3    a tool is missing, the credentials are of another account, or it has something of prop in it; nothing was changed
  4    something is left in the account that costs money; it is listed
  130  interrupted; everything was taken down
END
}

WANTED='' KEEP=no DESTROY=no REPORT=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        --keep) KEEP=yes ;;
        --destroy) DESTROY=yes ;;
        --account | --report)
            [ -n "${2:-}" ] || missing_value "$1"
            if [ "$1" = --account ]; then WANTED=$2; else REPORT=$2; fi
            shift
            ;;
        -*) unknown_option "$1" ;;
        *) unexpected_argument "$1" ;;
    esac
    shift
done
[[ $WANTED =~ ^[0-9]{12}$ ]] || usage_error "--account must be the 12 digits of the throw-away account, not '$WANTED'."
use_environment "$ENVIRONMENT_TRIED"
export STATE_BUCKET=${STATE_BUCKET:-prop-nightly-$WANTED} AWS_ACCOUNT_ID=$WANTED

# script NAME ARGUMENT...: runs another script of this folder. Its messages are this script's too.
script() {
    local name=$1
    shift
    run_or_print "$ROOT/scripts/$name" "$@"
}

# Times: a line per step, with its name, its seconds and how it ended.
timed() {
    local name=$1 expected=$2 started=$SECONDS status=0
    shift 2
    step "$name"
    "$@" || status=$?
    [ "$DRY_RUN" = yes ] || printf '%s\t%s\t%s\n' "$name" $((SECONDS - started)) "$status" >>"$WORK/times"
    if [ "$DRY_RUN" = no ] && [ "$status" != "$expected" ] && [ "$INTERRUPTED" = no ]; then
        warn "$name ended with $status instead of $expected after $(duration $((SECONDS - started)))."
        return 1
    fi
    [ "$INTERRUPTED" = no ] || [ "$name" = destroy ]
}

# present: prints what of prop is in the account, as Terraform tags it, one ARN per line. The resources that hold the state have
# the tag of bootstrap.sh.
present() {
    local answer
    answer=$(aws_json resourcegroupstaggingapi get-resources \
        --tag-filters Key=Project,Values=prop Key=ManagedBy,Values=terraform) || return 1
    # Revisions of task definitions stay, inactive and free of charge.
    jq -r '.ResourceTagMappingList[].ResourceARN | select(contains(":task-definition/") | not)' <<<"$answer"
}

preflight() {
    local found
    require_tools aws terraform docker jq curl git openssl
    command -v prop >/dev/null || require_tools cargo
    [ "$DRY_RUN" = no ] || return 0
    check_identity
    [ "$DESTROY" = no ] || return 0
    found=$(present) || die "$EXIT_PREFLIGHT" "Cannot list the account's resources. $(aws_error)"
    [ -z "$found" ] || die "$EXIT_PREFLIGHT" "Account $WANTED is not empty: $(paste -sd' ' <<<"$found"). Nothing was changed."
}

make_secrets() {
    TF_VAR_database_password=$(openssl rand -hex 24) TF_VAR_database_app_password=$(openssl rand -hex 24)
    TF_VAR_bootstrap_key=$(if command -v prop >/dev/null; then prop key generate; else cargo run -q -- key generate; fi)
    export TF_VAR_database_password TF_VAR_database_app_password TF_VAR_bootstrap_key
}

# build_bad: pushes an image that ends as soon as it starts. Its tag is in BAD.
build_bad() {
    local answer repository=REPOSITORY
    if [ "$DRY_RUN" = no ]; then
        answer=$(aws_json ecr describe-repositories --repository-names "$ECR_REPOSITORY") || return 1
        repository=$(jq -r '.repositories[0].repositoryUri' <<<"$answer")
    fi
    printf 'FROM %s\nCMD ["no-such-command"]\n' "$repository@$GOOD" >"$WORK/Dockerfile"
    run_or_print docker build --quiet --tag "$repository:$BAD" - <"$WORK/Dockerfile" >&2 &&
        run_or_print docker push --quiet "$repository:$BAD" >&2
}

# smoke: checks that the good image serves.
smoke() {
    local url=URL
    [ "$DRY_RUN" = yes ] || url=$(script infra.sh "$ENVIRONMENT" output alb_url) || return 1
    script smoke.sh "$url" "$GOOD"
}

# restore: restores the database beside the running one, and runs what db.sh prints for the rest.
restore() {
    local command words
    if [ "$DRY_RUN" = yes ]; then
        script db.sh "$ENVIRONMENT" restore --name "$RESTORED"
        info "would run: the commands that it prints"
        return
    fi
    script db.sh "$ENVIRONMENT" restore --name "$RESTORED" 2>&1 >/dev/null | tee "$WORK/runbook" >&2 || return 1
    while IFS= read -r command; do
        detail "$command"
        read -ra words <<<"${command%% # *}"
        (cd "$ROOT" && "${words[@]}" </dev/null >&2) || return 1
    done < <(grep -E '^  (scripts/|aws )' "$WORK/runbook")
}

# The steps, each with the exit code that it should end with.
live() {
    timed 'state' 0 script bootstrap.sh || return 1
    timed 'apply' 0 script infra.sh "$ENVIRONMENT" apply --yes -- -var auto_stop=false || return 1
    timed 'no drift' 0 script infra.sh "$ENVIRONMENT" drift -- -var auto_stop=false || return 1
    timed 'build' 0 build_good || return 1
    timed 'first deployment' 0 script deploy.sh "$ENVIRONMENT" "$GOOD" || return 1
    timed 'smoke test' 0 smoke || return 1
    timed 'image that does not start' 0 build_bad || return 1
    timed 'bad deployment goes back' 6 script deploy.sh "$ENVIRONMENT" "$BAD" || return 1
    timed 'smoke test after it' 0 smoke || return 1
    timed 'restore' 0 restore || return 1
    timed 'smoke test of the restored' 0 smoke || return 1
    timed 'no drift after it' 0 script infra.sh "$ENVIRONMENT" drift -- -var auto_stop=false || return 1
    timed 'stop' 0 script db.sh "$ENVIRONMENT" stop || return 1
    timed 'start' 0 script db.sh "$ENVIRONMENT" start || return 1
    timed 'smoke test when it is awake' 0 smoke
}

build_good() {
    [ "$DRY_RUN" = yes ] || GOOD=$(script build.sh) || return 1
    [ "$DRY_RUN" = no ] || script build.sh
}

# take_down: deletes everything but the state's bucket and table, also what no state knows, and goes on when a step fails.
take_down() {
    local name
    step 'Taking everything down'
    quietly aws ecr delete-repository --repository-name "$ECR_REPOSITORY" --force || true
    # Before the network that they are in.
    for name in "$DB_INSTANCE-before-restore" "$RESTORED"; do
        quietly aws rds modify-db-instance --db-instance-identifier "$name" --no-deletion-protection --apply-immediately ||
            continue
        quietly aws rds wait db-instance-available --db-instance-identifier "$name" || true
        quietly aws rds delete-db-instance --db-instance-identifier "$name" --skip-final-snapshot || true
        quietly aws rds wait db-instance-deleted --db-instance-identifier "$name" || true
    done
    timed 'destroy' 0 script infra.sh "$ENVIRONMENT" destroy --yes -- -var auto_stop=false || true
    for name in $(snapshots); do
        quietly aws rds delete-db-snapshot --db-snapshot-identifier "$name" || true
    done
}

# quietly COMMAND...: runs a command that fails when what it deletes is not there.
quietly() { if [ "$DRY_RUN" = yes ]; then run_or_print "$@"; else "$@" >/dev/null 2>&1; fi; }

# snapshots: prints the snapshots that db.sh took.
snapshots() {
    [ "$DRY_RUN" = no ] || return 0
    aws_json rds describe-db-snapshots --snapshot-type manual | jq -r --arg database "$DB_INSTANCE" \
        '.DBSnapshots[] | select(.DBInstanceIdentifier | startswith($database)).DBSnapshotIdentifier'
}

report() {
    [ -s "$WORK/times" ] || return 0
    info ''
    awk -F '\t' '{ printf "%6d s  %s%s\n", $2, $1, $3 ? " (ended with " $3 ")" : "" }' "$WORK/times" >&2
    [ -z "$REPORT" ] ||
        jq -Rn '[inputs / "\t" | {step: .[0], seconds: (.[1] | tonumber), exit_code: (.[2] | tonumber)}]' \
            <"$WORK/times" >"$REPORT"
}

# finish CODE: takes down, reports, looks at what is left, and ends the script.
finish() {
    local code=$1 left
    trap '' INT TERM
    if [ "$KEEP" = yes ] && [ "$code" != 0 ]; then
        warn "Everything was left as it is. To delete it, run:"
        info "  STATE_BUCKET=$STATE_BUCKET scripts/$SCRIPT --account $WANTED --destroy"
        report
        exit "$EXIT_LEFT"
    fi
    take_down
    report
    [ "$DRY_RUN" = no ] || exit 0
    left=$(present) || die "$EXIT_LEFT" "Cannot list what is left in the account. $(aws_error)"
    [ -z "$left" ] || die "$EXIT_LEFT" "This is left in account $WANTED, and may cost money: $(paste -sd' ' <<<"$left")"
    grep -q $'^destroy\t.*\t0$' "$WORK/times" || die "$EXIT_LEFT" "Terraform could not destroy everything; see above."
    [ "$code" != 0 ] || success "every step ended as it should, and nothing is left but bucket and table of the state."
    exit "$code"
}

GOOD=DIGEST BAD=bad-$(date -u +%Y%m%d%H%M%S) RESTORED=$DB_INSTANCE-restored
preflight
# No more than this: bash gives a bare `return` in a trap the status of what was interrupted.
INTERRUPTED=no
trap 'INTERRUPTED=yes' INT TERM
[ "$DRY_RUN" = yes ] || make_secrets
if [ "$DESTROY" = yes ] || live; then finish 0; fi
[ "$INTERRUPTED" = no ] || finish 130
finish "$EXIT_FAILED"
