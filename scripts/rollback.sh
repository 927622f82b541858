#!/usr/bin/env bash
# Goes back to the previous good release of an environment.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"
. "$(dirname "$0")/ecs.sh"
. "$(dirname "$0")/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/rollback.sh <environment> [VERSION or DIGEST] [OPTION]...

Deploys the release that was live before, as deploy.sh does it: with everything that proves it. prop says which one that is:
the latest other one that was live there and was not itself rolled back. When prop can't be asked, ECS's task definitions
say it. It is refused when the image is no longer in ECR. A freeze and an open incident let a rollback through.

  scripts/rollback.sh production
  scripts/rollback.sh production --dry-run
  scripts/rollback.sh production 1.4.0              to an older one
  scripts/rollback.sh production --take-over        from a deployment that is still running

Options, variables and exit codes are those of deploy.sh; so is 3, when there is nothing to go back to.
END
}

read_arguments() {
    local words=()
    PASSED_ON=() TAKE_OVER=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                usage
                exit
                ;;
            --resume | --release) misused "$1 is for deploy.sh." ;;
            --reason | --service | --timeout)
                [ -n "${2:-}" ] || misused "$1 wants a value."
                [ "$1" != --service ] || LEDGER_SERVICE=$2
                PASSED_ON+=("$1" "$2")
                shift
                ;;
            -*)
                [ "$1" != --take-over ] || TAKE_OVER=yes
                PASSED_ON+=("$1")
                ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    [ ${#words[@]} -le 2 ] || misused "What is '${words[2]}'?"
    use_environment "${words[0]:-}"
    WANTED=${words[1]:-}
}

# is_up_to_date: whether prop takes for live what ECS runs. It does not when something was deployed past it, or it was away and
# was not told yet: then what it calls previous was not live before.
is_up_to_date() {
    local definition runs
    definition=$(task_definition "$(proven_definition)") || die "$EXIT_PREFLIGHT" "$(aws_said)"
    runs=$(digest_in "$definition")
    [ -n "$runs" ] && jq -e --arg runs "$runs" '.live.image_digest and .live.image_digest != $runs' <<<"$LEDGER_ANSWER" >/dev/null || return 0
    warn "prop takes $(answered .live.version) ($(short "$(answered .live.image_digest)")) for live, but ECS runs $(short "$runs"): ECS's task definitions say what ran before."
    return 1
}

# find_previous: what to go back to, in WANTED (a digest) and VERSION (its name, where the ledger knows it).
find_previous() {
    local definition target=previous
    if [ -n "${PROP_URL:+${PROP_KEY:-}}" ]; then
        if ! ask_place; then
            warn "prop can't say what to go back to; ECS's task definitions do. ${LEDGER_WHY:-$(answered '.detail // .title')}"
        elif is_up_to_date; then
            # What is running is not live yet: going back from it is going to what still is.
            [ "$TAKE_OVER" = no ] || [ "$(answered '.running != null')" = false ] || target=live
            WANTED=$(answered ".$target.image_digest // \"\"") VERSION=$(answered ".$target.version // \"\"")
            [ -n "$VERSION" ] || die "$EXIT_PREFLIGHT" "prop knows of nothing to go back to: no other release was live in $ENVIRONMENT."
            [ -n "$WANTED" ] || WANTED=$VERSION
            note "prop says: $VERSION was live before$(answered '(.running // .live) | if . then " \(.version)" else "" end')."
            return
        fi
    fi
    definition=$(last_good_revision "$(of_service .taskDefinition)") ||
        die "$EXIT_PREFLIGHT" "There is nothing to go back to: no earlier revision of $TASK_FAMILY has another image."
    WANTED=$(digest_in "$definition")
    note "ECS says: revision $(jq -r .revision <<<"$definition") ran $(short "$WANTED") before."
}

read_arguments "$@"
need aws jq curl
find_service
step "Going back in $BOLD$ENVIRONMENT$PLAIN"
VERSION=''
[ -n "$WANTED" ] || find_previous
if ! resolve_image "$WANTED"; then
    ! no_image || die "$EXIT_PREFLIGHT" \
        "The image of ${VERSION:-the previous release} ($WANTED) is gone from ECR: it can't be put back. Build it again from its commit, or name another version."
    die "$EXIT_PREFLIGHT" "The image $WANTED can't be looked up in $ECR_REPOSITORY. $(aws_said)"
fi
[ -z "$VERSION" ] || PASSED_ON+=(--release "$VERSION")
rm -rf "$WORK"
exec "$(dirname "$0")/deploy.sh" "$ENVIRONMENT" "$DIGEST" --rollback ${PASSED_ON[@]+"${PASSED_ON[@]}"}
