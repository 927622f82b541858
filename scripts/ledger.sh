# shellcheck shell=bash
# What the scripts tell prop, and ask it: sourced after lib.sh. PROP_URL and PROP_KEY say where it is; the key needs the scopes
# read and deploy, and override for --force. The ledger is never what a deployment fails for: when it is away, what happened
# is kept in PROP_SPOOL, one JSON document per line, and told later.
# shellcheck disable=SC2034 # what is found is left in variables, for the script

PROP_SPOOL=${PROP_SPOOL:-$ROOT/.prop-spool.jsonl}
LEDGER_SERVICE=${LEDGER_SERVICE:-prop}
LEDGER=none # none: not configured; here; away
LEDGER_ID=''

# ledger METHOD PATH [BODY] [IDEMPOTENCY_KEY]: asks. LEDGER_STATUS and LEDGER_ANSWER hold what it answered. Fails when it is away.
ledger() {
    local answer=$WORK/ledger-answer options=(-sS --max-time 15 --retry 2 --retry-connrefused --retry-max-time 15 -w '%{http_code}' -X "$1")
    [ -z "${3:-}" ] || options+=(-H 'Content-Type: application/json' --data-binary "$3")
    [ -z "${4:-}" ] || options+=(-H "Idempotency-Key: $4")
    # Into a file, which curl empties before it tries again: on standard output the answers of all tries would come together.
    : >"$answer"
    # The key is not for everybody who can list processes.
    LEDGER_STATUS=$(curl "${options[@]}" -o "$answer" -K <(printf 'header = "Authorization: Bearer %s"\n' "$PROP_KEY") "${PROP_URL%/}$2" 2>"$WORK/ledger-said") || {
        LEDGER_WHY=$(tail -n 1 "$WORK/ledger-said")
        return 1
    }
    LEDGER_ANSWER=$(<"$answer")
    if [ "$LEDGER_STATUS" -ge 500 ] || [ "$LEDGER_STATUS" = 429 ] || ! jq -e 'type == "object"' <<<"$LEDGER_ANSWER" >/dev/null 2>&1; then
        LEDGER_WHY="$PROP_URL answers $LEDGER_STATUS: $(head -c 200 <<<"$LEDGER_ANSWER" | tr '\n' ' ')"
        return 1
    fi
}

# answered FILTER: what jq finds in the answer.
answered() { jq -r "$1" <<<"$LEDGER_ANSWER"; }

# ledger_refused WHAT: ends the script because the ledger is there and says no to something that it should not.
ledger_refused() {
    die "$EXIT_PREFLIGHT" "The ledger refuses $1: $(answered '.detail // .title'). Nothing was changed. Without PROP_URL and PROP_KEY it is not asked."
}

# find_ledger: whether there is one, and tells it what it has missed.
find_ledger() {
    if [ -z "${PROP_URL:-}" ] && [ -z "${PROP_KEY:-}" ]; then
        [ "$REQUIRE_LEDGER" = no ] || die "$EXIT_PREFLIGHT" "--require-ledger, but PROP_URL and PROP_KEY are not set."
        warn "There is no ledger (PROP_URL and PROP_KEY are not set): this is not recorded."
        return
    fi
    [ -n "${PROP_URL:+${PROP_KEY:-}}" ] || die "$EXIT_PREFLIGHT" "PROP_URL and PROP_KEY go together; one is not set."
    LEDGER=here
    ledger GET "/v1/deployments?limit=1" || {
        ledger_is_away
        return 0
    }
    [ "$LEDGER_STATUS" = 200 ] || ledger_refused "this key"
    replay
}

ledger_is_away() {
    [ "$REQUIRE_LEDGER" = no ] || die "$EXIT_PREFLIGHT" "The ledger can't be reached, and --require-ledger was given. $LEDGER_WHY"
    LEDGER=away
    warn "${BOLD}THE LEDGER CAN'T BE REACHED.$PLAIN Nobody is asked whether this may go ahead. $LEDGER_WHY"
    note "What happens is kept in $PROP_SPOOL, and told by the next run."
}

# ask_place: what the ledger knows of the service in this environment, in LEDGER_ANSWER; fails when it knows nothing.
ask_place() {
    ledger GET "/v1/services/$LEDGER_SERVICE/environments/$ENVIRONMENT" && [ "$LEDGER_STATUS" = 200 ]
}

# --- A deployment

# describe_run: who asks, from where, and a name for this deployment that no other has.
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

