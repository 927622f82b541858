#!/usr/bin/env bash
# Posts Terraform's plans as one comment on the pull request. Later runs update that comment.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/github.sh"

usage() {
    cat <<END
Usage: scripts/plan-comment.sh [OPTION]... FILE...
Post Terraform's plans as one comment on a pull request, or update that comment.

Each FILE is the output of \`infra.sh ENVIRONMENT plan\`, named ENVIRONMENT.txt. The script finds its comment by a hidden marker.
A plan that is too long for a comment is truncated, with a note. The script needs curl and jq.

Options:
  --dry-run   print the comment without sending it
  -h, --help  print this help

Environment:
  GITHUB_TOKEN       token that may write to pull requests
  GITHUB_REPOSITORY  OWNER/REPOSITORY
  PULL_REQUEST       number of the pull request
  GITHUB_SHA, GITHUB_RUN_ID, GITHUB_SERVER_URL, GITHUB_API_URL
                     as GitHub sets them

Examples:
  PULL_REQUEST=17 scripts/plan-comment.sh staging.txt production.txt

Exit codes:
  0  the comment was posted or updated
  1  GitHub rejected a request
  2  wrong argument
  3  a tool or a variable is missing
END
}

files=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        -*) unknown_option "$1" ;;
        *)
            [ -f "$1" ] || usage_error "file '$1' not found."
            files+=("$1")
            ;;
    esac
    shift
done
[ ${#files[@]} -gt 0 ] || missing_argument FILE
require_tools curl jq
for name in GITHUB_TOKEN GITHUB_REPOSITORY PULL_REQUEST; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "The variable $name is not set."
done
[[ $PULL_REQUEST =~ ^[0-9]+$ ]] || usage_error "PULL_REQUEST must be a number, not '$PULL_REQUEST'."

readonly MARK='<!-- prop: terraform plan -->'
# GitHub limits a comment to 65,536 characters.
readonly LONGEST=$((60000 / ${#files[@]}))

# section FILE: prints a plan in a collapsed section with its summary. The long fence cannot occur inside the plan.
section() {
    local name summary plan
    name=$(basename "$1" .txt)
    summary=$(grep -E '^(Plan:|No changes\.|Error:|│ Error:)' "$1" | head -n 1 || true)
    plan=$(sed -n '/^Terraform will perform/,$p' "$1")
    [ -n "$plan" ] || plan=$(<"$1")
    printf '<details><summary><b>%s</b>: %s</summary>\n\n~~~~~~~~~~text\n%s\n~~~~~~~~~~\n' "$name" "${summary:-see below}" "${plan:0:LONGEST}"
    [ ${#plan} -le $LONGEST ] || printf '\nTruncated. The complete plan is in the log of the run.\n'
    printf '\n</details>\n\n'
}

comment=$(
    printf '%s\n### Terraform plan\n\n' "$MARK"
    for file in "${files[@]}"; do
        section "$file"
    done
    printf 'Commit %s, [run](%s)\n' "${GITHUB_SHA:-unknown}" "${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/${GITHUB_RUN_ID:-}"
)
body=$(jq -Rsc '{body: .}' <<<"$comment")
if [ "$DRY_RUN" = yes ]; then
    printf '%s\n' "$comment"
    exit
fi

# find_comment: sets id to the comment's id, if it exists. Anybody can write the marker, so only a bot's comment counts.
find_comment() {
    local page
    for page in {1..10}; do
        github_must GET "/repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments?per_page=100&page=$page"
        id=$(jq -r --arg mark "$MARK" 'first(.[] | select(.user.type == "Bot") | select(.body | startswith($mark))).id // ""' <<<"$answer")
        [ -z "$id" ] && [ "$(jq length <<<"$answer")" = 100 ] || return 0
    done
}

id=''
find_comment
if [ -n "$id" ]; then
    github_must PATCH "/repos/$GITHUB_REPOSITORY/issues/comments/$id" "$body"
    success "Updated the comment."
else
    github_must POST "/repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" "$body"
    success "Posted the comment."
fi
