#!/usr/bin/env bash
# Puts Terraform's plans into one comment of the pull request, which later runs write over.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/github.sh
source "$(dirname "$0")/github.sh"

usage() {
    cat <<END
Usage: scripts/plan-comment.sh FILE...

Each FILE is the output of \`infra.sh ENVIRONMENT plan\`, named ENVIRONMENT.txt. There is one comment: it has a mark that is
not seen, by which it is found again. A plan that is too long for a comment is cut, and says so.

  --dry-run   print the comment, and send nothing
  --help      this

From the environment: GITHUB_TOKEN, which may write to pull requests; PULL_REQUEST, its number; GITHUB_REPOSITORY, GITHUB_SHA,
GITHUB_RUN_ID, GITHUB_SERVER_URL and GITHUB_API_URL, as GitHub sets them.

  PULL_REQUEST=17 scripts/plan-comment.sh staging.txt production.txt

Exit codes: 0 the comment is there; 1 GitHub refused; 2 an argument is wrong; 3 something that this needs is missing.
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
        -*) misused "There is no option '$1'." ;;
        *)
            [ -f "$1" ] || misused "There is no file '$1'."
            files+=("$1")
            ;;
    esac
    shift
done
[ ${#files[@]} -gt 0 ] || misused "Which plans?"
need curl jq
for name in GITHUB_TOKEN GITHUB_REPOSITORY PULL_REQUEST; do
    [ -n "${!name:-}" ] || die "$EXIT_PREFLIGHT" "$name is not set."
done
[[ $PULL_REQUEST =~ ^[0-9]+$ ]] || misused "PULL_REQUEST is a number, not '$PULL_REQUEST'."

readonly MARK='<!-- prop: terraform plan -->'
# GitHub takes 65,536 characters in all.
readonly LONGEST=$((60000 / ${#files[@]}))

# section FILE: a plan, folded up under what it comes to. A fence that the plan itself can't end.
section() {
    local name summary plan
    name=$(basename "$1" .txt)
    summary=$(grep -E '^(Plan:|No changes\.|Error:|│ Error:)' "$1" | head -n 1 || true)
    plan=$(sed -n '/^Terraform will perform/,$p' "$1")
    [ -n "$plan" ] || plan=$(<"$1")
    printf '<details><summary><b>%s</b>: %s</summary>\n\n~~~~~~~~~~text\n%s\n~~~~~~~~~~\n' "$name" "${summary:-see below}" "${plan:0:LONGEST}"
    [ ${#plan} -le $LONGEST ] || printf '\nCut off here; all of it is in the log of the run.\n'
    printf '\n</details>\n\n'
}

comment=$(
    printf '%s\n### What Terraform would change\n\n' "$MARK"
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

# find_comment: its id, if it is there already. Anybody may write the mark into a comment: only a bot's is ours.
find_comment() {
    local page
    for page in {1..10}; do
        ask GET "/repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments?per_page=100&page=$page"
        id=$(jq -r --arg mark "$MARK" 'first(.[] | select(.user.type == "Bot") | select(.body | startswith($mark))).id // ""' <<<"$answer")
        [ -z "$id" ] && [ "$(jq length <<<"$answer")" = 100 ] || return 0
    done
}

id=''
find_comment
if [ -n "$id" ]; then
    ask PATCH "/repos/$GITHUB_REPOSITORY/issues/comments/$id" "$body"
    done_with "The comment has the new plans."
else
    ask POST "/repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" "$body"
    done_with "The plans are a comment now."
fi
