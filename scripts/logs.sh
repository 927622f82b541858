#!/usr/bin/env bash
# Prints the log of an environment's tasks and follows it.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"

usage() {
    cat <<'END'
Usage: scripts/logs.sh ENVIRONMENT [OPTION]...
Print the log of an environment's tasks, in order of time.

Works with the AWS CLI 1 too, which has no `logs tail`.

Options:
  --since AGE       start this long ago: 30s, 10m, 2h or 1d, for example (default: 10m)
  -f, --follow      print new lines until Ctrl-C
  --filter PATTERN  print matching lines only; a CloudWatch filter pattern, such as ERROR or '{ $.status >= 500 }'
  --task ID         print the log of one task
  --timestamps      print the time before each line
  -h, --help        print this help

Environment:
  AWS_REGION  AWS region (default: ap-south-1)

Examples:
  scripts/logs.sh production --follow
  scripts/logs.sh production --since 2h --filter ERROR
  scripts/logs.sh staging --since 1d --filter '{ $.status >= 500 }' | jq -r .path

Exit codes:
  0    done
  2    wrong argument
  3    something is missing or access is denied
  130  interrupted by Ctrl-C
END
}

SINCE=10m FOLLOW=no FILTER='' TASK='' TIMESTAMPS=no
words=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        -f | --follow) FOLLOW=yes ;;
        --timestamps) TIMESTAMPS=yes ;;
        --dry-run) ;; # accepted because other scripts have it; this one never changes anything
        --since | --filter | --task)
            [ -n "${2:-}" ] || missing_value "$1"
            case $1 in
                --since) SINCE=$2 ;;
                --filter) FILTER=$2 ;;
                --task) TASK=${2##*/} ;;
            esac
            shift
            ;;
        -*) unknown_option "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || unexpected_argument "${words[1]}"
use_environment "${words[0]:-}"
[[ $SINCE =~ ^([0-9]+)([smhd])$ ]] || usage_error "--since must be a number followed by s, m, h or d, such as 10m, not '$SINCE'."
case ${BASH_REMATCH[2]} in s) unit=1 ;; m) unit=60 ;; h) unit=3600 ;; *) unit=86400 ;; esac
from=$((($(date +%s) - BASH_REMATCH[1] * unit) * 1000))
require_tools aws jq

arguments=(--log-group-name "$LOG_GROUP")
[ -z "$FILTER" ] || arguments+=(--filter-pattern "$FILTER")
[ -z "$TASK" ] || arguments+=(--log-stream-names "${LOG_STREAM_PREFIX:-prop}/$CONTAINER_NAME/$TASK")

# Events may arrive late, so each request starts shortly before the last event. Events that were printed already are skipped.
LATE_MS=5000
seen='[]'
while :; do
    # The CLI reads all pages by itself.
    answer=$(aws_json logs filter-log-events "${arguments[@]}" --start-time "$from") || die "$EXIT_PREFLIGHT" "Cannot read the log. $(aws_error)"
    jq -r --argjson seen "$seen" --arg stamps "$TIMESTAMPS" '
        (reduce $seen[] as $id ({}; .[$id] = true)) as $known | .events | sort_by(.timestamp)[] | select($known[.eventId] | not)
        | (if $stamps == "yes" then (.timestamp / 1000 | floor | todate) + "  " else "" end) + (.message | rtrimstr("\n"))' <<<"$answer"
    [ "$FOLLOW" = yes ] || break
    last=$(jq '[.events[].timestamp] | max // 0' <<<"$answer")
    [ $((last - LATE_MS)) -le "$from" ] || from=$((last - LATE_MS))
    seen=$(jq -c --argjson from "$from" '[.events[] | select(.timestamp >= $from).eventId]' <<<"$answer")
    sleep "${POLL_SECONDS:-3}"
done
