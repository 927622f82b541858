# shellcheck shell=bash
# Reports deployments to prop (the ledger) and asks its gate. Source it after common.sh. PROP_URL is prop's address; PROP_KEY is a
# key with the scopes read and deploy, and override for --force. A deployment does not fail because the ledger is unavailable:
# its report is saved in PROP_SPOOL, one JSON document per line, and a later run sends it.
# shellcheck disable=SC2034 # the calling script reads the variables that are set here

PROP_SPOOL=${PROP_SPOOL:-$ROOT/.prop-spool.jsonl}
LEDGER_SERVICE=${LEDGER_SERVICE:-prop}
LEDGER=none # none (not configured), here (available) or away (unavailable)
LEDGER_ID=''

# ledger_request METHOD PATH [BODY] [IDEMPOTENCY_KEY]: sets LEDGER_STATUS and LEDGER_ANSWER. Fails if the ledger is unavailable;
# LEDGER_WHY is the reason.
ledger_request() {
    local answer=$WORK/ledger-answer options=(-sS --max-time 15 --retry 2 --retry-connrefused --retry-max-time 15 -w '%{http_code}' -X "$1")
    [ -z "${3:-}" ] || options+=(-H 'Content-Type: application/json' --data-binary "$3")
    [ -z "${4:-}" ] || options+=(-H "Idempotency-Key: $4")
    # curl empties a file before each retry. On standard output, the responses of all tries would be joined.
    : >"$answer"
    # Not in the arguments: everybody who can list processes would see the key.
    LEDGER_STATUS=$(curl "${options[@]}" -o "$answer" -K <(printf 'header = "Authorization: Bearer %s"\n' "$PROP_KEY") "${PROP_URL%/}$2" 2>"$WORK/ledger-error") || {
        LEDGER_WHY="$(tail -n 1 "$WORK/ledger-error")."
        return 1
    }
    LEDGER_ANSWER=$(<"$answer")
    # What is not a JSON object comes from something between here and the ledger.
    if [ "$LEDGER_STATUS" -ge 500 ] || [ "$LEDGER_STATUS" = 429 ] || [[ $LEDGER_ANSWER != '{'*'}' ]]; then
        LEDGER_WHY="$PROP_URL returned $LEDGER_STATUS: $(head -c 200 <<<"$LEDGER_ANSWER" | tr '\n' ' ')"
        return 1
    fi
}

# ledger_get FILTER: prints a part of the last response, selected by a jq filter.
ledger_get() { jq -r "$1" <<<"$LEDGER_ANSWER"; }

# ledger_problem: prints why the ledger rejected the last request, as a sentence.
ledger_problem() { ledger_get '.detail // .title // "no reason given" | rtrimstr(".") + "."'; }

# die_ledger_error WHAT: ends the script because the ledger rejected a request that it should accept.
die_ledger_error() {
    die "$EXIT_PREFLIGHT" "The ledger rejected $1: $(ledger_problem) Nothing was changed. To deploy without the ledger, unset PROP_URL and PROP_KEY."
}

# find_ledger: sets LEDGER. If the ledger is available, sends it the reports in PROP_SPOOL.
find_ledger() {
    if [ -z "${PROP_URL:-}" ] && [ -z "${PROP_KEY:-}" ]; then
        [ "$REQUIRE_LEDGER" = no ] || die "$EXIT_PREFLIGHT" "--require-ledger needs PROP_URL and PROP_KEY, but they are not set."
        warn "This deployment is not recorded: PROP_URL and PROP_KEY are not set."
        return
    fi
    [ -n "${PROP_URL:+${PROP_KEY:-}}" ] || die "$EXIT_PREFLIGHT" "PROP_URL and PROP_KEY must be set together; only one is set."
    LEDGER=here
    ledger_request GET "/v1/deployments?limit=1" || {
        ledger_unreachable
        return 0
    }
    [ "$LEDGER_STATUS" = 200 ] || die_ledger_error "PROP_KEY"
    replay
}

