#!/usr/bin/env bash
# Asks a deployed prop from outside whether it is what was deployed, and behaves.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

usage() {
    cat <<END
Usage: scripts/smoke.sh URL [DIGEST]

Asks the service at URL, as anybody could: is it healthy, is it the image DIGEST (if that is said), does it show its document
and its pages, does it refuse who has no key, and does it say so in the form it promises. Each question is asked again for
up to SMOKE_SECONDS (60): a load balancer may still be sending to old tasks. Changes nothing. Needs curl and jq.

  scripts/smoke.sh http://prop-alb-staging-123.ap-south-1.elb.amazonaws.com sha256:9f86d081884c...

Exit codes: 0 all is well; 1 something is not; 2 an argument is wrong; 3 a tool is missing.
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    http://* | https://*) ;;
    *) misused "'${1:-}' is no URL." ;;
esac
url=${1%/} digest=${2:-} patience=${SMOKE_SECONDS:-60}
[ -z "$digest" ] || [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || misused "'$digest' is no digest."
[ $# -le 2 ] || misused "'$3' is one argument too many."
need curl jq

# get PATH: the body in $WORK/body, status and content type in $got.
get() {
    got=$(curl --silent --max-time 5 --output "$WORK/body" --write-out '%{http_code} %{content_type}' "$url$1" 2>/dev/null) || got=${got:-000}
}

# expect PATH STATUS TYPE [FILTER]: the answer, with what jq must find in it; asked until it is so.
expect() {
    local until=$((SECONDS + patience))
    while :; do
        get "$1"
        if [[ $got == "$2 $3"* ]] && { [ -z "${4:-}" ] || jq -e --arg digest "$digest" "$4" "$WORK/body" >/dev/null 2>&1; }; then
            done_with "GET $1: $got"
            return
        fi
        [ "$SECONDS" -lt "$until" ] ||
            die "GET $1 answers $got, not $2 $3${4:+ with $4}: $(head -c 300 "$WORK/body" 2>/dev/null | tr '\n' ' ')"
        sleep 1
    done
}

step "$url"
expect /health 200 application/json '.status == "ok"'
# shellcheck disable=SC2016 # jq's variable
expect /version 200 application/json '$digest == "" or .image_digest == $digest'
expect /openapi.json 200 application/json '.openapi | startswith("3.1")'
expect /docs/ 200 text/html
expect /v1/status 401 application/problem+json '.code | type == "string"'
done_with "It is there, and behaves."
