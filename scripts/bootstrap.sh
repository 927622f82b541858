#!/usr/bin/env bash
# Makes what Terraform keeps its state in.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

: "${STATE_BUCKET:=prop-terraform-state}"
: "${LOCK_TABLE:=prop-terraform-locks}"
: "${STATE_REGION:=ap-south-1}"
readonly EXIT_TAKEN=4

usage() {
    cat <<END
Usage: scripts/bootstrap.sh [--dry-run]

Makes, once per AWS account, what Terraform keeps its state in: an S3 bucket (versioned, encrypted, closed to the public,
TLS only) and a DynamoDB table for locks (paid per request, encrypted, protected from deletion). What is there already
stays, and its settings are put right: it can be run again at any time.

  --dry-run   print each call that would change something, and make none
  --help      this

Names, overridden by variables (a bucket's name is global, so prop-terraform-state may be somebody else's already):

  STATE_BUCKET   $STATE_BUCKET
  LOCK_TABLE     $LOCK_TABLE
  STATE_REGION   $STATE_REGION

Examples:

  scripts/bootstrap.sh --dry-run
  STATE_BUCKET=acme-prop-state scripts/bootstrap.sh

Needs aws (1.45 or later, or 2), jq, and credentials that may make buckets and tables.

Exit codes: 0 done; 1 AWS refused something; 2 an argument or a name is wrong; 3 a tool or the credentials are missing;
4 the bucket's name is taken by another account, or the table is not one for locks.
END
}

for argument in "$@"; do
    case $argument in
        --dry-run) DRY_RUN=yes ;;
        -h | --help)
            usage
            exit
            ;;
        *) misused "There is no option '$argument'." ;;
    esac
done
[[ $STATE_BUCKET =~ ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$ && $STATE_BUCKET != *..* ]] ||
    misused "'$STATE_BUCKET' can't be a bucket's name: 3 to 63 of a-z, 0-9, '-' and '.', a letter or digit at both ends."
[[ $LOCK_TABLE =~ ^[A-Za-z0-9_.-]{3,255}$ ]] || misused "'$LOCK_TABLE' can't be a table's name: 3 to 255 of A-Z, a-z, 0-9, '_', '-' and '.'."
need aws jq
export AWS_PAGER='' AWS_DEFAULT_OUTPUT=json AWS_REGION=$STATE_REGION AWS_DEFAULT_REGION=$STATE_REGION

# found ABSENT COMMAND...: prints what is there; nothing when AWS answers with one of the codes that ABSENT, a pattern, names.
found() {
    local absent=$1 answer
    shift
    if answer=$("$@" 2>&1); then
        printf '%s\n' "$answer"
    elif [[ ! $answer =~ \(($absent)\) ]]; then
        say "$answer"
        return 1
    fi
}

account=$(aws sts get-caller-identity --query Account --output text) ||
    die "$EXIT_PREFLIGHT" "AWS doesn't say who this is (see above): 'aws configure' or 'aws sso login' gives credentials."

make_bucket() {
    local answer placement=()
    # us-east-1 is the region that must not be named.
    [ "$STATE_REGION" = us-east-1 ] || placement=(--create-bucket-configuration "LocationConstraint=$STATE_REGION")
    if ! answer=$(change aws s3api create-bucket --bucket "$STATE_BUCKET" "${placement[@]}" 2>&1); then
        say "$answer"
        [[ $answer != *"(BucketAlreadyExists)"* ]] || bucket_is_taken
        exit "$EXIT_FAILED"
    fi
    [ "$DRY_RUN" = no ] || say "$answer"
}

bucket_is_taken() {
    die "$EXIT_TAKEN" "The bucket $STATE_BUCKET is another account's, or closed to you. Choose a name of your own: STATE_BUCKET=... scripts/$SCRIPT"
}

