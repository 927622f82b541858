#!/usr/bin/env bash
# Runs Terraform for an environment, with its backend and variables, and asks before it changes something.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/terraform.sh"

readonly EXIT_DRIFT=4 EXIT_DECLINED=5

usage() {
    cat <<END
Usage: scripts/infra.sh ENVIRONMENT COMMAND [OPTION]... [-- TERRAFORM_ARGUMENT...]
Run Terraform for an environment ($(list_environments)), with its backend and variables.

Needs terraform 1.11 or later, jq and AWS credentials.

Commands:
  plan           show what would change
  apply [FILE]   show what would change, ask, and change it; with FILE, apply exactly that plan
  destroy        show what would be deleted, ask, and delete everything
  output [NAME]  print all outputs, or the value of one
  drift          compare the environment with its description; exit with 4 if they differ. Takes no lock

Options:
  --out FILE     plan: save the plan in FILE, for apply
  --yes          do not ask, for pipelines; destroying production still needs its name on standard input
  --json         output: print JSON
  --dry-run      print the commands without running them
  -h, --help     print this help

Environment:
  TF_VAR_database_password      the password of the database's owner, 16 to 128 characters
  TF_VAR_database_app_password  the password of the role that prop serves with, 16 to 128 characters
  TF_VAR_bootstrap_key          prop's first admin key
      AWS needs these three secrets when an environment is created and when secrets_version in its tfvars file is raised. If one
      is not set, apply asks for it. Terraform stores none. Keep them until apply has succeeded: a retry must send the same.
  TF_VAR_github_webhook_secret  the secret of GitHub's webhooks, 16 to 200 characters; needed when github_webhook_version is
      raised
  STATE_BUCKET, LOCK_TABLE, STATE_REGION
      as for bootstrap.sh (default: the values in terraform/envs/ENVIRONMENT.s3.tfbackend)
  TERRAFORM_DIR             folder with the Terraform files (now: $TERRAFORM_DIR)

Examples:
  export TF_VAR_database_password=\$(openssl rand -hex 24) TF_VAR_database_app_password=\$(openssl rand -hex 24)
  export TF_VAR_bootstrap_key=\$(prop key generate)
  scripts/infra.sh staging plan --out staging.plan && scripts/infra.sh staging apply staging.plan
  scripts/infra.sh staging output alb_url
  scripts/infra.sh staging plan -- -var min_tasks=2
  STATE_BUCKET=acme-prop-state scripts/infra.sh production drift

Exit codes:
  0  done (plan: with or without changes)
  1  Terraform failed
  2  wrong argument
  3  a tool or a secret is missing
  4  drift was found
  5  the confirmation was declined
END
}

command='' file='' out='' name='' yes=no json=no passed=()

# argument WORD: handles an argument that is not an option.
argument() {
    if [ -z "${ENVIRONMENT:-}" ]; then
        use_environment "$1"
    elif [ -z "$command" ]; then
        command=$1
    elif [ "$command" = apply ] && [ -z "$file" ]; then
        file=$1
    elif [ "$command" = output ] && [ -z "$name" ]; then
        name=$1
    else
        unexpected_argument "$1"
    fi
}

unset ENVIRONMENT
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        --yes) yes=yes ;;
        --json) json=yes ;;
        --out)
            [ $# -gt 1 ] || missing_value --out
            out=$2
            shift
            ;;
        --)
            shift
            passed=("$@")
            break
            ;;
        -*) unknown_option "$1" ;;
        *) argument "$1" ;;
    esac
    shift
done
[ -n "${ENVIRONMENT:-}" ] || use_environment ''
case $command in
    plan | apply | destroy | output | drift) ;;
    '') missing_argument "COMMAND (one of: plan, apply, destroy, output, drift)" ;;
    *) usage_error "unknown command '$command'; must be one of: plan, apply, destroy, output, drift." ;;
esac
[ -z "$out" ] || [ "$command" = plan ] || usage_error "--out is an option of plan only."
[ "$json" = no ] || [ "$command" = output ] || usage_error "--json is an option of output only."
[ -z "$file" ] || [ -f "$file" ] || usage_error "plan '$file' not found."
require_tools terraform jq

# from_here FILE: prints the absolute path, because Terraform runs in another folder.
from_here() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }

# sent_secrets PLAN: prints what the plan sends, webhook or others: where it creates a write-only value or changes its version.
sent_secrets() {
    # shellcheck disable=SC2016 # the dollars are jq's
    plan_query '.resource_changes[]? | (if (.address // "") | contains(".github_webhook") then "webhook" else "others" end) as $what
        | .change as $change | $change.after // {} | to_entries[]
        | select((.key | endswith("_wo_version")) and .value != null)
        | select(($change.actions | index("create")) or $change.before[.key] != .value) | $what' "$1"
}

