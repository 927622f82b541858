# shellcheck shell=bash
# Tags of images in ECR. Source it after common.sh and aws.sh.

# mark_live DIGEST: tags the image as one that was live in ENVIRONMENT. ECR's lifecycle policy (terraform/ecr.tf) keeps such images
# apart from the newest ones, so that what runs and what a rollback needs does not expire. A failure is a warning only.
mark_live() {
    local digest=$1 tag=live-$ENVIRONMENT-${1:7:12} image
    image=$(aws_json ecr batch-get-image --repository-name "$ECR_REPOSITORY" --image-ids imageDigest="$digest") &&
        aws_change ecr put-image --repository-name "$ECR_REPOSITORY" --image-tag "$tag" --image-digest "$digest" \
            --image-manifest "$(jq -j '.images[0].imageManifest' <<<"$image")" \
            --image-manifest-media-type "$(jq -r '.images[0].imageManifestMediaType' <<<"$image")" >/dev/null ||
        grep -q AlreadyExistsException "$WORK/aws-error" ||
        warn "Cannot tag the image $tag, so ECR may expire it after 200 newer ones. $(aws_error)"
}
