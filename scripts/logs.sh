#!/usr/bin/env bash
# Prints what the tasks of an environment log, and follows it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"

usage() {
    cat <<'END'
Usage: scripts/logs.sh <environment> [OPTION]...

Prints the log of every task, in order. Works with the AWS CLI 1 too, which has no `logs tail`.

  scripts/logs.sh production --follow
  scripts/logs.sh production --since 2h --filter ERROR
  scripts/logs.sh staging --since 1d --filter '{ $.status >= 500 }' | jq -r .path

Options:
  --since AGE      how far back: 30s, 10m, 2h, 1d (10m)
  --follow, -f     go on until Ctrl-C
  --filter TEXT    what CloudWatch's filter patterns say: a word, or { $.status >= 500 } for JSON
  --task ID        of one task
  --timestamps     the time in front of each line

Exit codes: 0 done, 2 an argument is wrong, 3 something is missing or denied, 130 Ctrl-C.
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
        --dry-run) ;; # it changes nothing anyway
        --since | --filter | --task)
            [ -n "${2:-}" ] || misused "$1 wants a value."
            case $1 in
                --since) SINCE=$2 ;;
                --filter) FILTER=$2 ;;
                --task) TASK=${2##*/} ;;
            esac
            shift
            ;;
        -*) misused "There is no option $1." ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ ${#words[@]} -le 1 ] || misused "What is '${words[1]}'?"
use_environment "${words[0]:-}"
[[ $SINCE =~ ^([0-9]+)([smhd])$ ]] || misused "--since is a number and s, m, h or d, as in 10m."
case ${BASH_REMATCH[2]} in s) unit=1 ;; m) unit=60 ;; h) unit=3600 ;; *) unit=86400 ;; esac
from=$((($(date +%s) - BASH_REMATCH[1] * unit) * 1000))
need aws jq

arguments=(--log-group-name "$LOG_GROUP")
[ -z "$FILTER" ] || arguments+=(--filter-pattern "$FILTER")
[ -z "$TASK" ] || arguments+=(--log-stream-names "${LOG_STREAM_PREFIX:-prop}/$CONTAINER_NAME/$TASK")

# Events may arrive late: each look begins a little before the last one's end, and prints what it has not printed.
LATE_MS=5000
seen='[]'
while :; do
    # The CLI asks for page after page by itself.
    answer=$(call logs filter-log-events "${arguments[@]}" --start-time "$from") || die "$EXIT_PREFLIGHT" "The log can't be read. $(aws_said)"
    jq -r --argjson seen "$seen" --arg stamps "$TIMESTAMPS" '
        (reduce $seen[] as $id ({}; .[$id] = true)) as $known | .events | sort_by(.timestamp)[] | select($known[.eventId] | not)
        | (if $stamps == "yes" then (.timestamp / 1000 | floor | todate) + "  " else "" end) + (.message | rtrimstr("\n"))' <<<"$answer"
    [ "$FOLLOW" = yes ] || break
    last=$(jq '[.events[].timestamp] | max // 0' <<<"$answer")
    [ $((last - LATE_MS)) -le "$from" ] || from=$((last - LATE_MS))
    seen=$(jq -c --argjson from "$from" '[.events[] | select(.timestamp >= $from).eventId]' <<<"$answer")
    sleep "${POLL_SECONDS:-3}"
done
