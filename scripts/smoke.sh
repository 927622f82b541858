#!/usr/bin/env bash
# Checks from outside that a deployed prop is the expected image and responds correctly.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<END
Usage: scripts/smoke.sh URL [DIGEST]
Check that the prop at URL is healthy, runs the image DIGEST and responds correctly.

The checks: /health is ok; /version names the image DIGEST, if it is given; /openapi.json and /docs/ respond; a request without
a key is rejected with a problem document. The script changes nothing. It needs curl and jq.

A certificate is verified, except at the load balancer's own name (*.elb.amazonaws.com), for which there can be none. deploy.sh
uses that name if APP_URL is not set.

Options:
  -h, --help  print this help

Environment:
  OUTSIDE_CHECKS no: check nothing, because this machine cannot reach the URL
  SMOKE_SECONDS  time to retry each check, because a load balancer may still send requests to old tasks (default: 60)

Examples:
  scripts/smoke.sh http://prop-alb-staging-123.ap-south-1.elb.amazonaws.com sha256:9f86d081884c...

Exit codes:
  0  all checks passed, or OUTSIDE_CHECKS is no
  1  a check failed
  2  wrong argument
  3  a tool is missing
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    http://* | https://*) ;;
    '') missing_argument URL ;;
    -*) unknown_option "$1" ;;
    *) usage_error "'$1' is not a URL; it must start with http:// or https://." ;;
esac
url=${1%/} digest=${2:-} patience=${SMOKE_SECONDS:-60}
[ -z "$digest" ] || [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || usage_error "'$digest' is not a digest (sha256: and 64 hexadecimal digits)."
[ $# -le 2 ] || unexpected_argument "$3"
if [ "${OUTSIDE_CHECKS:-yes}" = no ]; then
    warn "OUTSIDE_CHECKS is no: nothing was checked."
    exit
fi
require_tools curl jq
curl_options=(--silent --max-time 5)
if [[ $url =~ ^https://[^/]+\.elb\.amazonaws\.com(:[0-9]+)?(/|$) ]]; then
    warn "The certificate of $url is not verified: it is for another name. To verify it, set the variable APP_URL."
    curl_options+=(--insecure)
fi

# get PATH: saves the body in $WORK/body, and sets $got to the status and the content type.
get() {
    got=$(curl "${curl_options[@]}" --output "$WORK/body" --write-out '%{http_code} %{content_type}' "$url$1" 2>/dev/null) ||
        got=${got:-000}
}

# expect PATH STATUS TYPE [FILTER]: retries until the response has that status and type, and the jq filter is true for its body.
expect() {
    local until=$((SECONDS + patience))
    while :; do
        get "$1"
        if [[ $got == "$2 $3"* ]] && { [ -z "${4:-}" ] || jq -e --arg digest "$digest" "$4" "$WORK/body" >/dev/null 2>&1; }; then
            success "GET $1: $got"
            return
        fi
        [ "$SECONDS" -lt "$until" ] ||
            die "GET $1 returned $got; expected $2 $3${4:+ and $4}: $(head -c 300 "$WORK/body" 2>/dev/null | tr '\n' ' ')"
        sleep 1
    done
}

step "Checking $url"
expect /health 200 application/json '.status == "ok"'
# shellcheck disable=SC2016 # a variable of jq
expect /version 200 application/json '$digest == "" or .image_digest == $digest'
expect /openapi.json 200 application/json '.openapi | startswith("3.1")'
expect /docs/ 200 text/html
expect /v1/status 401 application/problem+json '.code | type == "string"'
success "All checks passed."