ledger_unreachable() {
    [ "$REQUIRE_LEDGER" = no ] || die "$EXIT_PREFLIGHT" "Cannot reach the ledger, and --require-ledger is set. $LEDGER_WHY"
    LEDGER=away
    warn "${BOLD}CANNOT REACH THE LEDGER.$PLAIN The deployment continues without the gate's checks. $LEDGER_WHY"
    detail "The deployment will be saved in $PROP_SPOOL, and the next run will report it to the ledger."
}

# load_place: sets LEDGER_ANSWER to the state of the service in this environment. Fails if the ledger has none.
load_place() {
    ledger_request GET "/v1/services/$LEDGER_SERVICE/environments/$ENVIRONMENT" && [ "$LEDGER_STATUS" = 200 ]
}

# --- A deployment

# describe_run: sets who requested the deployment, its source, and an external id that is unique to this run.
describe_run() {
    if [ "${GITHUB_ACTIONS:-}" = true ]; then
        REQUESTED_BY=${GITHUB_TRIGGERING_ACTOR:-${GITHUB_ACTOR:-github}} SOURCE=github-actions
        RUN_URL=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID
        EXTERNAL_ID=$GITHUB_REPOSITORY/$GITHUB_RUN_ID/${GITHUB_RUN_ATTEMPT:-1}/$ENVIRONMENT/$(date +%s)
    else
        REQUESTED_BY=${USER:-$(id -un)} SOURCE=script RUN_URL=''
        EXTERNAL_ID=$(uname -n)/$(date +%s)/$$-$RANDOM
    fi
}

# deployment_body [OBSERVED_AT]: prints the request body for this deployment. With a time, as an
# observed deployment. prop refuses to start a rollback to a release that was not live in the
# environment before: IS_ROLLBACK is the gate's word on that.
deployment_body() {
    local rollback=${IS_ROLLBACK:-false}
    [ -z "${1:-}" ] || [ "${ROLLBACK:-no}" = no ] || rollback=true
    jq -nc --arg service "$LEDGER_SERVICE" --arg environment "$ENVIRONMENT" --arg version "$VERSION" --arg sha "$GIT_SHA" --arg digest "$DIGEST" \
        --arg by "$REQUESTED_BY" --arg source "$SOURCE" --arg id "$EXTERNAL_ID" --arg url "$RUN_URL" --arg reason "$REASON" --arg at "${1:-}" \
        --argjson rollback "$rollback" '
        {service: $service, environment: $environment, version: $version, git_sha: $sha, image_digest: $digest, requested_by: $by,
            source: $source, external_id: $id, run_url: $url, reason: $reason} | with_entries(select(.value != ""))
        | . + {create_missing: true} + (if $rollback then {rollback: true} else {} end)
        + if $at == "" then {start: true} else {observed: true, at: $at} end'
}

# check_gate: records the release and asks the gate whether it may be deployed. With FORCE, overrides active freezes. Ends the
# script if the gate blocks the deployment.
check_gate() {
    [ "$LEDGER" = here ] || return 0
    local release question reasons freeze
    release=$(deployment_body | jq -c '{service, version, git_sha, image_digest, create_missing} | del(..|nulls)')
    question="/v1/gate?service=$LEDGER_SERVICE&environment=$ENVIRONMENT&version=$(jq -rn --arg v "$VERSION" '$v | @uri')"
    question+="&requested_by=$(jq -rn --arg v "$REQUESTED_BY" '$v | @uri')"
    # GitHub's webhook has already reported this run as a running deployment. The run must not block itself.
    [ -z "$RUN_URL" ] || question+="&run_url=$(jq -rn --arg v "$RUN_URL" '$v | @uri')"
    [ "${ROLLBACK:-no}" = no ] || question+="&rollback=true"
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/releases "$release"
    else
        ledger_request POST /v1/releases "$release" "$EXTERNAL_ID/release" || {
            ledger_unreachable
            return 0
        }
        case $LEDGER_STATUS in
            200 | 201) ;;
            *) die_ledger_error "release $VERSION" ;;
        esac
    fi
    ledger_request GET "$question" || {
        ledger_unreachable
        return 0
    }
    case $LEDGER_STATUS in
        200) ;;
        404) # The ledger does not know the environment yet (in a dry run, perhaps the release), so there are no rules.
            detail "gate: no rules. $(ledger_get .detail) This deployment creates it."
            return
            ;;
        *) die_ledger_error "the gate check" ;;
    esac
    IS_ROLLBACK=$(ledger_get '.is_rollback // false')
    if [ "$(ledger_get .allowed)" = true ]; then
        success "The gate allows $LEDGER_SERVICE $VERSION in $ENVIRONMENT."
        return
    fi
    reasons=$LEDGER_ANSWER
    if [ "$FORCE" = yes ] && jq -e 'all(.reasons[]; .code == "frozen")' <<<"$reasons" >/dev/null; then
        while read -r freeze; do
            override_freeze "$freeze"
        done < <(jq -r '.reasons[].id' <<<"$reasons")
        warn "--force overrides the gate: $(gate_reasons "$reasons")"
        return
    fi
    die_blocked "$reasons"
}

