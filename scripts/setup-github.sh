#!/usr/bin/env bash
# Makes a GitHub repository ready for the workflow: environments, reviewers, variables, secrets. Safe to run twice.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/github.sh
source "$(dirname "$0")/github.sh"

# What is kept where. name=VARIABLE takes its value from the VARIABLE here; a name alone from its own.
readonly REPOSITORY_VARIABLES=(AWS_REGION AWS_PLAN_ROLE_ARN PROP_URL STATE_BUCKET LOCK_TABLE STATE_REGION)
readonly REPOSITORY_SECRETS=(AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY SLACK_WEBHOOK)
readonly STAGING_VARIABLES=(AWS_ROLE_ARN=STAGING_ROLE_ARN APP_URL=STAGING_URL)
readonly PRODUCTION_VARIABLES=(AWS_ROLE_ARN=PRODUCTION_ROLE_ARN APP_URL=PRODUCTION_URL)
# Only jobs of an environment see its secrets, and only those of the branch get that far. Staging has the key for approvals
# too: a rejection is told by a job there, for the one in production never starts.
readonly ENVIRONMENT_SECRETS=(PROP_KEY=PIPELINE_KEY PROP_MIRROR_KEY=MIRROR_KEY)

usage() {
    cat <<END
Usage: scripts/setup-github.sh [OWNER/REPOSITORY] [OPTION]...

Makes what .github/workflows/ci-cd.yml needs in the repository (that of the remote origin, if not said): the environments
staging and production, both for one branch only; production with required reviewers, of whom nobody can approve a run of
their own; variables and secrets. What is there already and right stays; what isn't named here is not touched.

  --reviewer NAME   who may approve production: a login, or a team as ORGANISATION/TEAM; up to six times
  --no-reviewers    nobody: on GitHub's free plans required reviewers work in public repositories only. prop's own gate
                    still wants an approval, given there
  --branch NAME     the branch that may be deployed; the repository's default branch, if not said
  --check           change nothing; report what is missing or different, and end with 4 if something is
  --dry-run         change nothing; print what would be changed
  --help            this

Values come from the environment; one that isn't set is left as it is on GitHub:

  AWS_REGION, PROP_URL                       variables of the repository
  STAGING_ROLE_ARN, PRODUCTION_ROLE_ARN      variables of the environments: the roles to assume by OIDC
  STAGING_URL, PRODUCTION_URL                the same: where the service answers, if not at its load balancer's own name
  AWS_PLAN_ROLE_ARN                          variable of the repository: a read-only role, for plans in pull requests
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY   secrets of the repository, for want of roles
  SLACK_WEBHOOK                              secret of the repository
  PIPELINE_KEY, MIRROR_KEY                   secrets of the environments: prop's keys, as setup-ledger.sh --keys prints them

and GITHUB_TOKEN: a token that may administer the repository, its environments, secrets and variables; GITHUB_API_URL, for a
GitHub of one's own. Needs curl, jq and python3; PyNaCl, which encrypts the secrets, is installed into .venv/setup.

Examples:

  scripts/setup-github.sh --reviewer alice --reviewer acme/platform
  scripts/setup-github.sh acme/prop --check

Exit codes: 0 it is so; 1 GitHub refused; 2 an argument is wrong; 3 a tool or the token is missing; 4 --check found something.
END
}

readonly EXIT_DIFFERS=4
repository='' branch='' check=no reviewers=() without_reviewers=no
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --check) check=yes ;;
        --dry-run) DRY_RUN=yes ;;
        --no-reviewers) without_reviewers=yes ;;
        --reviewer | --branch)
            [ -n "${2:-}" ] || misused "$1 wants a name."
            if [ "$1" = --branch ]; then branch=$2; else reviewers+=("$2"); fi
            shift
            ;;
        -*) misused "There is no option '$1'." ;;
        */*)
            [ -z "$repository" ] || misused "'$1' is one argument too many."
            repository=$1
            ;;
        *) misused "'$1' is not a repository: OWNER/REPOSITORY." ;;
    esac
    shift
done
[ ${#reviewers[@]} -le 6 ] || misused "GitHub takes six reviewers at most."
[ ${#reviewers[@]} = 0 ] || [ "$without_reviewers" = no ] || misused "--reviewer and --no-reviewers contradict each other."
need curl jq python3
[ -n "${GITHUB_TOKEN:-}" ] || die "$EXIT_PREFLIGHT" "GITHUB_TOKEN is not set: a token that may administer the repository."
[ -n "$repository" ] || repository=$(origin_repository)
[ -n "$repository" ] || misused "Which repository? There is no remote origin that tells."

differences=0

# differs SENTENCE COMMAND...: something is not as it should be; mends it, unless only looking.
differs() {
    local sentence=$1
    shift
    differences=$((differences + 1))
    if [ "$check" = yes ]; then
        warn "$sentence"
    elif [ "$DRY_RUN" = yes ]; then
        say "would mend: $sentence"
    else
        "$@"
        done_with "mended: $sentence"
    fi
}

# look PATH: GET of what may not be there.
look() {
    github GET "$1"
    case $status in
        200 | 404) ;;
        *) die "GET $1: $(github_said)" ;;
    esac
}

# --- Environments

# reviewer_ids: the reviewers as GitHub wants them, as a JSON list.
reviewer_ids() {
    local name type
    for name in "${reviewers[@]}"; do
        if [[ $name == */* ]]; then
            type=Team
            ask GET "/orgs/${name%%/*}/teams/${name#*/}"
        else
            type=User
            ask GET "/users/$name"
        fi
        jq -c --arg type "$type" '{type: $type, id}' <<<"$answer"
    done | jq -sc 'sort_by(.type, .id)'
}

