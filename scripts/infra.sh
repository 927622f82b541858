#!/usr/bin/env bash
# Runs Terraform on an environment: its backend, its variables, and questions before what can't be taken back.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

readonly EXIT_DRIFT=4 EXIT_DECLINED=5

# What Terraform sends on and keeps nowhere: as variables, with what each must look like, and a value for commands that send none.
secrets=(TF_VAR_database_password TF_VAR_bootstrap_key)
described=("The database's password, 16 to 128 characters" "prop's first admin key, as 'prop key generate' prints it")
stand_ins=(not-sent-anywhere-by-this-command prop_000000000000000000000000000000000000)

usage() {
    cat <<END
Usage: scripts/infra.sh ENVIRONMENT COMMAND [OPTION]... [-- TERRAFORM_ARGUMENT...]

Initialises Terraform for one environment ($(environments)) and runs a command:

  plan [--out FILE]   show what would change; keep the plan in FILE, for apply
  apply [FILE]        show what changes, ask, and do it; with the FILE of a plan, do exactly that
  destroy             show what goes, ask, and remove everything; production wants its name typed
  output [NAME]       print the outputs, or the value of one
  drift               compare what runs with what is described here; ends with 4 when they differ. Takes no lock

  --yes               ask nothing, for pipelines; to destroy production its name is typed (or piped) all the same
  --json              output: print JSON
  --dry-run           print the commands and run none
  --help              this

Two secrets go to AWS when they are new: when an environment is made, and when secrets_version in its tfvars is raised. apply
takes them from these variables, or asks; Terraform keeps them nowhere, and nobody needs to know the password later:

  export TF_VAR_database_password=\$(openssl rand -hex 24)
  export TF_VAR_bootstrap_key=\$(prop key generate)          # prop's first admin key: keep it

Hold on to both until apply has succeeded: a second try must send the same.

The state is where terraform/envs/ENVIRONMENT.s3.tfbackend says, unless these say otherwise:

  STATE_BUCKET, LOCK_TABLE, STATE_REGION   as given to bootstrap.sh
  TERRAFORM_DIR                            $TERRAFORM_DIR

Examples:

  scripts/infra.sh staging plan --out staging.plan && scripts/infra.sh staging apply staging.plan
  scripts/infra.sh staging output alb_url
  scripts/infra.sh staging plan -- -var min_tasks=2
  STATE_BUCKET=acme-prop-state scripts/infra.sh production drift

Needs terraform 1.11 or later, jq and AWS credentials.

Exit codes: 0 done (plan: also when there are changes); 1 Terraform failed; 2 an argument is wrong; 3 a tool or a secret is
missing; 4 drift was found; 5 you said no.
END
}

command='' file='' out='' name='' yes=no json=no passed=()

# argument WORD: one that is not an option.
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
        misused "'$1' is one argument too many."
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
            [ $# -gt 1 ] || misused "--out wants a file."
            out=$2
            shift
            ;;
        --)
            shift
            passed=("$@")
            break
            ;;
        -*) misused "There is no option '$1'." ;;
        *) argument "$1" ;;
    esac
    shift
done
[ -n "${ENVIRONMENT:-}" ] || use_environment ''
case $command in
    plan | apply | destroy | output | drift) ;;
    '') misused "What is to be done with $ENVIRONMENT: plan, apply, destroy, output or drift?" ;;
    *) misused "There is no command '$command'; there are: plan, apply, destroy, output, drift." ;;
esac
[ -z "$out" ] || [ "$command" = plan ] || misused "--out goes with plan."
[ "$json" = no ] || [ "$command" = output ] || misused "--json goes with output."
[ -z "$file" ] || [ -f "$file" ] || misused "There is no plan '$file'."
need terraform jq

# Terraform works in its own directory: a file that is named here is meant from here.
from_here() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }

terraform_in() { change terraform -chdir="$TERRAFORM_DIR" "$@"; }

# initialise: with the backend of this environment, whichever was used before.
initialise() {
    local backend=(-backend-config="envs/$ENVIRONMENT.s3.tfbackend")
    [ -z "${STATE_BUCKET:-}" ] || backend+=(-backend-config="bucket=$STATE_BUCKET")
    [ -z "${LOCK_TABLE:-}" ] || backend+=(-backend-config="dynamodb_table=$LOCK_TABLE")
    # The role that pull requests plan with may read there.
    [ -z "${STATE_BUCKET:-}" ] || export TF_VAR_state_bucket=$STATE_BUCKET
    [ -z "${LOCK_TABLE:-}" ] || export TF_VAR_lock_table=$LOCK_TABLE
    [ -z "${STATE_REGION:-}" ] || backend+=(-backend-config="region=$STATE_REGION")
    terraform_in init -input=false -reconfigure "${backend[@]}" >&2
}