# gate_reasons JSON: prints the reasons in one line, each with its end time if it has one.
gate_reasons() {
    jq -r '[.reasons[] | .detail + if .until then " Until \(.until | sub("\\.[0-9]+"; ""))." else "" end] | join(" ")' <<<"$1"
}

die_blocked() {
    info "${RED}blocked:$PLAIN prop does not allow $LEDGER_SERVICE $VERSION in $ENVIRONMENT now:"
    jq -r '.reasons[] | "  - " + .detail + if .until then " Until \(.until | sub("\\.[0-9]+"; ""))." else "" end' <<<"$1" >&2
    WHY=$(gate_reasons "$1")
    if jq -e 'all(.reasons[]; .code == "deployment_running")' <<<"$1" >/dev/null; then
        die "$EXIT_RUNNING" "Another deployment is running. Nothing was changed. If it has stopped without a report, use --take-over: prop then records it as cancelled."
    elif jq -e 'all(.reasons[]; .code == "frozen")' <<<"$1" >/dev/null; then
        die "$EXIT_BLOCKED" "Nothing was changed. To override the freeze for this deployment, use --force --reason TEXT with a key that has the scope override."
    elif jq -e 'any(.reasons[]; .code | startswith("approval_"))' <<<"$1" >/dev/null; then
        die "$EXIT_BLOCKED" "Nothing was changed. Ask another person to approve the release: POST $PROP_URL/v1/approvals."
    fi
    die "$EXIT_BLOCKED" "Nothing was changed."
}

override_freeze() {
    local body
    body=$(jq -nc --arg service "$LEDGER_SERVICE" --arg environment "$ENVIRONMENT" --arg version "$VERSION" --arg reason "$REASON" \
        '{service: $service, environment: $environment, version: $version, reason: $reason}')
    if [ "$DRY_RUN" = yes ]; then
        would_send POST "/v1/freezes/$1/overrides" "$body"
        return
    fi
    ledger_request POST "/v1/freezes/$1/overrides" "$body" "$EXTERNAL_ID/override/$1" ||
        die "$EXIT_BLOCKED" "Cannot override the freeze. $LEDGER_WHY Nothing was changed."
    [ "$LEDGER_STATUS" = 201 ] || die "$EXIT_BLOCKED" "Cannot override the freeze: $(ledger_problem) Nothing was changed."
}

# start_recording: records the deployment as running. Ends the script if the ledger rejects it.
start_recording() {
    local body
    STARTED_AT=$(now)
    case $LEDGER in
        none) return ;;
        away)
            spool ''
            return
            ;;
    esac
    body=$(deployment_body)
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/deployments "$body"
        return
    fi
    ledger_request POST /v1/deployments "$body" "$EXTERNAL_ID" || {
        ledger_unreachable
        spool ''
        return 0
    }
    case $LEDGER_STATUS in
        200 | 201) LEDGER_ID=$(ledger_get .id) ;;
        409)
            [ "$(ledger_get .code)" = gate_blocked ] || die_ledger_error "this deployment"
            die_blocked "$LEDGER_ANSWER"
            ;;
        *) die_ledger_error "this deployment" ;;
    esac
    success "Recorded as deployment $LEDGER_ID."
}