# environment NAME REVIEWERS_JSON
environment() {
    local path="/repos/$repository/environments/$1" wanted found
    wanted=$(jq -nc --argjson reviewers "$2" '{wait_timer: 0, prevent_self_review: ($reviewers != []), reviewers: $reviewers,
        deployment_branch_policy: {protected_branches: false, custom_branch_policies: true}}')
    look "$path"
    if [ "$status" = 404 ]; then
        differs "There is no environment $1." put_environment "$path" "$wanted"
    else
        found=$(jq -c '(.protection_rules // []) as $rules | ($rules | map(select(.type == "required_reviewers")) | first) as $review
            | {wait_timer: ($rules | map(.wait_timer // empty) | first // 0), prevent_self_review: ($review.prevent_self_review // false),
                reviewers: ($review.reviewers // [] | map({type, id: .reviewer.id}) | sort_by(.type, .id)), deployment_branch_policy}' <<<"$answer")
        # How long it waits is not ours to say.
        wanted=$(jq -c --argjson found "$found" '.wait_timer = $found.wait_timer' <<<"$wanted")
        [ "$(jq -S . <<<"$found")" = "$(jq -S . <<<"$wanted")" ] ||
            differs "The environment $1 has other rules: $(different "$found" "$wanted")." put_environment "$path" "$wanted"
    fi
    branches "$1" "$path/deployment-branch-policies"
}

# different FOUND WANTED: in which fields, in words.
different() {
    jq -rn --argjson found "$1" --argjson wanted "$2" '[$wanted | to_entries[] | select($found[.key] != .value)
        | "\(.key) is \($found[.key] | tojson), not \(.value | tojson)"] | join("; ")'
}

put_environment() {
    github PUT "$1" "$2"
    case $status in
        200) ;;
        422) die "GitHub refuses the rules of ${1##*/}: $(github_said). Required reviewers need a public repository on the plans Free, Pro and Team; --no-reviewers goes without them." ;;
        *) die "PUT $1: $(github_said)" ;;
    esac
}

# branches ENVIRONMENT PATH: only the branch may be deployed there.
branches() {
    local more id
    look "$2"
    if ! jq -e --arg branch "$branch" 'any(.branch_policies[]?; .name == $branch)' <<<"$answer" >/dev/null; then
        more=$answer
        differs "$branch may not be deployed to $1." ask POST "$2" "$(jq -nc --arg name "$branch" '{name: $name, type: "branch"}')"
        answer=$more
    fi
    while read -r id more; do
        differs "'$more' may be deployed to $1." ask DELETE "$2/$id"
    done < <(jq -r --arg branch "$branch" '.branch_policies[]? | select(.name != $branch) | "\(.id) \(.name)"' <<<"$answer")
}

# --- Variables and secrets

# variables WHERE PATH NAME...
variables() {
    local where=$1 path=$2 entry name value
    for entry in "${@:3}"; do
        name=${entry%%=*} value=${entry##*=}
        value=${!value:-}
        look "$path/$name"
        if [ "$status" = 404 ]; then
            [ -n "$value" ] || continue # nothing to set, and not everybody needs each of them
            differs "$where has no variable $name." ask POST "$path" "$(body_of "$name" "$value")"
        elif [ -n "$value" ] && [ "$(jq -r .value <<<"$answer")" != "$value" ]; then
            differs "The variable $name of $where is '$(jq -r .value <<<"$answer")', not '$value'." ask PATCH "$path/$name" "$(body_of "$name" "$value")"
        fi
    done
}

body_of() { jq -nc --arg name "$1" --arg value "$2" '{name: $name, value: $value}'; }

# secrets WHERE PATH NAME...: what a secret is can't be read, so one that is given is always written.
secrets() {
    local where=$1 path=$2 entry name value
    for entry in "${@:3}"; do
        name=${entry%%=*} value=${entry##*=}
        value=${!value:-}
        look "$path/$name"
        if [ "$status" = 404 ] && [ -n "$value" ]; then
            differs "$where has no secret $name." put_secret "$path" "$name" "$value"
        elif [ "$status" = 200 ] && [ -n "$value" ] && [ "$check" = no ]; then
            differs "The secret $name of $where is written again." put_secret "$path" "$name" "$value"
        fi
    done
}

put_secret() {
    local key
    ask GET "$1/public-key"
    key=$answer
    ask PUT "$1/$2" "$(printf %s "$3" | seal "$(jq -r .key <<<"$key")" |
        jq -Rc --argjson key "$key" '{encrypted_value: ., key_id: $key.key_id}')"
}

# seal PUBLIC_KEY: standard input, encrypted. PyNaCl is installed when it is first needed.
seal() {
    local python=python3
    if ! python3 -c 'import nacl' 2>/dev/null; then
        python=$ROOT/.venv/setup/bin/python
        "$python" -c 'import nacl' 2>/dev/null || {
            python3 -m venv "$ROOT/.venv/setup" &&
                "$ROOT/.venv/setup/bin/pip" install --quiet --disable-pip-version-check -r "$ROOT/scripts/requirements.txt"
        } >&2 || die "$EXIT_PREFLIGHT" "PyNaCl can't be installed, which encrypts the secrets: see scripts/requirements.txt."
    fi
    "$python" "$ROOT/scripts/seal.py" "$1"
}

# complain: of what the workflow can do without only in part, whether its value is given here or not.
complain() {
    local what
    for what in "staging AWS_ROLE_ARN" "production AWS_ROLE_ARN"; do
        look "/repos/$repository/environments/${what% *}/variables/${what#* }"
        [ "$status" = 404 ] || continue
        look "/repos/$repository/actions/secrets/AWS_ACCESS_KEY_ID"
        [ "$status" = 200 ] || differs "There is no AWS access for ${what% *}: set ${what% *}'s role (OIDC), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." :
    done
    look "/repos/$repository/actions/variables/PROP_URL"
    [ "$status" = 200 ] || {
        differs "There is no PROP_URL: deployments are not recorded." :
        return
    }
    for what in staging production; do
        look "/repos/$repository/environments/$what/secrets/PROP_KEY"
        [ "$status" = 200 ] || differs "There is no PROP_KEY in $what: deployments are not recorded." :
        look "/repos/$repository/environments/$what/secrets/PROP_MIRROR_KEY"
        [ "$status" = 200 ] || differs "There is no PROP_MIRROR_KEY in $what: approvals are not mirrored, and prop's gate does not see them." :
    done
}

ask GET "/repos/$repository"
[ -n "$branch" ] || branch=$(jq -r .default_branch <<<"$answer")
is_private=$(jq -r .private <<<"$answer")
step "$repository: deployments from $branch"
if [ ${#reviewers[@]} = 0 ] && [ "$without_reviewers" = no ]; then
    # Those who are there stay.
    look "/repos/$repository/environments/production"
    reviewer_list=$(jq -c '[.protection_rules[]? | select(.type == "required_reviewers") | .reviewers[] | {type, id: .reviewer.id}] | sort_by(.type, .id)' <<<"$answer")
    [ "$reviewer_list" != '[]' ] || [ "$check" = yes ] || misused "Who may approve production? --reviewer NAME, or --no-reviewers."
    [ "$reviewer_list" != '[]' ] || differs "production has no reviewers: a run goes there unasked." :
else
    reviewer_list=$(reviewer_ids)
fi
[ "$is_private" = false ] || [ "$reviewer_list" = '[]' ] ||
    warn "$repository is private: required reviewers work there on GitHub Enterprise only."

environment staging '[]'
environment production "$reviewer_list"
variables "the repository" "/repos/$repository/actions/variables" "${REPOSITORY_VARIABLES[@]}"
secrets "the repository" "/repos/$repository/actions/secrets" "${REPOSITORY_SECRETS[@]}"
variables staging "/repos/$repository/environments/staging/variables" "${STAGING_VARIABLES[@]}"
variables production "/repos/$repository/environments/production/variables" "${PRODUCTION_VARIABLES[@]}"
for name in staging production; do
    secrets "$name" "/repos/$repository/environments/$name/secrets" "${ENVIRONMENT_SECRETS[@]}"
done
[ "$check" = no ] || complain

if [ "$check" = yes ] && [ "$differences" -gt 0 ]; then
    die "$EXIT_DIFFERS" "$repository is not ready: $differences found."
fi
done_with "$repository is ready."
