#!/usr/bin/env bash
# Builds the image of the checked-out commit and pushes it to ECR, unless ECR already has it.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/aws.sh"
source "$(dirname "$0")/lib/ecr.sh"

usage() {
    cat <<'END'
Usage: scripts/build.sh [OPTION]... [VERSION] [-- BUILD_OPTION...]
Build the image of the checked-out commit, push it to ECR and print its digest.

Each image has a tag made of the version in Cargo.toml and the commit, as in 0.1.0-7fd1a60b01f9. VERSION adds one more tag to
the same image, as in 1.4.2. Tags in ECR are immutable, so a version always names the same image. An image that ECR already
has is not built again. Arguments after -- are passed to docker buildx build or buildah build.

The script needs git, and docker with buildx, or buildah. To push, it needs the AWS CLI and jq.

Options:
  --target NAME    prop (default) or lambda; lambda adds -lambda to the tags
  --platform LIST  linux/amd64 (default), linux/arm64, or both separated by a comma; both need docker buildx
  --no-push        only build, and print the image's local name; needs no AWS access
  --allow-dirty    build a tree with uncommitted changes; the tag contains "dirty", and VERSION is not allowed
  --dry-run        print the commands that would change something, without running them
  --json           print a JSON object instead: image, tag, digest, git_sha, built
  -h, --help       print this help

Environment:
  BUILDER         docker or buildah (default: docker if its daemon runs, else buildah)
  AWS_REGION      AWS region of the repository (default: ap-south-1)
  ECR_REPOSITORY  name of the repository (default: prop-backend)

Examples:
  scripts/build.sh
  scripts/deploy.sh staging "$(scripts/build.sh)"
  scripts/build.sh 1.4.2
  scripts/build.sh --no-push --allow-dirty
  scripts/build.sh -- --cache-from type=gha --cache-to type=gha,mode=max

Exit codes:
  0  the image is available
  1  the build or the push failed
  2  wrong argument
  3  a tool, the repository or AWS access is missing
  4  the tree has uncommitted changes
  5  another image already has the tag VERSION
END
}
readonly EXIT_DIRTY=4 EXIT_TAKEN=5

version='' target=prop platform=linux/amd64 push=yes allow_dirty=no json=no
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --target | --platform)
            [ $# -gt 1 ] || missing_value "$1"
            if [ "$1" = --target ]; then target=$2; else platform=$2; fi
            shift
            ;;
        --no-push) push=no ;;
        --allow-dirty) allow_dirty=yes ;;
        --dry-run) DRY_RUN=yes ;;
        --json) json=yes ;;
        --)
            shift
            break
            ;;
        -*) unknown_option "$1" ;;
        *)
            [ -z "$version" ] || unexpected_argument "$1"
            version=$1
            ;;
    esac
    shift
done
build_options=("$@")
[[ $target =~ ^(prop|lambda)$ ]] || usage_error "unknown target '$target'; must be prop or lambda."
[[ $platform =~ ^linux/(amd64|arm64)(,linux/(amd64|arm64))?$ ]] || usage_error "unknown platform '$platform'; must be linux/amd64, linux/arm64 or both separated by a comma."
[ -z "$version" ] || [[ $version =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,120}$ ]] || usage_error "'$version' is not a valid image tag."
[ $push = yes ] || [ -z "$version" ] || usage_error "VERSION cannot be combined with --no-push."
[ $push = yes ] || [[ $platform != *,* ]] || usage_error "--no-push needs a single platform: an image for several platforms can only be pushed."

require_tools git
[ $json = no ] || require_tools jq
cd "$ROOT"
git_sha=$(git rev-parse HEAD 2>/dev/null) || die "$EXIT_PREFLIGHT" "$ROOT is not a git repository with a commit."
cargo_version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tag=$cargo_version-${git_sha:0:12}
if [ -n "$(git status --porcelain)" ]; then
    [ $allow_dirty = yes ] || die $EXIT_DIRTY "The tree has uncommitted changes, so the image would not match its commit. Commit the changes or use --allow-dirty."
    [ -z "$version" ] || usage_error "VERSION cannot be combined with --allow-dirty: the tree has uncommitted changes."
    # A unique tag, so that the image is never mistaken for the commit's image.
    tag+=-dirty-$(date -u +%Y%m%d%H%M%S) git_sha+=-dirty
fi
if [ "$target" = lambda ]; then
    tag+=-lambda version+=${version:+-lambda}
fi

