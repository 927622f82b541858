#!/usr/bin/env bash
# Configures a GitHub repository for the workflow: environments, reviewers, variables, secrets. Can be run again.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/github.sh"

# Where each value is stored. NAME=VARIABLE sets NAME on GitHub to the value of VARIABLE here; NAME alone uses the same name.
readonly REPOSITORY_VARIABLES=(AWS_REGION CPU_ARCHITECTURE AWS_PLAN_ROLE_ARN PROP_URL STATE_BUCKET LOCK_TABLE STATE_REGION)
readonly REPOSITORY_SECRETS=(AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY SLACK_WEBHOOK)
readonly STAGING_VARIABLES=(AWS_ROLE_ARN=STAGING_ROLE_ARN APP_URL=STAGING_URL)
readonly PRODUCTION_VARIABLES=(AWS_ROLE_ARN=PRODUCTION_ROLE_ARN APP_URL=PRODUCTION_URL)
# Only jobs of an environment can read its secrets, and only jobs on the deployment branch can use the environment. Staging has
# the key for approvals too: when production is rejected, its job never starts, and a job in staging records the rejection.
readonly ENVIRONMENT_SECRETS=(PROP_KEY=PIPELINE_KEY PROP_MIRROR_KEY=MIRROR_KEY)
# Images are scanned in a job of staging. Jobs of production cannot read the key for scans.
readonly STAGING_SECRETS=(PROP_ATTEST_KEY=ATTEST_KEY)

usage() {
    cat <<END
Usage: scripts/setup-github.sh [OPTION]... [OWNER/REPOSITORY]
Configure a GitHub repository for .github/workflows/ci-cd.yml.

The script creates or corrects the environments staging and production, both limited to one branch; the required reviewers of
production, who cannot approve their own runs; variables and secrets; and, with --webhook, the webhook that reports deployments
to prop. It does not change anything else. Without OWNER/REPOSITORY, it uses the repository of the git remote "origin". It needs
curl, jq and python3. PyNaCl, which encrypts the secrets, is installed into .venv/setup.

Options:
  --reviewer NAME  user, or team as ORGANISATION/TEAM, who may approve production; up to six times
  --no-reviewers   do not require reviewers. On GitHub's free plans, required reviewers work in public repositories only.
                   prop's gate still requires an approval, given in prop
  --webhook        also create or correct the webhook of the repository; needs PROP_URL and, to create it, WEBHOOK_SECRET
  --branch NAME    branch that may be deployed (default: the repository's default branch)
  --check          change nothing, and report what is missing or different
  --dry-run        print what would be changed, without changing it
  -h, --help       print this help

Environment:
  GITHUB_TOKEN                              token that may administer the repository, its environments, variables, secrets
                                            and, for --webhook, webhooks
  GITHUB_API_URL                            address of GitHub's API (default: https://api.github.com)
  The following values are stored on GitHub. A value that is not set here is not changed there.
  AWS_REGION, PROP_URL                      variables of the repository
  CPU_ARCHITECTURE                          variable of the repository: X86_64 or ARM64, as cpu_architecture in Terraform
  STATE_BUCKET, LOCK_TABLE, STATE_REGION    variables of the repository, as for bootstrap.sh
  STAGING_ROLE_ARN, PRODUCTION_ROLE_ARN     variables of the environments: roles to assume with OIDC
  STAGING_URL, PRODUCTION_URL               variables of the environments: address of the service (default: the load balancer's)
  AWS_PLAN_ROLE_ARN                         variable of the repository: read-only role for plans in pull requests
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY  secrets of the repository, if there are no roles
  SLACK_WEBHOOK                             secret of the repository
  PIPELINE_KEY, MIRROR_KEY                  secrets of the environments: keys for prop, as setup-ledger.sh --keys prints them
  ATTEST_KEY                                secret of staging: key for prop, as setup-ledger.sh --keys prints it
  WEBHOOK_SECRET                            secret of the webhook, for --webhook; prop must have the same

Examples:
  scripts/setup-github.sh --reviewer alice --reviewer acme/platform
  scripts/setup-github.sh acme/prop --check

Exit codes:
  0  the repository is configured
  1  GitHub rejected a request
  2  wrong argument
  3  a tool or the token is missing
  4  --check found a difference
END
}

readonly EXIT_DIFFERS=4
repository='' branch='' check=no reviewers=() without_reviewers=no webhook=no
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --check) check=yes ;;
        --dry-run) DRY_RUN=yes ;;
        --no-reviewers) without_reviewers=yes ;;
        --webhook) webhook=yes ;;
        --reviewer | --branch)
            [ -n "${2:-}" ] || missing_value "$1"
            if [ "$1" = --branch ]; then branch=$2; else reviewers+=("$2"); fi
            shift
            ;;
        -*) unknown_option "$1" ;;
        */*)
            [ -z "$repository" ] || unexpected_argument "$1"
            repository=$1
            ;;
        *) usage_error "'$1' is not a repository; write OWNER/REPOSITORY." ;;
    esac
    shift
done
[ ${#reviewers[@]} -le 6 ] || usage_error "GitHub allows at most six reviewers."
[ ${#reviewers[@]} = 0 ] || [ "$without_reviewers" = no ] || usage_error "--reviewer and --no-reviewers cannot be combined."
[[ ${CPU_ARCHITECTURE:-X86_64} =~ ^(X86_64|ARM64)$ ]] || usage_error "CPU_ARCHITECTURE must be X86_64 or ARM64."
require_tools curl jq python3
[ "$webhook" = no ] || [ -n "${PROP_URL:-}" ] || die "$EXIT_PREFLIGHT" "The variable PROP_URL is not set; --webhook needs it."
[ -n "${GITHUB_TOKEN:-}" ] || die "$EXIT_PREFLIGHT" "The variable GITHUB_TOKEN is not set. It must be a token that may administer the repository."
[ -n "$repository" ] || repository=$(origin_repository)
[ -n "$repository" ] || missing_argument "OWNER/REPOSITORY; the git remote \"origin\" is not on GitHub"

differences=0

# fix_difference MESSAGE COMMAND...: runs the command to correct a setting. With --check or --dry-run, prints the message only.
fix_difference() {
    local message=$1
    shift
    differences=$((differences + 1))
    if [ "$check" = yes ]; then
        warn "$message"
    elif [ "$DRY_RUN" = yes ]; then
        info "would fix: $message"
    else
        "$@"
        success "fixed: $message"
    fi
}

# github_get PATH: a GET request for something that may not exist.
github_get() {
    github_request GET "$1"
    case $status in
        200 | 404) ;;
        *) die "GET $1: $(github_error)" ;;
    esac
}

# --- Environments

# reviewer_ids: prints the reviewers with their ids, as a JSON list.
reviewer_ids() {
    local name type
    for name in "${reviewers[@]}"; do
        if [[ $name == */* ]]; then
            type=Team
            github_must GET "/orgs/${name%%/*}/teams/${name#*/}"
        else
            type=User
            github_must GET "/users/$name"
        fi
        jq -c --arg type "$type" '{type: $type, id}' <<<"$answer"
    done | jq -sc 'sort_by(.type, .id)'
}