bucket() {
    step "Bucket $STATE_BUCKET in $STATE_REGION"
    local answer
    if answer=$(aws s3api head-bucket --bucket "$STATE_BUCKET" --expected-bucket-owner "$account" 2>&1); then
        done_with 'it is there'
    elif [[ $answer == *"(404)"* ]]; then
        make_bucket
    elif [[ $answer == *"(403)"* ]]; then
        bucket_is_taken
    else
        die "$answer"
    fi
    local mine=(--bucket "$STATE_BUCKET" --expected-bucket-owner "$account")
    change aws s3api put-public-access-block "${mine[@]}" \
        --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
    change aws s3api put-bucket-versioning "${mine[@]}" --versioning-configuration Status=Enabled
    change aws s3api put-bucket-encryption "${mine[@]}" \
        --server-side-encryption-configuration '{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}'
    answer=$(policy "${mine[@]}")
    change aws s3api put-bucket-policy "${mine[@]}" --policy "$answer"
    answer=$(tags "${mine[@]}")
    change aws s3api put-bucket-tagging "${mine[@]}" --tagging "$answer"
    keep_lifecycle "${mine[@]}"
}

# The bucket's policy with our statement in it: what others have added stays.
policy() {
    local current
    current=$(found 'NoSuchBucketPolicy|NoSuchBucket' aws s3api get-bucket-policy "$@" --query Policy --output text) || return
    jq -cn --arg bucket "arn:aws:s3:::$STATE_BUCKET" --argjson current "${current:-null}" '
        ($current // {Version: "2012-10-17", Statement: []})
        | .Statement |= map(select(.Sid != "TLSOnly")) + [{
            Sid: "TLSOnly", Effect: "Deny", Principal: "*", Action: "s3:*", Resource: [$bucket, $bucket + "/*"],
            Condition: {Bool: {"aws:SecureTransport": "false"}}
        }]'
}

# Likewise its tags.
tags() {
    local current
    current=$(found 'NoSuchTagSet|NoSuchBucket' aws s3api get-bucket-tagging "$@") || return
    jq -cn --argjson current "${current:-null}" '
        {TagSet: (($current.TagSet // []) + [{Key: "Project", Value: "prop"}, {Key: "ManagedBy", Value: "bootstrap.sh"}] | unique_by(.Key))}'
}

# Each run leaves a version of the state and of its lock file behind: those of the last 90 days are enough, and 20 always stay.
keep_lifecycle() {
    local current
    current=$(found 'NoSuchLifecycleConfiguration|NoSuchBucket' aws s3api get-bucket-lifecycle-configuration "$@")
    [ -z "$current" ] || return 0
    change aws s3api put-bucket-lifecycle-configuration "$@" --lifecycle-configuration '{"Rules":[{
        "ID":"old-versions","Status":"Enabled","Filter":{"Prefix":""},
        "NoncurrentVersionExpiration":{"NoncurrentDays":90,"NewerNoncurrentVersions":20},
        "AbortIncompleteMultipartUpload":{"DaysAfterInitiation":7}}]}'
}

# Nothing in it is worth a backup: a lock lives as long as a run, and a digest can be had from the state again.
table() {
    step "Table $LOCK_TABLE in $STATE_REGION"
    local description
    description=$(found ResourceNotFoundException aws dynamodb describe-table --table-name "$LOCK_TABLE")
    if [ -z "$description" ]; then
        change aws dynamodb create-table --table-name "$LOCK_TABLE" --billing-mode PAY_PER_REQUEST \
            --attribute-definitions AttributeName=LockID,AttributeType=S --key-schema AttributeName=LockID,KeyType=HASH \
            --sse-specification Enabled=true,SSEType=KMS --deletion-protection-enabled \
            --tags 'Key=Project,Value=prop' 'Key=ManagedBy,Value=bootstrap.sh' >/dev/null
        change aws dynamodb wait table-exists --table-name "$LOCK_TABLE"
    elif ! jq -e '.Table.KeySchema == [{AttributeName: "LockID", KeyType: "HASH"}]' <<<"$description" >/dev/null; then
        die "$EXIT_TAKEN" "The table $LOCK_TABLE is there, but not with the one key LockID that locks need. LOCK_TABLE=... names another."
    else
        done_with 'it is there'
        [ "$(jq '.Table.DeletionProtectionEnabled // false' <<<"$description")" = true ] ||
            change aws dynamodb update-table --table-name "$LOCK_TABLE" --deletion-protection-enabled >/dev/null
    fi
}

bucket
table
if [ "$DRY_RUN" = yes ]; then
    say 'Nothing was changed.'
    exit
fi
done_with 'the bucket is versioned, encrypted, closed to the public and TLS only; the table is encrypted and protected from deletion'
say "
Next, with the same names, staging first (it makes what the environments share):

  scripts/infra.sh staging plan
  scripts/infra.sh staging apply"
