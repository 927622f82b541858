# shellcheck shell=bash
# How the scripts call GitHub's REST API: sourced after lib.sh. GITHUB_API_URL is where, as GitHub sets it in a workflow.

GITHUB_API_URL=${GITHUB_API_URL:-https://api.github.com}

# github METHOD PATH [BODY]: the answer in $answer, its status in $status: 000 when there was none. The token goes in by
# standard input: a command line can be read by everyone on the machine.
github() {
    : >"$WORK/github"
    printf %s "${3:-}" >"$WORK/github-body"
    status=$(printf 'header = "Authorization: Bearer %s"\n' "$GITHUB_TOKEN" |
        curl --config - --silent --show-error --max-time 30 --retry 3 --retry-connrefused --request "$1" \
            --header 'Accept: application/vnd.github+json' --header 'X-GitHub-Api-Version: 2022-11-28' \
            --output "$WORK/github" --write-out '%{http_code}' ${3:+--data-binary "@$WORK/github-body"} "$GITHUB_API_URL$2") || true
    answer=$(<"$WORK/github")
}

# github_said: why the last call failed, in one line.
github_said() {
    [ "$status" != 000 ] || {
        echo "There is no answer from $GITHUB_API_URL."
        return
    }
    echo "GitHub answered $status: $(jq -r '[.message, (.errors // [] | .[] | .message? // .)] | map(tostring) | join("; ")' <<<"$answer" 2>/dev/null || echo "$answer")"
}

# ask METHOD PATH [BODY]: the same, for what must succeed.
ask() {
    github "$@"
    case $status in
        2*) ;;
        *) die "$1 $2: $(github_said)" ;;
    esac
}