# environment NAME REVIEWERS_JSON: creates the environment or corrects its rules.
environment() {
    local path="/repos/$repository/environments/$1" wanted found
    wanted=$(jq -nc --argjson reviewers "$2" '{wait_timer: 0, prevent_self_review: ($reviewers != []), reviewers: $reviewers,
        deployment_branch_policy: {protected_branches: false, custom_branch_policies: true}}')
    github_get "$path"
    if [ "$status" = 404 ]; then
        fix_difference "The environment $1 does not exist." put_environment "$path" "$wanted"
    else
        found=$(jq -c '(.protection_rules // []) as $rules | ($rules | map(select(.type == "required_reviewers")) | first) as $review
            | {wait_timer: ($rules | map(.wait_timer // empty) | first // 0), prevent_self_review: ($review.prevent_self_review // false),
                reviewers: ($review.reviewers // [] | map({type, id: .reviewer.id}) | sort_by(.type, .id)), deployment_branch_policy}' <<<"$answer")
        # The wait timer stays as it is.
        wanted=$(jq -c --argjson found "$found" '.wait_timer = $found.wait_timer' <<<"$wanted")
        [ "$(jq -S . <<<"$found")" = "$(jq -S . <<<"$wanted")" ] ||
            fix_difference "The environment $1 has different rules: $(different "$found" "$wanted")." put_environment "$path" "$wanted"
    fi
    branches "$1" "$path/deployment-branch-policies"
}

# different FOUND WANTED: prints the fields that differ.
different() {
    jq -rn --argjson found "$1" --argjson wanted "$2" '[$wanted | to_entries[] | select($found[.key] != .value)
        | "\(.key) is \($found[.key] | tojson), not \(.value | tojson)"] | join("; ")'
}

put_environment() {
    github_request PUT "$1" "$2"
    case $status in
        200) ;;
        422) die "GitHub rejected the rules of ${1##*/}: $(github_error). On the plans Free, Pro and Team, required reviewers need a public repository. Use --no-reviewers to do without them." ;;
        *) die "PUT $1: $(github_error)" ;;
    esac
}

# branches ENVIRONMENT PATH: allows deployments of the branch only.
branches() {
    local more id
    github_get "$2"
    if ! jq -e --arg branch "$branch" 'any(.branch_policies[]?; .name == $branch)' <<<"$answer" >/dev/null; then
        more=$answer
        fix_difference "The branch $branch is not allowed to deploy to $1." github_must POST "$2" "$(jq -nc --arg name "$branch" '{name: $name, type: "branch"}')"
        answer=$more
    fi
    while read -r id more; do
        fix_difference "The branch pattern '$more' is allowed to deploy to $1." github_must DELETE "$2/$id"
    done < <(jq -r --arg branch "$branch" '.branch_policies[]? | select(.name != $branch) | "\(.id) \(.name)"' <<<"$answer")
}

# --- Variables and secrets

# variables WHERE PATH NAME...: creates or updates variables.
variables() {
    local where=$1 path=$2 entry name value
    for entry in "${@:3}"; do
        name=${entry%%=*} value=${entry##*=}
        value=${!value:-}
        github_get "$path/$name"
        if [ "$status" = 404 ]; then
            [ -n "$value" ] || continue # each variable is optional
            fix_difference "$where has no variable $name." github_must POST "$path" "$(body_of "$name" "$value")"
        elif [ -n "$value" ] && [ "$(jq -r .value <<<"$answer")" != "$value" ]; then
            fix_difference "The variable $name of $where is '$(jq -r .value <<<"$answer")', not '$value'." github_must PATCH "$path/$name" "$(body_of "$name" "$value")"
        fi
    done
}

body_of() { jq -nc --arg name "$1" --arg value "$2" '{name: $name, value: $value}'; }

# secrets WHERE PATH NAME...: creates or updates secrets. Their values cannot be read, so a given secret is always written.
secrets() {
    local where=$1 path=$2 entry name value
    for entry in "${@:3}"; do
        name=${entry%%=*} value=${entry##*=}
        value=${!value:-}
        github_get "$path/$name"
        if [ "$status" = 404 ] && [ -n "$value" ]; then
            fix_difference "$where has no secret $name." put_secret "$path" "$name" "$value"
        elif [ "$status" = 200 ] && [ -n "$value" ] && [ "$check" = no ]; then
            fix_difference "The secret $name of $where is overwritten with the given value." put_secret "$path" "$name" "$value"
        fi
    done
}

put_secret() {
    local key
    github_must GET "$1/public-key"
    key=$answer
    github_must PUT "$1/$2" "$(printf %s "$3" | seal "$(jq -r .key <<<"$key")" |
        jq -Rc --argjson key "$key" '{encrypted_value: ., key_id: $key.key_id}')"
}

# seal PUBLIC_KEY: prints standard input, encrypted. Installs PyNaCl on first use.
seal() {
    local python=python3
    if ! python3 -c 'import nacl' 2>/dev/null; then
        python=$ROOT/.venv/setup/bin/python
        "$python" -c 'import nacl' 2>/dev/null || {
            python3 -m venv "$ROOT/.venv/setup" &&
                "$ROOT/.venv/setup/bin/pip" install --quiet --disable-pip-version-check -r "$ROOT/scripts/lib/requirements.txt"
        } >&2 || die "$EXIT_PREFLIGHT" "Cannot install PyNaCl, which encrypts the secrets. See scripts/lib/requirements.txt."
    fi
    "$python" "$ROOT/scripts/lib/seal.py" "$1"
}

# --- The webhook

# find_webhook URL: sets `found` to the repository's webhook for that address, or to nothing if there is none.
find_webhook() {
    local page=1
    found=''
    while [ -z "$found" ]; do
        github_must GET "/repos/$repository/hooks?per_page=100&page=$page"
        found=$(jq -c --arg url "$1" 'first(.[] | select(.config.url == $url)) // empty' <<<"$answer")
        [ "$(jq length <<<"$answer")" = 100 ] || break
        page=$((page + 1))
    done
}

# with_secret JSON: prints it with the secret, if one is given. The secret is read from the environment, because everybody on the
# machine can read a command line.
with_secret() { jq -c 'if (env.WEBHOOK_SECRET // "") == "" then . else .secret = env.WEBHOOK_SECRET end' <<<"$1"; }

# webhook: creates or corrects the webhook. Its secret cannot be read, so a given one is always written. Settings are changed
# without `config` and `config` by itself, because GitHub removes the secret of a webhook that gets a whole new `config`.
webhook() {
    local url=${PROP_URL%/}/webhooks/github found path differs config='{"content_type": "json", "insecure_ssl": "0"}'
    local settings='{"active": true, "events": ["deployment", "deployment_status", "workflow_run"]}'
    find_webhook "$url"
    if [ -z "$found" ]; then
        [ "$check" = yes ] || [ -n "${WEBHOOK_SECRET:-}" ] ||
            die "$EXIT_PREFLIGHT" "The variable WEBHOOK_SECRET is not set. A new webhook needs the secret that prop has."
        fix_difference "The repository has no webhook for $url." github_must POST "/repos/$repository/hooks" \
            "$(jq -nc --argjson settings "$settings" --arg url "$url" --slurpfile config <(with_secret "$config") \
                '$settings + {name: "web", config: ($config[0] + {url: $url})}')"
        return
    fi
    path=/repos/$repository/hooks/$(jq .id <<<"$found")
    differs=$(different "$(jq -c '.events |= sort' <<<"$found")" "$settings")
    [ -z "$differs" ] || fix_difference "The webhook has other settings: $differs." github_must PATCH "$path" "$settings"
    differs=$(different "$(jq -c .config <<<"$found")" "$config")
    if [ -n "$differs" ]; then
        fix_difference "The webhook has other settings: $differs." github_must PATCH "$path/config" "$(with_secret "$config")"
    elif [ -n "${WEBHOOK_SECRET:-}" ] && [ "$check" = no ]; then
        fix_difference "The secret of the webhook is overwritten with the given value." \
            github_must PATCH "$path/config" "$(with_secret '{}')"
    fi
}

# check_missing: reports missing settings without which parts of the workflow do not work.
check_missing() {
    local what
    for what in "staging AWS_ROLE_ARN" "production AWS_ROLE_ARN"; do
        github_get "/repos/$repository/environments/${what% *}/variables/${what#* }"
        [ "$status" = 404 ] || continue
        github_get "/repos/$repository/actions/secrets/AWS_ACCESS_KEY_ID"
        [ "$status" = 200 ] || fix_difference "There is no AWS access for ${what% *}: set its role (OIDC), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." :
    done
    github_get "/repos/$repository/actions/variables/PROP_URL"
    [ "$status" = 200 ] || {
        fix_difference "PROP_URL is missing: deployments are not recorded in prop." :
        return
    }
    for what in staging production; do
        github_get "/repos/$repository/environments/$what/secrets/PROP_KEY"
        [ "$status" = 200 ] || fix_difference "PROP_KEY is missing in $what: deployments are not recorded in prop." :
        github_get "/repos/$repository/environments/$what/secrets/PROP_MIRROR_KEY"
        [ "$status" = 200 ] || fix_difference "PROP_MIRROR_KEY is missing in $what: GitHub's approvals are not copied to prop, so its gate does not count them." :
    done
    github_get "/repos/$repository/environments/staging/secrets/PROP_ATTEST_KEY"
    [ "$status" = 200 ] || fix_difference "PROP_ATTEST_KEY is missing in staging: scans are reported with PROP_KEY, which then needs the scope attest and can pass the gate's scan by itself." :
}

github_must GET "/repos/$repository"
[ -n "$branch" ] || branch=$(jq -r .default_branch <<<"$answer")
is_private=$(jq -r .private <<<"$answer")
step "Configuring $repository for deployments from $branch"
if [ ${#reviewers[@]} = 0 ] && [ "$without_reviewers" = no ]; then
    # Existing reviewers stay.
    github_get "/repos/$repository/environments/production"
    reviewer_list=$(jq -c '[.protection_rules[]? | select(.type == "required_reviewers") | .reviewers[] | {type, id: .reviewer.id}] | sort_by(.type, .id)' <<<"$answer")
    [ "$reviewer_list" != '[]' ] || [ "$check" = yes ] || usage_error "missing reviewers of production; use --reviewer NAME or --no-reviewers."
    [ "$reviewer_list" != '[]' ] || fix_difference "production has no reviewers: runs deploy to it without an approval." :
else
    reviewer_list=$(reviewer_ids)
fi
[ "$is_private" = false ] || [ "$reviewer_list" = '[]' ] ||
    warn "$repository is private: required reviewers work in private repositories on GitHub Enterprise only."

[ "$webhook" = no ] || webhook # first, because it may be refused for want of the secret
environment staging '[]'
environment production "$reviewer_list"
variables "the repository" "/repos/$repository/actions/variables" "${REPOSITORY_VARIABLES[@]}"
secrets "the repository" "/repos/$repository/actions/secrets" "${REPOSITORY_SECRETS[@]}"
variables staging "/repos/$repository/environments/staging/variables" "${STAGING_VARIABLES[@]}"
variables production "/repos/$repository/environments/production/variables" "${PRODUCTION_VARIABLES[@]}"
for name in staging production; do
    secrets "$name" "/repos/$repository/environments/$name/secrets" "${ENVIRONMENT_SECRETS[@]}"
done
secrets staging "/repos/$repository/environments/staging/secrets" "${STAGING_SECRETS[@]}"
[ "$check" = no ] || check_missing

if [ "$check" = yes ] && [ "$differences" -gt 0 ]; then
    die "$EXIT_DIFFERS" "$repository is not configured completely: $differences differences found. Run the script without --check to fix them."
fi
if [ "$DRY_RUN" = yes ]; then
    success "Dry run: nothing was changed."
else
    success "$repository is configured."
fi
