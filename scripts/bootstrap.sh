#!/usr/bin/env bash
# Creates the S3 bucket and the DynamoDB table for Terraform's state.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

: "${STATE_BUCKET:=prop-terraform-state}"
: "${LOCK_TABLE:=prop-terraform-locks}"
: "${STATE_REGION:=ap-south-1}"
readonly EXIT_TAKEN=4

usage() {
    cat <<END
Usage: scripts/bootstrap.sh [OPTION]...
Create the S3 bucket and the DynamoDB table for Terraform's state, once per AWS account.

The bucket is versioned, encrypted, private and accepts TLS only. The table holds the state's locks; it is encrypted, billed
per request and protected from deletion, if the AWS CLI is of version 1.27.87, 2.11.2 or later. The script can be run again at
any time: it keeps existing resources and corrects their settings. It needs the AWS CLI, jq, and credentials that may create
buckets and tables.

Options:
  --print-policy  print the IAM policy of whoever runs this script, infra.sh and db.sh, and change nothing: what these scripts and
                  Terraform call, on resources whose names begin with prop. It can create roles, so it can give itself more
  --dry-run       print the calls that would change something, without making them
  -h, --help      print this help

Environment:
  STATE_BUCKET  name of the bucket (now: $STATE_BUCKET); bucket names are unique across all AWS accounts
  LOCK_TABLE    name of the table (now: $LOCK_TABLE)
  STATE_REGION  AWS region of both (now: $STATE_REGION)
  AWS_REGION    --print-policy: AWS region of the environments (default: ap-south-1)

Examples:
  scripts/bootstrap.sh --dry-run
  STATE_BUCKET=acme-prop-state scripts/bootstrap.sh
  scripts/bootstrap.sh --print-policy >policy.json

Exit codes:
  0  bucket and table are ready, or the policy was printed
  1  AWS rejected a call
  2  wrong argument or invalid name
  3  a tool or the AWS credentials are missing
  4  another account owns the bucket name, or the table is not a lock table
END
}

PRINT_POLICY=no
for argument in "$@"; do
    case $argument in
        --print-policy) PRINT_POLICY=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help)
            usage
            exit
            ;;
        -*) unknown_option "$argument" ;;
        *) unexpected_argument "$argument" ;;
    esac
done
[[ $STATE_BUCKET =~ ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$ && $STATE_BUCKET != *..* ]] ||
    usage_error "STATE_BUCKET '$STATE_BUCKET' is not a valid bucket name: use 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends."
[[ $LOCK_TABLE =~ ^[A-Za-z0-9_.-]{3,255}$ ]] || usage_error "LOCK_TABLE '$LOCK_TABLE' is not a valid table name: use 3 to 255 of A-Z, a-z, 0-9, '_', '-' and '.'."
require_tools aws jq
region=${AWS_REGION:-ap-south-1}
export AWS_PAGER='' AWS_DEFAULT_OUTPUT=json AWS_REGION=$STATE_REGION AWS_DEFAULT_REGION=$STATE_REGION

# found ABSENT COMMAND...: prints the response of an AWS command, or nothing if it fails with an error code that matches the
# pattern ABSENT.
found() {
    local absent=$1 answer
    shift
    if answer=$("$@" 2>&1); then
        printf '%s\n' "$answer"
    elif [[ ! $answer =~ \(($absent)\) ]]; then
        info "$answer"
        return 1
    fi
}

account=$(aws sts get-caller-identity --query Account --output text) ||
    die "$EXIT_PREFLIGHT" "Cannot identify the AWS account (see above). To get credentials, run 'aws configure' or 'aws sso login'."

# print_policy: a managed policy has at most 6144 characters, without white space.
print_policy() {
    # shellcheck disable=SC2016 # these are the file's placeholders
    jq --arg account "$account" --arg region "$region" \
        --arg bucket "$STATE_BUCKET" --arg table "$LOCK_TABLE" --arg state_region "$STATE_REGION" '
        def filled: gsub("\\$\\{ACCOUNT\\}"; $account) | gsub("\\$\\{REGION\\}"; $region) | gsub("\\$\\{STATE_BUCKET\\}"; $bucket)
            | gsub("\\$\\{LOCK_TABLE\\}"; $table) | gsub("\\$\\{STATE_REGION\\}"; $state_region);
        walk(if type == "string" then filled else . end)' "$(dirname "$0")/lib/applier-policy.json"
}

make_bucket() {
    local answer placement=()
    # AWS rejects a location constraint for us-east-1.
    [ "$STATE_REGION" = us-east-1 ] || placement=(--create-bucket-configuration "LocationConstraint=$STATE_REGION")
    if ! answer=$(run_or_print aws s3api create-bucket --bucket "$STATE_BUCKET" "${placement[@]}" 2>&1); then
        info "$answer"
        [[ $answer != *"(BucketAlreadyExists)"* ]] || bucket_is_taken
        exit "$EXIT_FAILED"
    fi
    [ "$DRY_RUN" = no ] || info "$answer"
}

bucket_is_taken() {
    die "$EXIT_TAKEN" "The bucket $STATE_BUCKET belongs to another account, or access is denied. Choose another name: STATE_BUCKET=NAME scripts/$SCRIPT"
}