# deployment_body [OBSERVED_AT]: what to tell of this deployment.
deployment_body() {
    jq -nc --arg service "$LEDGER_SERVICE" --arg environment "$ENVIRONMENT" --arg version "$VERSION" --arg sha "$GIT_SHA" --arg digest "$DIGEST" \
        --arg by "$REQUESTED_BY" --arg source "$SOURCE" --arg id "$EXTERNAL_ID" --arg url "$RUN_URL" --arg reason "$REASON" --arg at "${1:-}" '
        {service: $service, environment: $environment, version: $version, git_sha: $sha, image_digest: $digest, requested_by: $by,
            source: $source, external_id: $id, run_url: $url, reason: $reason} | with_entries(select(.value != ""))
        | . + {create_missing: true} + if $at == "" then {start: true} else {observed: true, at: $at} end'
}

# pass_gate: records the release, asks whether it may go there, and says what the gate answers. With FORCE, overrides the
# freezes in its way. Ends the script when it is blocked.
pass_gate() {
    [ "$LEDGER" = here ] || return 0
    local release question reasons freeze
    release=$(deployment_body | jq -c '{service, version, git_sha, image_digest, create_missing} | del(..|nulls)')
    question="/v1/gate?service=$LEDGER_SERVICE&environment=$ENVIRONMENT&version=$(jq -rn --arg v "$VERSION" '$v | @uri')"
    question+="&requested_by=$(jq -rn --arg v "$REQUESTED_BY" '$v | @uri')"
    # GitHub's webhook has told of this very run, as soon as its job began: it does not stand in its own way.
    [ -z "$RUN_URL" ] || question+="&run_url=$(jq -rn --arg v "$RUN_URL" '$v | @uri')"
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/releases "$release"
    else
        ledger POST /v1/releases "$release" "$EXTERNAL_ID/release" || {
            ledger_is_away
            return 0
        }
        case $LEDGER_STATUS in
            200 | 201) ;;
            *) ledger_refused "release $VERSION" ;;
        esac
    fi
    ledger GET "$question" || {
        ledger_is_away
        return 0
    }
    case $LEDGER_STATUS in
        200) ;;
        404) # Nothing is known of the environment, so nothing is asked there; in a dry run, perhaps of the release.
            note "The gate: $(answered .detail) It becomes known with this deployment."
            return
            ;;
        *) ledger_refused "to say whether this may go ahead" ;;
    esac
    if [ "$(answered .allowed)" = true ]; then
        done_with "The gate lets $LEDGER_SERVICE $VERSION go to $ENVIRONMENT."
        return
    fi
    reasons=$LEDGER_ANSWER
    if [ "$FORCE" = yes ] && jq -e 'all(.reasons[]; .code == "frozen")' <<<"$reasons" >/dev/null; then
        while read -r freeze; do
            override "$freeze"
        done < <(jq -r '.reasons[].id' <<<"$reasons")
        warn "Past the gate, by --force: $(sentences "$reasons")"
        return
    fi
    blocked "$reasons"
}

# sentences JSON: the reasons, one after the other, each with the time when it is over.
sentences() {
    jq -r '[.reasons[] | .detail + if .until then " Until \(.until | sub("\\.[0-9]+"; ""))." else "" end] | join(" ")' <<<"$1"
}

blocked() {
    say "${RED}blocked:$PLAIN prop keeps $LEDGER_SERVICE $VERSION back from $ENVIRONMENT:"
    jq -r '.reasons[] | "  - " + .detail + if .until then " Until \(.until | sub("\\.[0-9]+"; ""))." else "" end' <<<"$1" >&2
    WHY=$(sentences "$1")
    if jq -e 'all(.reasons[]; .code == "deployment_running")' <<<"$1" >/dev/null; then
        die "$EXIT_RUNNING" "Another deployment is running. Nothing was changed. If it is not: --take-over gives it up."
    elif jq -e 'all(.reasons[]; .code == "frozen")' <<<"$1" >/dev/null; then
        die "$EXIT_BLOCKED" "Nothing was changed. --force --reason '...' lets this one through the freeze, with a key that has the scope override."
    elif jq -e 'any(.reasons[]; .code | startswith("approval_"))' <<<"$1" >/dev/null; then
        die "$EXIT_BLOCKED" "Nothing was changed. Somebody else approves at $PROP_URL (POST /v1/approvals)."
    fi
    die "$EXIT_BLOCKED" "Nothing was changed."
}