# Terraform wants a value for every variable: secrets that nobody gave get one that goes nowhere.
missing=()
for index in "${!secrets[@]}"; do
    [ -z "${!secrets[index]:-}" ] || continue
    missing+=("$index")
    export "${secrets[index]}=${stand_ins[index]}"
done

# plan_says FILTER PLAN: what a plan says of itself.
plan_says() { terraform -chdir="$TERRAFORM_DIR" show -json "$2" | jq -r "$1"; }

# sends_secrets PLAN: whether it makes something with a write-only value, or changes the version of one.
sends_secrets() {
    # shellcheck disable=SC2016 # the dollars are jq's
    [ "$(plan_says '[.resource_changes[]?.change | . as $change | .after // {} | to_entries[]
        | select((.key | endswith("_wo_version")) and .value != null)
        | select(($change.actions | index("create")) or $change.before[.key] != .value)] | length' "$1")" != 0 ]
}

# ask_for_secrets PLAN: when it sends them and they were not given.
ask_for_secrets() {
    local index
    [ ${#missing[@]} -gt 0 ] && sends_secrets "$1" || return 0
    for index in "${missing[@]}"; do
        if [ "$yes" = yes ] || [ ! -t 0 ]; then
            die "$EXIT_PREFLIGHT" "This sends secrets, ${secrets[index]} is not set, and there is nobody to ask. See $SCRIPT --help."
        fi
        read -rsp "${described[index]} (shows nothing): " "${secrets[index]?}"
        say
        [ -n "${!secrets[index]}" ] || die "$EXIT_DECLINED" "Nothing was given, so nothing was done."
    done
}

# confirm WORD QUESTION: goes on only when the word is typed.
confirm() {
    local typed=
    printf '%s Type %s to go on: ' "$2" "$1" >&2
    read -r typed || true
    [ "$typed" = "$1" ] || die "$EXIT_DECLINED" "That was not '$1', so nothing was done."
}

confirm_destruction() {
    ! grep -Eq '^creates_account_resources *= *true' "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" ||
        warn "$ENVIRONMENT made what the account has once (image repository, GitHub's identity provider, budget): others lose them too."
    if [ "$ENVIRONMENT" = production ]; then
        say "${RED}This removes everything in production$PLAIN: service, load balancer, network, database and its automated backups.
Deletion protection must be off: set deletion_protection = false in envs/production.tfvars and apply that first, or this
stops half-way. Without protection there is no final snapshot either: take one with scripts/db.sh first."
        confirm production 'There is no way back.'
    elif [ "$yes" = no ]; then
        confirm "$ENVIRONMENT" "Everything in $ENVIRONMENT goes, its database too."
    fi
}

# make_plan ARGUMENT...: sets outcome to 0 when there is nothing to do and to 2 when there is.
make_plan() {
    outcome=0
    terraform_in plan -input=false -detailed-exitcode "${variables[@]}" "$@" "${passed[@]}" || outcome=$?
    case $outcome in 0 | 2) ;; *) exit "$EXIT_FAILED" ;; esac
}

variables=(-var-file="envs/$ENVIRONMENT.tfvars")
# Terraform's hints on what to run next are not ours.
export TF_IN_AUTOMATION=yes
# Nor does it look whether anybody sees its colours.
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then
    export TF_CLI_ARGS="${TF_CLI_ARGS:-} -no-color"
fi
[ "$command" != apply ] || [ -z "$file" ] || file=$(from_here "$file")
initialise

case $command in
    plan)
        [ -z "$out" ] || out=$(from_here "$out")
        make_plan ${out:+-out="$out"}
        [ -z "$out" ] || [ "$DRY_RUN" = yes ] || say "To do exactly this: scripts/$SCRIPT $ENVIRONMENT apply $out"
        ;;
    apply)
        if [ -z "$file" ]; then
            file=$WORK/plan
            make_plan -out="$file"
            [ "$outcome" = 2 ] || [ "$DRY_RUN" = yes ] || exit 0
        elif [ "$DRY_RUN" = no ]; then
            # A plan knows its own backend, and would go there whatever environment is named.
            planned=$(plan_says '.variables.environment.value' "$file") || die "$file can't be read as a plan for what is described now."
            [ "$planned" = "$ENVIRONMENT" ] || misused "$file is a plan for $planned, not for $ENVIRONMENT."
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
        [ "$outcome" = 0 ] || die "$EXIT_DRIFT" "$ENVIRONMENT is not as described; the plan above says where."
        [ "$DRY_RUN" = yes ] || done_with "$ENVIRONMENT is as described"
        ;;
esac
