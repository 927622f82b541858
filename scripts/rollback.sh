#!/usr/bin/env bash
# Rolls an environment back to its previous good release.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecr.sh"
source "$(dirname "$0")/lib/ecs.sh"
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<'END'
Usage: scripts/rollback.sh ENVIRONMENT [VERSION|DIGEST] [OPTION]...
Roll an environment back to its previous good release.

The script takes the release from prop: the last other release that was live in the environment and was not itself rolled
back. If prop cannot be reached, the script takes it from ECS's task definitions. It then runs deploy.sh with that release.
Freezes and open incidents do not block a rollback. A rollback needs the image to be in ECR still.

Options:
  --take-over  roll back from a deployment that is still running
  -h, --help   print this help
  All other options of deploy.sh except --resume and --release; see scripts/deploy.sh --help.

Environment:
  The same variables as for deploy.sh.

Examples:
  scripts/rollback.sh production
  scripts/rollback.sh production --dry-run
  scripts/rollback.sh production 1.4.0
  scripts/rollback.sh production --take-over

Exit codes:
  3  preflight check failed, or there is no release to roll back to; nothing was changed
  All other codes are those of deploy.sh.
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
            --resume | --release) usage_error "$1 is an option of deploy.sh only." ;;
            --reason | --service | --timeout)
                [ -n "${2:-}" ] || missing_value "$1"
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
    [ ${#words[@]} -le 2 ] || unexpected_argument "${words[2]}"
    use_environment "${words[0]:-}"
    WANTED=${words[1]:-}
}

# is_up_to_date: succeeds if prop has the release as live that ECS runs. It does not if a deployment was not reported to prop, or
# not yet. Then prop's previous release is not the one that was live before.
is_up_to_date() {
    local definition digest
    definition=$(task_definition "$(last_completed_definition)") || die "$EXIT_PREFLIGHT" "$(aws_error)"
    digest=$(definition_digest "$definition")
    [ -n "$digest" ] && jq -e --arg digest "$digest" '.live.image_digest and .live.image_digest != $digest' <<<"$LEDGER_ANSWER" >/dev/null || return 0
    warn "prop has $(ledger_get .live.version) ($(short_digest "$(ledger_get .live.image_digest)")) as live, but ECS runs $(short_digest "$digest"). Using ECS's task definitions instead of prop."
    return 1
}

# find_previous: sets WANTED to the digest to roll back to, and VERSION if prop knows it.
find_previous() {
    local definition target=previous
    if [ -n "${PROP_URL:+${PROP_KEY:-}}" ]; then
        if ! load_place; then
            warn "Cannot read the previous release from prop; using ECS's task definitions instead. ${LEDGER_WHY:-$(ledger_problem)}"
        elif is_up_to_date; then
            # A running deployment is not live yet, so the release to restore is the one that still is.
            [ "$TAKE_OVER" = no ] || [ "$(ledger_get '.running != null')" = false ] || target=live
            WANTED=$(ledger_get ".$target.image_digest // \"\"") VERSION=$(ledger_get ".$target.version // \"\"")
            [ -n "$VERSION" ] || die "$EXIT_PREFLIGHT" "There is no release to roll back to: no other release was live in $ENVIRONMENT. Name a version to deploy an older one."
            [ -n "$WANTED" ] || WANTED=$VERSION
            detail "previous release, from prop: $VERSION, live before$(ledger_get '(.running // .live) | if . then " \(.version)" else "" end')."
            return
        fi
    fi
    definition=$(last_good_revision "$(service_get .taskDefinition)") ||
        die "$EXIT_PREFLIGHT" "There is no release to roll back to: no earlier revision of $TASK_FAMILY has another image."
    WANTED=$(definition_digest "$definition")
    detail "previous release, from ECS: revision $(jq -r .revision <<<"$definition") with $(short_digest "$WANTED")"
}

read_arguments "$@"
require_tools aws jq curl
require_service
step "Rolling back $BOLD$ENVIRONMENT$PLAIN"
VERSION=''
[ -n "$WANTED" ] || find_previous
if ! resolve_image "$WANTED"; then
    ! image_not_found || die "$EXIT_PREFLIGHT" \
        "The image of ${VERSION:-the previous release} ($WANTED) is no longer in ECR. Build it again from its commit, or name another version."
    die "$EXIT_PREFLIGHT" "Cannot look up the image $WANTED in $ECR_REPOSITORY. $(aws_error)"
fi
[ -z "$VERSION" ] || PASSED_ON+=(--release "$VERSION")
rm -rf "$WORK"
exec "$(dirname "$0")/deploy.sh" "$ENVIRONMENT" "$DIGEST" --rollback ${PASSED_ON[@]+"${PASSED_ON[@]}"}