# digest_of TAG: prints the digest of the image with that tag in ECR, or nothing if there is none.
digest_of() {
    local answer
    if answer=$(aws_json ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids imageTag="$1"); then
        jq -r '.imageDetails[0].imageDigest' <<<"$answer"
    elif ! grep -q ImageNotFoundException "$WORK/aws-error"; then
        die "$EXIT_PREFLIGHT" "Cannot look up the tag $1 in ECR. $(aws_error)"
    fi
}

choose_builder() {
    if [ -z "${BUILDER:-}" ]; then
        if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
            BUILDER=docker
        elif command -v buildah >/dev/null; then
            BUILDER=buildah
        else
            die "$EXIT_PREFLIGHT" "Neither docker with buildx and a running daemon nor buildah was found. Install one of them."
        fi
    fi
    case $BUILDER in
        docker) ;;
        buildah) [[ $platform != *,* ]] || die "$EXIT_PREFLIGHT" "An image for several platforms needs docker buildx, but the builder is buildah." ;;
        *) usage_error "BUILDER must be docker or buildah, not '$BUILDER'." ;;
    esac
}

# log_in: logs the builder in to ECR, if the image is to be pushed.
log_in() {
    local password=''
    [ $push = yes ] || return 0
    [ "$DRY_RUN" = yes ] || password=$(aws ecr get-login-password) || return 1
    run_or_print "$BUILDER" login --username AWS --password-stdin "${repository%%/*}" <<<"$password"
}

# build: builds $image, and pushes it unless --no-push was given.
build() {
    local options=(--file docker/Dockerfile --target "$target" --platform "$platform" --tag "$image"
        --build-arg PROP_VERSION="$cargo_version" --build-arg BUILD_GIT_SHA="$git_sha" "${build_options[@]}")
    if [ "$BUILDER" = docker ]; then
        local output=--load
        [ $push = no ] || output=--push
        # One manifest per tag: an attestation would turn it into an index, which Lambda and ECR's scan do not support.
        run_or_print docker buildx build "${options[@]}" --provenance=false "$output" .
    else
        # The docker format supports health checks. Layers let the next build reuse the compiled dependencies.
        run_or_print buildah build --format docker --layers "${options[@]}" . && { [ $push = no ] || run_or_print buildah push "$image"; }
    fi
}

use_account
built=no digest=''
if [ $push = yes ]; then
    require_tools aws jq
    repository=$(aws_json ecr describe-repositories --repository-names "$ECR_REPOSITORY" --query 'repositories[0].repositoryUri') ||
        die "$EXIT_PREFLIGHT" "Cannot read the ECR repository $ECR_REPOSITORY in $AWS_REGION. $(aws_error)"
    repository=$(jq -r . <<<"$repository")
    image=$repository:$tag
    digest=$(digest_of "$tag")
    if [ -n "$version" ]; then
        taken=$(digest_of "$version")
        [ -z "$taken" ] || [ "$taken" = "$digest" ] || die $EXIT_TAKEN "The tag $version already names $taken in ECR, which is not the image of this commit. Choose another version."
    fi
else
    image=$ECR_REPOSITORY:$tag
fi

if [ -n "$digest" ]; then
    success "ECR already has $tag"
else
    choose_builder
    step "Building $image with $BUILDER"
    if log_in >&2 && build >&2; then
        built=yes
    elif [ $push = yes ] && [ -n "$(digest_of "$tag")" ]; then
        warn "another build has pushed $tag meanwhile; using its image"
    else
        die "The build or the push failed; see above."
    fi
    if [ "$DRY_RUN" = yes ]; then
        built=no
    elif [ $push = yes ]; then
        digest=$(digest_of "$tag")
        [ -n "$digest" ] || die "$tag was pushed, but ECR does not have it."
        success "pushed $tag"
    else
        success "built $image"
    fi
fi

if [ -n "$version" ] && [ -z "$taken" ]; then
    step "Tagging it $version"
    tag_image "$digest" "$version" ||
        die "The image is in ECR as $tag, but cannot be tagged $version. $(aws_error)"
fi

if [ $json = yes ]; then
    jq -n --arg image "${image%:*}" --arg tag "${version:-$tag}" --arg digest "$digest" --arg git_sha "$git_sha" --arg built $built \
        '{image: $image, tag: $tag, digest: (if $digest == "" then null else $digest end), git_sha: $git_sha, built: ($built == "yes")}'
elif [ $push = no ]; then
    echo "$image"
elif [ -n "$digest" ]; then
    echo "$digest"
fi