override() {
    local body
    body=$(jq -nc --arg service "$LEDGER_SERVICE" --arg environment "$ENVIRONMENT" --arg version "$VERSION" --arg reason "$REASON" \
        '{service: $service, environment: $environment, version: $version, reason: $reason}')
    if [ "$DRY_RUN" = yes ]; then
        would_send POST "/v1/freezes/$1/overrides" "$body"
        return
    fi
    ledger POST "/v1/freezes/$1/overrides" "$body" "$EXTERNAL_ID/override/$1" ||
        die "$EXIT_BLOCKED" "The freeze could not be overridden. $LEDGER_WHY Nothing was changed."
    [ "$LEDGER_STATUS" = 201 ] || die "$EXIT_BLOCKED" "The freeze could not be overridden: $(answered '.detail // .title') Nothing was changed."
}

# start_recording: the deployment is running, as far as the ledger is concerned. Ends the script when it says no.
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
    ledger POST /v1/deployments "$body" "$EXTERNAL_ID" || {
        ledger_is_away
        spool ''
        return 0
    }
    case $LEDGER_STATUS in
        200 | 201) LEDGER_ID=$(answered .id) ;;
        409)
            [ "$(answered .code)" = gate_blocked ] || ledger_refused "this deployment"
            blocked "$LEDGER_ANSWER"
            ;;
        *) ledger_refused "this deployment" ;;
    esac
    done_with "Recorded in the ledger: deployment $LEDGER_ID."
}

# finish_recording STATE REASON: how it ended. What can't be told now is kept, and told later.
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
            if ledger POST "/v1/deployments/$LEDGER_ID/transitions" "$transition" "$EXTERNAL_ID/$1"; then
                case $LEDGER_STATUS in
                    200) ;;
                    *) warn "The ledger does not take that it $1: $(answered '.detail // .title')" ;;
                esac
                return 0
            fi
            warn "${BOLD}The ledger can't be reached any more.$PLAIN $LEDGER_WHY The outcome is kept in $PROP_SPOOL."
            ;;
    esac
    [ "$DRY_RUN" = no ] || return 0
    spool "$(jq -c --arg at "$(now)" '. + {observed: true, at: $at}' <<<"$transition")"
    # It may be back by now: perhaps it was the ledger itself that was deployed.
    if [ "$LEDGER" = away ] && ledger GET "/v1/deployments?limit=1" && [ "$LEDGER_STATUS" = 200 ]; then replay; fi
}

# give_up_running: what the ledger takes for running there is cancelled: --take-over.
give_up_running() {
    if [ "$LEDGER" != here ] || ! ask_place; then return 0; fi
    local id body
    id=$(answered '.running.id // ""')
    [ -n "$id" ] || return 0
    body=$(jq -nc --arg reason "Given up by $REQUESTED_BY with --take-over." '{to: "cancelled", reason: $reason}')
    if [ "$DRY_RUN" = yes ]; then
        would_send POST "/v1/deployments/$id/transitions" "$body"
    elif ledger POST "/v1/deployments/$id/transitions" "$body" && [ "$LEDGER_STATUS" = 200 ]; then
        warn "Deployment $id, which the ledger took for running, is cancelled."
    fi
}

# resume_recording: finds the running deployment of this release, which an interrupted run has left.
resume_recording() {
    if [ "$LEDGER" != here ] || ! ask_place; then return 0; fi
    LEDGER_ID=$(jq -r --arg version "$VERSION" 'if .running.version == $version then .running.id else "" end' <<<"$LEDGER_ANSWER")
}

would_send() { printf '%swould send:%s %s %s %s\n' "$DIM" "$PLAIN" "$1" "$PROP_URL$2" "$3" >&2; }

# --- The spool

# spool TRANSITION_JSON: keeps this deployment, with how it ended if that is known. Each line stands for itself: the external
# id makes it one deployment, however often it is told.
spool() {
    [ "$DRY_RUN" = no ] || return 0
    local locked=yes
    lock_spool || locked=no
    jq -nc --argjson deployment "$(deployment_body "$STARTED_AT")" --argjson transition "${1:-null}" \
        '{deployment: $deployment, transition: $transition}' >>"$PROP_SPOOL" || warn "$PROP_SPOOL can't be written: this is not recorded."
    [ "$locked" = no ] || unlock_spool
}

# replay: tells the ledger what it has missed, in order, and forgets what was told. Stops at what can't be told yet. The lines
# are taken aside first, so that nobody waits while the ledger is asked; told twice, as when a run is killed, they do no harm.
replay() {
    local taken=$PROP_SPOOL.$$ line told=0
    if [ "$DRY_RUN" = yes ]; then
        [ ! -s "$PROP_SPOOL" ] || note "would tell the ledger of $(wc -l <"$PROP_SPOOL" | tr -d ' ') earlier lines in $PROP_SPOOL"
        return 0
    fi
    take_spool || return 0
    while IFS= read -r line; do
        tell "$line" || break
        told=$((told + 1))
    done <"$taken"
    put_back "$told"
    [ "$told" = 0 ] || done_with "Told the ledger what it had missed: $told $([ "$told" = 1 ] && echo line || echo lines) of $PROP_SPOOL."
}

