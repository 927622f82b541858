#!/usr/bin/env bash
# Builds the image of the commit that is checked out and pushes it to ECR, unless it is there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/aws.sh"

usage() {
    cat <<'END'
Usage: scripts/build.sh [OPTION]... [VERSION] [-- BUILD_OPTION...]

Builds the image of the commit that is checked out, pushes it to ECR and prints its digest on standard output. An image
that ECR has already is not built again.

Each image is tagged with the version in Cargo.toml and the commit, as in 0.1.0-7fd1a60b01f9. VERSION is one more tag for
the same image, as in 1.4.2; ECR's tags are immutable, so a version stays what it is. What follows -- goes to docker buildx
build, or to buildah build.

  --target NAME    prop (the default), or lambda, which adds -lambda to the tags
  --platform LIST  linux/amd64 (the default), linux/arm64, or both with a comma between, which takes docker buildx
  --no-push        only build; prints the image's local name, and needs no AWS
  --allow-dirty    build a tree with changes that are not committed; its tag says so, and it can't have a VERSION
  --dry-run        say what would be run, and change nothing
  --json           print an object instead: image, tag, digest, git_sha, built

Needs git, and docker with buildx or buildah; to push, the AWS CLI and jq. BUILDER=docker or BUILDER=buildah chooses;
AWS_REGION (ap-south-1) and ECR_REPOSITORY (prop-backend) say where to.

Examples:
  scripts/build.sh                                        build and push what is checked out
  scripts/deploy.sh staging "$(scripts/build.sh)"         and deploy it
  scripts/build.sh 1.4.2                                  call it 1.4.2 as well
  scripts/build.sh --no-push --allow-dirty                try the Dockerfile
  scripts/build.sh -- --cache-from type=gha --cache-to type=gha,mode=max

Exit codes: 0 the image is there, 1 building or pushing failed, 2 an argument is wrong, 3 something needed is missing,
4 the tree is dirty, 5 VERSION is another image's.
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
            [ $# -gt 1 ] || misused "$1 wants a value."
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
        -*) misused "There is no option $1." ;;
        *)
            [ -z "$version" ] || misused "One version is enough: $version, or $1?"
            version=$1
            ;;
    esac
    shift
done
build_options=("$@")
[[ $target =~ ^(prop|lambda)$ ]] || misused "There is no target '$target'; there are: prop, lambda."
[[ $platform =~ ^linux/(amd64|arm64)(,linux/(amd64|arm64))?$ ]] || misused "'$platform' is no platform; there are: linux/amd64, linux/arm64."
[ -z "$version" ] || [[ $version =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,120}$ ]] || misused "'$version' can't be an image's tag."
[ $push = yes ] || [ -z "$version" ] || misused "A version is given when the image is pushed."
[ $push = yes ] || [[ $platform != *,* ]] || misused "An image of several platforms can only be pushed."

need git
[ $json = no ] || need jq
cd "$ROOT"
git_sha=$(git rev-parse HEAD 2>/dev/null) || die "$EXIT_PREFLIGHT" "This is no git repository with a commit."
cargo_version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tag=$cargo_version-${git_sha:0:12}
if [ -n "$(git status --porcelain)" ]; then
    [ $allow_dirty = yes ] || die $EXIT_DIRTY "The tree has changes that are not committed, so no commit tells what would be built. Commit them, or --allow-dirty."
    [ -z "$version" ] || misused "A version is for a commit, and this tree has changes."
    # Never found in ECR, and never mistaken for the commit's image.
    tag+=-dirty-$(date -u +%Y%m%d%H%M%S) git_sha+=-dirty
fi
if [ "$target" = lambda ]; then
    tag+=-lambda version+=${version:+-lambda}
fi

# digest_of TAG: what ECR has by that tag; nothing if it has none.
digest_of() {
    local answer
    if answer=$(call ecr describe-images --repository-name "$ECR_REPOSITORY" --image-ids imageTag="$1"); then
        jq -r '.imageDetails[0].imageDigest' <<<"$answer"
    elif ! grep -q ImageNotFoundException "$WORK/aws-said"; then
        die "$EXIT_PREFLIGHT" "ECR does not tell whether it has $1: $(aws_said)"
    fi
}

