# shellcheck shell=bash
# Calls GitHub's REST API at GITHUB_API_URL, which GitHub sets in a workflow. Source it after common.sh.

GITHUB_API_URL=${GITHUB_API_URL:-https://api.github.com}

# github_request METHOD PATH [BODY]: sets $status and $answer. $status is 000 if there was no response. The token is passed on
# standard input, because everybody on the machine can read a command line.
github_request() {
    : >"$WORK/github"
    printf %s "${3:-}" >"$WORK/github-body"
    status=$(printf 'header = "Authorization: Bearer %s"\n' "$GITHUB_TOKEN" |
        curl --config - --silent --show-error --max-time 30 --retry 3 --retry-connrefused --request "$1" \
            --header 'Accept: application/vnd.github+json' --header 'X-GitHub-Api-Version: 2022-11-28' \
            --output "$WORK/github" --write-out '%{http_code}' ${3:+--data-binary "@$WORK/github-body"} "$GITHUB_API_URL$2") || true
    answer=$(<"$WORK/github")
}

# github_error: prints why the last request failed, in one line.
github_error() {
    [ "$status" != 000 ] || {
        echo "no response from $GITHUB_API_URL."
        return
    }
    echo "GitHub returned $status: $(jq -r '[.message, (.errors // [] | .[] | .message? // .)] | map(tostring) | join("; ")' <<<"$answer" 2>/dev/null || echo "$answer")"
}

# github_must METHOD PATH [BODY]: the same, and ends the script if the request fails.
github_must() {
    github_request "$@"
    case $status in
        2*) ;;
        *) die "$1 $2: $(github_error)" ;;
    esac
}
