# shellcheck shell=bash
# Runs Terraform for the environment that use_environment has named. Source it after common.sh.
# shellcheck disable=SC2034 # the calling script reads the variables that are set here

# The secrets that Terraform sends to AWS without storing them: their variables, a prompt for each, and placeholders for commands
# that do not send them. The last has a version of its own; secrets_version is that of the others.
secrets=(TF_VAR_database_password TF_VAR_database_app_password TF_VAR_bootstrap_key TF_VAR_github_webhook_secret)
prompts=("The password of the database's owner, 16 to 128 characters" "The password of the role that prop serves with, 16 to 128 characters"
    "prop's first admin key, as 'prop key generate' prints it" "The secret of GitHub's webhooks, 16 to 200 characters")
placeholders=(not-sent-anywhere-by-this-command not-sent-anywhere-by-this-command prop_000000000000000000000000000000000000
    not-sent-anywhere-by-this-command)

terraform_in() { run_or_print terraform -chdir="$TERRAFORM_DIR" "$@"; }

# use_backend VARIABLE SETTING [VALUE]: exports the value, or else the setting in the backend's file, if there is one.
use_backend() {
    local value=${3:-} file=$TERRAFORM_DIR/envs/$ENVIRONMENT.s3.tfbackend
    [ -n "$value" ] || [ ! -f "$file" ] || value=$(sed -n "s/^$2 *= *\"\([^\"]*\)\".*/\1/p" "$file")
    [ -z "$value" ] || export "$1=$value"
}

# initialise: initialises Terraform with the backend of this environment, sets `variables` to the arguments that name its
# variables, and `missing` to the indexes of the secrets that are not set. Those get a placeholder, because Terraform needs a
# value for every variable.
initialise() {
    local backend=(-backend-config="envs/$ENVIRONMENT.s3.tfbackend") index
    variables=(-var-file="envs/$ENVIRONMENT.tfvars") missing=()
    for index in "${!secrets[@]}"; do
        [ -z "${!secrets[index]:-}" ] || continue
        missing+=("$index")
        export "${secrets[index]}=${placeholders[index]}"
    done
    [ -z "${STATE_BUCKET:-}" ] || backend+=(-backend-config="bucket=$STATE_BUCKET")
    [ -z "${LOCK_TABLE:-}" ] || backend+=(-backend-config="dynamodb_table=$LOCK_TABLE")
    [ -z "${STATE_REGION:-}" ] || backend+=(-backend-config="region=$STATE_REGION")
    # Terraform lets the role for pull requests read this bucket and table.
    use_backend TF_VAR_state_bucket bucket "${STATE_BUCKET:-}"
    use_backend TF_VAR_lock_table dynamodb_table "${LOCK_TABLE:-}"
    use_backend TF_VAR_state_region region "${STATE_REGION:-}"
    # Terraform's hints on what to run next do not apply here.
    export TF_IN_AUTOMATION=yes
    # Terraform prints colours even if standard output is not a terminal.
    if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then
        export TF_CLI_ARGS="${TF_CLI_ARGS:-} -no-color"
    fi
    terraform_in init -input=false -reconfigure "${backend[@]}" >&2
}

# plan_query FILTER PLAN: prints a part of the plan, selected by a jq filter.
plan_query() { terraform -chdir="$TERRAFORM_DIR" show -json "$2" | jq -r "$1"; }