bucket() {
    step "Bucket $STATE_BUCKET in $STATE_REGION"
    local answer
    if answer=$(aws s3api head-bucket --bucket "$STATE_BUCKET" --expected-bucket-owner "$account" 2>&1); then
        success 'the bucket exists'
    elif [[ $answer == *"(404)"* ]]; then
        make_bucket
    elif [[ $answer == *"(403)"* ]]; then
        bucket_is_taken
    else
        die "$answer"
    fi
    local mine=(--bucket "$STATE_BUCKET" --expected-bucket-owner "$account")
    run_or_print aws s3api put-public-access-block "${mine[@]}" \
        --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
    run_or_print aws s3api put-bucket-versioning "${mine[@]}" --versioning-configuration Status=Enabled
    run_or_print aws s3api put-bucket-encryption "${mine[@]}" \
        --server-side-encryption-configuration '{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}'
    answer=$(policy "${mine[@]}")
    run_or_print aws s3api put-bucket-policy "${mine[@]}" --policy "$answer"
    answer=$(tags "${mine[@]}")
    run_or_print aws s3api put-bucket-tagging "${mine[@]}" --tagging "$answer"
    keep_lifecycle "${mine[@]}"
}

# policy: prints the bucket's policy with the TLS-only statement added. Other statements stay.
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

# tags: prints the bucket's tags with Project and ManagedBy added. Other tags stay.
tags() {
    local current
    current=$(found 'NoSuchTagSet|NoSuchBucket' aws s3api get-bucket-tagging "$@") || return
    jq -cn --argjson current "${current:-null}" '
        {TagSet: (($current.TagSet // []) + [{Key: "Project", Value: "prop"}, {Key: "ManagedBy", Value: "bootstrap.sh"}] | unique_by(.Key))}'
}

# keep_lifecycle: expires old versions of the state and its lock file after 90 days, but keeps the newest 20. An existing
# lifecycle configuration stays.
keep_lifecycle() {
    local current
    current=$(found 'NoSuchLifecycleConfiguration|NoSuchBucket' aws s3api get-bucket-lifecycle-configuration "$@")
    [ -z "$current" ] || return 0
    run_or_print aws s3api put-bucket-lifecycle-configuration "$@" --lifecycle-configuration '{"Rules":[{
        "ID":"old-versions","Status":"Enabled","Filter":{"Prefix":""},
        "NoncurrentVersionExpiration":{"NoncurrentDays":90,"NewerNoncurrentVersions":20},
        "AbortIncompleteMultipartUpload":{"DaysAfterInitiation":7}}]}'
}

# can_protect: succeeds if this AWS CLI can protect a table from deletion, as versions 1.27.87 and 2.11.2 of March 2023 can.
can_protect() { aws dynamodb update-table --generate-cli-skeleton 2>/dev/null | jq -e 'has("DeletionProtectionEnabled")' >/dev/null; }

protection=()

# The table needs no backup: a lock lasts as long as a run, and digests can be computed from the state again.
table() {
    step "Table $LOCK_TABLE in $STATE_REGION"
    local description
    if can_protect; then
        protection=(--deletion-protection-enabled)
    else
        warn "This AWS CLI is too old to protect a table from deletion. To protect it, run this script again with 2.11.2 or later."
    fi
    description=$(found ResourceNotFoundException aws dynamodb describe-table --table-name "$LOCK_TABLE")
    if [ -z "$description" ]; then
        run_or_print aws dynamodb create-table --table-name "$LOCK_TABLE" --billing-mode PAY_PER_REQUEST \
            --attribute-definitions AttributeName=LockID,AttributeType=S --key-schema AttributeName=LockID,KeyType=HASH \
            --sse-specification Enabled=true,SSEType=KMS "${protection[@]}" \
            --tags 'Key=Project,Value=prop' 'Key=ManagedBy,Value=bootstrap.sh' >/dev/null
        run_or_print aws dynamodb wait table-exists --table-name "$LOCK_TABLE"
    elif ! jq -e '.Table.KeySchema == [{AttributeName: "LockID", KeyType: "HASH"}]' <<<"$description" >/dev/null; then
        die "$EXIT_TAKEN" "The table $LOCK_TABLE exists, but its key is not LockID, which locks need. Choose another name: LOCK_TABLE=NAME scripts/$SCRIPT"
    else
        success 'the table exists'
        [ ${#protection[@]} = 0 ] || [ "$(jq '.Table.DeletionProtectionEnabled // false' <<<"$description")" = true ] ||
            run_or_print aws dynamodb update-table --table-name "$LOCK_TABLE" "${protection[@]}" >/dev/null
    fi
}

if [ "$PRINT_POLICY" = yes ]; then
    print_policy
    exit
fi
bucket
table
if [ "$DRY_RUN" = yes ]; then
    info 'Dry run: nothing was changed.'
    exit
fi
success "the bucket is versioned, encrypted, private and TLS only; the table is encrypted${protection:+ and protected from deletion}"
info "
Next, with the same names, create staging first, because it also creates the resources that the environments share:

  scripts/infra.sh staging plan
  scripts/infra.sh staging apply"