choose_builder() {
    if [ -z "${BUILDER:-}" ]; then
        if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
            BUILDER=docker
        elif command -v buildah >/dev/null; then
            BUILDER=buildah
        else
            die "$EXIT_PREFLIGHT" "This needs docker with buildx and a running daemon, or buildah."
        fi
    fi
    case $BUILDER in
        docker) ;;
        buildah) [[ $platform != *,* ]] || die "$EXIT_PREFLIGHT" "Images of several platforms are built with docker buildx, which is not here." ;;
        *) misused "BUILDER is docker or buildah, not '$BUILDER'." ;;
    esac
}

# log_in: to ECR, if something is to be pushed there.
log_in() {
    local password=''
    [ $push = yes ] || return 0
    [ "$DRY_RUN" = yes ] || password=$(aws ecr get-login-password) || return 1
    change "$BUILDER" login --username AWS --password-stdin "${repository%%/*}" <<<"$password"
}

# build: builds $image, and pushes it if that is wanted.
build() {
    local options=(--file docker/Dockerfile --target "$target" --platform "$platform" --tag "$image"
        --build-arg PROP_VERSION="$cargo_version" --build-arg BUILD_GIT_SHA="$git_sha" "${build_options[@]}")
    if [ "$BUILDER" = docker ]; then
        local output=--load
        [ $push = no ] || output=--push
        # One manifest to a tag: Lambda takes no index, as an attestation makes one, and ECR's scan looks into none.
        change docker buildx build "${options[@]}" --provenance=false "$output" .
    else
        # The format that has health checks, and layers, so that the next build finds the dependencies compiled.
        change buildah build --format docker --layers "${options[@]}" . && { [ $push = no ] || change buildah push "$image"; }
    fi
}

use_account
built=no digest=''
if [ $push = yes ]; then
    need aws jq
    repository=$(call ecr describe-repositories --repository-names "$ECR_REPOSITORY" --query 'repositories[0].repositoryUri') ||
        die "$EXIT_PREFLIGHT" "No ECR repository $ECR_REPOSITORY in $AWS_REGION: $(aws_said)"
    repository=$(jq -r . <<<"$repository")
    image=$repository:$tag
    digest=$(digest_of "$tag")
    if [ -n "$version" ]; then
        taken=$(digest_of "$version")
        [ -z "$taken" ] || [ "$taken" = "$digest" ] || die $EXIT_TAKEN "$version is $taken in ECR, which is not the image of this commit."
    fi
else
    image=$ECR_REPOSITORY:$tag
fi

if [ -n "$digest" ]; then
    done_with "ECR has $tag already"
else
    choose_builder
    step "Building $image with $BUILDER"
    if log_in >&2 && build >&2; then
        built=yes
    elif [ $push = yes ] && [ -n "$(digest_of "$tag")" ]; then
        warn "$tag was pushed by somebody else in the meantime"
    else
        die "The image was not built, or not pushed."
    fi
    if [ "$DRY_RUN" = yes ]; then
        built=no
    elif [ $push = yes ]; then
        digest=$(digest_of "$tag")
        [ -n "$digest" ] || die "$tag was pushed, but ECR does not have it."
        done_with "pushed $tag"
    else
        done_with "built $image"
    fi
fi

if [ -n "$version" ] && [ -z "$taken" ]; then
    step "Calling it $version"
    original=''
    [ -z "$digest" ] || original=$(call ecr batch-get-image --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$digest") ||
        die "ECR has $digest, but does not give it: $(aws_said)"
    # The digest goes along so that ECR refuses what is not the same to the byte.
    alter ecr put-image --repository-name "$ECR_REPOSITORY" --image-tag "$version" --image-digest "${digest:-(not known yet)}" \
        --image-manifest "$(jq -j '.images[0].imageManifest' <<<"$original")" \
        --image-manifest-media-type "$(jq -r '.images[0].imageManifestMediaType' <<<"$original")" >/dev/null ||
        die "The image is in ECR as $tag, but could not be called $version: $(aws_said)"
fi

if [ $json = yes ]; then
    jq -n --arg image "${image%:*}" --arg tag "${version:-$tag}" --arg digest "$digest" --arg git_sha "$git_sha" --arg built $built \
        '{image: $image, tag: $tag, digest: (if $digest == "" then null else $digest end), git_sha: $git_sha, built: ($built == "yes")}'
elif [ $push = no ]; then
    echo "$image"
elif [ -n "$digest" ]; then
    echo "$digest"
fi