# ask_for_secrets PLAN: asks for the missing secrets that the plan sends.
ask_for_secrets() {
    local index sent what
    [ ${#missing[@]} -gt 0 ] || return 0
    sent=$(sent_secrets "$1") || die "Cannot read the plan."
    for index in "${missing[@]}"; do
        what=others
        [[ ${secrets[index]} != *_webhook_* ]] || what=webhook
        [[ $'\n'$sent$'\n' == *$'\n'$what$'\n'* ]] || continue
        if [ "$yes" = yes ] || [ ! -t 0 ]; then
            die "$EXIT_PREFLIGHT" "This plan sends secrets to AWS, but ${secrets[index]} is not set. See $SCRIPT --help."
        fi
        read -rsp "${prompts[index]} (input is hidden): " "${secrets[index]?}"
        info
        [ -n "${!secrets[index]}" ] || die "$EXIT_DECLINED" "The input was empty. Nothing was changed."
    done
}

# confirm WORD WARNING: ends the script unless the user types the word.
confirm() {
    local typed=
    printf "%s Type '%s' to continue: " "$2" "$1" >&2
    read -r typed || true
    [ "$typed" = "$1" ] || die "$EXIT_DECLINED" "The input was not '$1'. Nothing was changed."
}

confirm_destruction() {
    ! grep -Eq '^creates_account_resources *= *true' "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" ||
        warn "$ENVIRONMENT owns resources that all environments share (image repository, GitHub's identity provider, budget). They are deleted too."
    if [ "$ENVIRONMENT" = production ]; then
        info "${RED}This deletes everything in production$PLAIN: service, load balancer, network, database and its automated backups.
Deletion protection must be off first: set deletion_protection = false in envs/production.tfvars and apply it. Otherwise
the deletion fails half-way. Without deletion protection, RDS takes no final snapshot: take one with scripts/db.sh first."
        confirm production 'This cannot be undone.'
    elif [ "$yes" = no ]; then
        confirm "$ENVIRONMENT" "This deletes everything in $ENVIRONMENT, including its database."
    fi
}

# make_plan ARGUMENT...: sets outcome to 0 if nothing changes and to 2 if something does.
make_plan() {
    outcome=0
    terraform_in plan -input=false -detailed-exitcode "${variables[@]}" "$@" "${passed[@]}" || outcome=$?
    case $outcome in 0 | 2) ;; *) exit "$EXIT_FAILED" ;; esac
}

[ "$command" != apply ] || [ -z "$file" ] || file=$(from_here "$file")
initialise

case $command in
    plan)
        [ -z "$out" ] || out=$(from_here "$out")
        make_plan ${out:+-out="$out"}
        [ -z "$out" ] || [ "$DRY_RUN" = yes ] || info "To apply this plan, run: scripts/$SCRIPT $ENVIRONMENT apply $out"
        ;;
    apply)
        if [ -z "$file" ]; then
            file=$WORK/plan
            make_plan -out="$file"
            [ "$outcome" = 2 ] || [ "$DRY_RUN" = yes ] || exit 0
        elif [ "$DRY_RUN" = no ]; then
            # A plan contains its backend, so Terraform would apply it to its own environment, whichever is named here.
            planned=$(plan_query '.variables.environment.value' "$file") || die "Cannot read $file as a plan for the current Terraform files. Make a new plan."
            [ "$planned" = "$ENVIRONMENT" ] || usage_error "$file is a plan for $planned, not for $ENVIRONMENT."
            yes=yes
        fi
        if [ "$DRY_RUN" = no ]; then
            ask_for_secrets "$file"
            [ "$yes" = yes ] || confirm yes "This changes $ENVIRONMENT."
        fi
        terraform_in apply -input=false "$file"
        ;;
    destroy)
        make_plan -destroy -out="$WORK/plan"
        [ "$outcome" = 2 ] || [ "$DRY_RUN" = yes ] || exit 0
        [ "$DRY_RUN" = yes ] || confirm_destruction
        terraform_in apply -input=false "$WORK/plan"
        ;;
    output)
        if [ "$json" = yes ]; then
            terraform_in output -json ${name:+"$name"} "${passed[@]}"
        else
            terraform_in output ${name:+-raw "$name"} "${passed[@]}"
        fi
        ;;
    drift)
        make_plan -lock=false
        [ "$outcome" = 0 ] || die "$EXIT_DRIFT" "$ENVIRONMENT differs from its description; the plan above lists the differences."
        [ "$DRY_RUN" = yes ] || success "$ENVIRONMENT matches its description"
        ;;
esac