# take_spool: moves what there is to tell to `taken`, after what a run that was killed has left. Fails when there is nothing, or
# the spool is not to be had.
take_spool() {
    local file
    [ -s "$PROP_SPOOL" ] || [ -n "$(left_behind)" ] || return 1
    lock_spool || {
        warn "$PROP_SPOOL is locked: what it keeps is told by a later run."
        return 1
    }
    while IFS= read -r file; do
        [ "$file" = "$taken" ] || { cat "$file" >>"$taken" && rm -f "$file"; }
    done < <(left_behind)
    if [ -s "$taken" ]; then
        [ ! -f "$PROP_SPOOL" ] || { cat "$PROP_SPOOL" >>"$taken" && rm -f "$PROP_SPOOL"; }
    elif [ -s "$PROP_SPOOL" ]; then
        mv "$PROP_SPOOL" "$taken"
    fi
    unlock_spool
    [ -s "$taken" ]
}

# left_behind: what runs have taken that are no more.
left_behind() {
    local file
    for file in "$PROP_SPOOL".*; do
        [[ $file =~ \.([0-9]+)$ ]] || continue
        [ "${BASH_REMATCH[1]}" != $$ ] && kill -0 "${BASH_REMATCH[1]}" 2>/dev/null || echo "$file"
    done
}

# put_back TOLD: what is left of `taken` after so many lines comes before what was kept meanwhile.
put_back() {
    tail -n "+$(($1 + 1))" "$taken" >"$taken.left"
    mv "$taken.left" "$taken"
    if [ -s "$taken" ]; then
        lock_spool || return 0 # it stays where it is: a later run finds it there
        [ ! -f "$PROP_SPOOL" ] || cat "$PROP_SPOOL" >>"$taken"
        mv "$taken" "$PROP_SPOOL"
        unlock_spool
    else
        rm -f "$taken"
    fi
}

# tell LINE: one line of the spool. Fails when it is to be told later; what can never be told is put aside.
tell() {
    local deployment transition place
    if ! deployment=$(jq -ce .deployment <<<"$1" 2>/dev/null); then
        put_aside "$1" "It is not a line of a spool."
        return
    fi
    transition=$(jq -c .transition <<<"$1")
    place=$(jq -r '"/v1/services/\(.service)/environments/\(.environment)"' <<<"$deployment")
    ledger GET "$place" || return 1
    if [ "$LEDGER_STATUS" = 200 ]; then
        # Told now, it would cancel what runs there by now.
        if jq -e --argjson old "$deployment" '.running and .running.external_id != $old.external_id' <<<"$LEDGER_ANSWER" >/dev/null; then
            warn "What is in $PROP_SPOOL is told later: another deployment is running there."
            return 1
        fi
        # And it would say that an older release is live, after a newer one.
        transition=$(jq -c --argjson old "$deployment" --argjson how "$transition" '
            if $how.to == "succeeded" and .live and .live.external_id != $old.external_id and .live.started_at > $old.at
            then $how + {to: "cancelled", reason: "It succeeded at \($how.at), and was told when \(.live.version) was live already."}
            else $how end' <<<"$LEDGER_ANSWER")
    fi
    ledger POST /v1/deployments "$deployment" || return 1
    case $LEDGER_STATUS in
        200 | 201) ;;
        401 | 403) return 1 ;;
        *)
            put_aside "$1" "$(answered '.detail // .title')"
            return
            ;;
    esac
    [ "$transition" != null ] || return 0
    ledger POST "/v1/deployments/$(answered .id)/transitions" "$transition" || return 1
    case $LEDGER_STATUS in
        200) ;;
        401 | 403) return 1 ;;
        *) put_aside "$1" "$(answered '.detail // .title')" ;;
    esac
}

put_aside() {
    warn "A line of $PROP_SPOOL can't be told, and is kept in $PROP_SPOOL.refused: $2"
    printf '%s\n' "$1" >>"$PROP_SPOOL.refused"
}

# lock_spool: held for moments only, never while the ledger is asked; so one that is a minute old is a dead run's, and broken.
# Fails when it is not to be had in ten seconds.
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