# finish_recording STATE REASON: records how the deployment ended. If the ledger is unavailable, saves it for a later run.
finish_recording() {
    local transition
    transition=$(jq -nc --arg to "$1" --arg reason "$2" '{to: $to} + if $reason == "" then {} else {reason: $reason[:4000]} end')
    case $LEDGER in
        none) return ;;
        here)
            if [ "$DRY_RUN" = yes ]; then
                would_send POST /v1/deployments/ID/transitions "$transition"
                return
            fi
            if ledger_request POST "/v1/deployments/$LEDGER_ID/transitions" "$transition" "$EXTERNAL_ID/$1"; then
                case $LEDGER_STATUS in
                    200) ;;
                    *) warn "The ledger rejected the outcome '$1': $(ledger_problem)" ;;
                esac
                return 0
            fi
            warn "${BOLD}Cannot reach the ledger any more.$PLAIN $LEDGER_WHY The outcome is saved in $PROP_SPOOL; the next run reports it."
            ;;
    esac
    [ "$DRY_RUN" = no ] || return 0
    spool "$(jq -c --arg at "$(now)" '. + {observed: true, at: $at}' <<<"$transition")"
    # The ledger may be available again, for example because this deployment restarted it.
    if [ "$LEDGER" = away ] && ledger_request GET "/v1/deployments?limit=1" && [ "$LEDGER_STATUS" = 200 ]; then replay; fi
}

# cancel_running: for --take-over, cancels the deployment that the ledger has as running.
cancel_running() {
    if [ "$LEDGER" != here ] || ! load_place; then return 0; fi
    local id body
    id=$(ledger_get '.running.id // ""')
    [ -n "$id" ] || return 0
    body=$(jq -nc --arg reason "Cancelled by $REQUESTED_BY with --take-over." '{to: "cancelled", reason: $reason}')
    if [ "$DRY_RUN" = yes ]; then
        would_send POST "/v1/deployments/$id/transitions" "$body"
    elif ledger_request POST "/v1/deployments/$id/transitions" "$body" && [ "$LEDGER_STATUS" = 200 ]; then
        warn "Cancelled deployment $id, which was running according to the ledger."
    fi
}

# resume_recording: sets LEDGER_ID to the running deployment of this release, which an interrupted run started.
resume_recording() {
    if [ "$LEDGER" != here ] || ! load_place; then return 0; fi
    LEDGER_ID=$(jq -r --arg version "$VERSION" 'if .running.version == $version then .running.id else "" end' <<<"$LEDGER_ANSWER")
}

would_send() { printf '%swould send:%s %s %s %s\n' "$DIM" "$PLAIN" "$1" "$PROP_URL$2" "$3" >&2; }

# --- The spool

# spool TRANSITION_JSON: saves this deployment, and its outcome if there is one. The lines are independent, and the external id
# makes it safe to send a line twice.
spool() {
    [ "$DRY_RUN" = no ] || return 0
    local locked=yes
    lock_spool || locked=no
    jq -nc --argjson deployment "$(deployment_body "$STARTED_AT")" --argjson transition "${1:-null}" \
        '{deployment: $deployment, transition: $transition}' >>"$PROP_SPOOL" || warn "Cannot write to $PROP_SPOOL: this deployment is not recorded."
    [ "$locked" = no ] || unlock_spool
}

# replay: sends the lines in PROP_SPOOL to the ledger, in order, and deletes what it accepted. Stops at a line that must wait.
# The lines are moved to a file of this run first, so that other runs are not locked out meanwhile. If this run is killed, a
# later one sends them again, which is safe.
replay() {
    local taken=$PROP_SPOOL.$$ line sent=0
    if [ "$DRY_RUN" = yes ]; then
        [ ! -s "$PROP_SPOOL" ] || detail "would report saved deployments to the ledger: $(wc -l <"$PROP_SPOOL" | tr -d ' ') lines of $PROP_SPOOL"
        return 0
    fi
    claim_spool || return 0
    while IFS= read -r line; do
        send_spool_line "$line" || break
        sent=$((sent + 1))
    done <"$taken"
    restore_unsent "$sent"
    [ "$sent" = 0 ] || success "Reported saved deployments to the ledger: $sent $([ "$sent" = 1 ] && echo line || echo lines) of $PROP_SPOOL."
}

