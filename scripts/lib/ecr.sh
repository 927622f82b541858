# shellcheck shell=bash
# The tags of images in ECR. Source it after common.sh and aws.sh.

# tag_image DIGEST TAG: gives an image another tag. With --dry-run, the digest may be empty, because it is not known yet.
tag_image() {
    local image=''
    [ -z "$1" ] || image=$(aws_json ecr batch-get-image --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$1") || return 1
    # With the digest, ECR rejects a manifest that is not identical to the byte.
    aws_change ecr put-image --repository-name "$ECR_REPOSITORY" --image-tag "$2" --image-digest "${1:-(not known yet)}" \
        --image-manifest "$(jq -j '.images[0].imageManifest' <<<"$image")" \
        --image-manifest-media-type "$(jq -r '.images[0].imageManifestMediaType' <<<"$image")" >/dev/null
}

# mark_live DIGEST: tags the image as one that was live in ENVIRONMENT. ECR's lifecycle policy (terraform/ecr.tf) keeps such images
# apart from the newest ones, so that what runs and what a rollback needs does not expire. A failure is a warning only.
mark_live() {
    local tag=live-$ENVIRONMENT-${1:7:12}
    tag_image "$1" "$tag" || grep -q AlreadyExistsException "$WORK/aws-error" ||
        warn "Cannot tag the image $tag, so ECR may expire it after 200 newer ones. $(aws_error)"
}

# other_tags DESCRIPTION: prints the tags of an image without those of mark_live, from what describe-images answered.
other_tags() { jq -r '[.imageDetails[0].imageTags[]? | select(startswith("live-") | not)] | join(" ")' <<<"$1"; }