# claim_spool: moves the lines to send to the file `taken`, after those that killed runs had claimed. Fails if there are none or
# the spool is locked.
claim_spool() {
    local file
    [ -s "$PROP_SPOOL" ] || [ -n "$(abandoned_spools)" ] || return 1
    lock_spool || {
        warn "$PROP_SPOOL is locked by another run: a later run reports the deployments in it."
        return 1
    }
    while IFS= read -r file; do
        [ "$file" = "$taken" ] || { cat "$file" >>"$taken" && rm -f "$file"; }
    done < <(abandoned_spools)
    if [ -s "$taken" ]; then
        [ ! -f "$PROP_SPOOL" ] || { cat "$PROP_SPOOL" >>"$taken" && rm -f "$PROP_SPOOL"; }
    elif [ -s "$PROP_SPOOL" ]; then
        mv "$PROP_SPOOL" "$taken"
    fi
    unlock_spool
    [ -s "$taken" ]
}

# abandoned_spools: prints the files that runs which no longer exist had claimed.
abandoned_spools() {
    local file
    for file in "$PROP_SPOOL".*; do
        [[ $file =~ \.([0-9]+)$ ]] || continue
        [ "${BASH_REMATCH[1]}" != $$ ] && kill -0 "${BASH_REMATCH[1]}" 2>/dev/null || echo "$file"
    done
}

# restore_unsent SENT: puts the lines of `taken` after the first SENT back into the spool, before lines added meanwhile.
restore_unsent() {
    tail -n "+$(($1 + 1))" "$taken" >"$taken.left"
    mv "$taken.left" "$taken"
    if [ -s "$taken" ]; then
        lock_spool || return 0 # the file stays, and a later run finds it
        [ ! -f "$PROP_SPOOL" ] || cat "$PROP_SPOOL" >>"$taken"
        mv "$taken" "$PROP_SPOOL"
        unlock_spool
    else
        rm -f "$taken"
    fi
}

# send_spool_line LINE: sends one line to the ledger. Fails if it must be sent later. A line that the ledger rejects is set aside.
send_spool_line() {
    local deployment transition place
    if ! deployment=$(jq -ce .deployment <<<"$1" 2>/dev/null); then
        set_aside "$1" "It is not valid JSON with a deployment."
        return
    fi
    transition=$(jq -c .transition <<<"$1")
    place=$(jq -r '"/v1/services/\(.service)/environments/\(.environment)"' <<<"$deployment")
    ledger_request GET "$place" || return 1
    # Sent now, the report could cancel the deployment that is running.
    if [ "$LEDGER_STATUS" = 200 ] &&
        jq -e --argjson old "$deployment" '.running and .running.external_id != $old.external_id' <<<"$LEDGER_ANSWER" >/dev/null; then
        warn "The deployments in $PROP_SPOOL are reported by a later run: another deployment is running now."
        return 1
    fi
    ledger_request POST /v1/deployments "$deployment" || return 1
    case $LEDGER_STATUS in
        200 | 201) ;;
        401 | 403) return 1 ;;
        *)
            set_aside "$1" "$(ledger_problem)"
            return
            ;;
    esac
    [ "$transition" != null ] || return 0
    ledger_request POST "/v1/deployments/$(ledger_get .id)/transitions" "$transition" || return 1
    case $LEDGER_STATUS in
        200) ;;
        401 | 403) return 1 ;;
        *) set_aside "$1" "$(ledger_problem)" ;;
    esac
}

set_aside() {
    warn "The ledger rejected a line of $PROP_SPOOL; it was moved to $PROP_SPOOL.refused: $2"
    printf '%s\n' "$1" >>"$PROP_SPOOL.refused"
}

# lock_spool: locks the spool, or fails after ten seconds. Runs hold the lock only briefly, never during a request, so a lock
# that is a minute old belongs to a run that was killed and is removed.
lock_spool() {
    local tries=0
    until mkdir "$PROP_SPOOL.lock" 2>/dev/null; do
        [ -z "$(find "$PROP_SPOOL.lock" -maxdepth 0 -mmin +1 2>/dev/null)" ] || unlock_spool
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || return 1
        sleep 0.2
    done
}
unlock_spool() { rmdir "$PROP_SPOOL.lock" 2>/dev/null || true; }
