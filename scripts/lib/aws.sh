# shellcheck shell=bash
# Calls AWS with the AWS CLI, version 1 or 2. Source it after common.sh.

# The CLI waits and retries when AWS throttles a call.
export AWS_RETRY_MODE=${AWS_RETRY_MODE:-standard} AWS_MAX_ATTEMPTS=${AWS_MAX_ATTEMPTS:-8}

# aws_json SERVICE OPERATION...: prints the response as JSON. When the call fails, aws_error prints the reason.
aws_json() { aws "$@" --output json 2>"$WORK/aws-error"; }

# aws_error: prints why the last call failed, in one line.
aws_error() {
    local error denied='is not authorized to perform: ([a-zA-Z0-9:-]+)'
    error=$(tr -s '\n' ' ' <"$WORK/aws-error")
    if [[ $error =~ $denied ]]; then
        echo "AWS denies ${BASH_REMATCH[1]} to ${IDENTITY:-these credentials}."
    elif [[ $error =~ (ExpiredToken|InvalidClientTokenId|UnrecognizedClient|Unable to locate credentials) ]]; then
        echo "The AWS credentials are missing or not valid (${BASH_REMATCH[1]}). Run 'aws configure' or 'aws sso login'."
    else
        error=${error#*operation: }
        echo "${error:-The AWS CLI failed without an error message.}"
    fi
}

# aws_change SERVICE OPERATION...: a call that changes something. In a dry run it is printed, and there is no response.
aws_change() {
    if [ "$DRY_RUN" = yes ]; then
        run_or_print aws "$@"
    else
        aws_json "$@"
    fi
}

# check_identity: sets IDENTITY and ACCOUNT. Ends the script if AWS_ACCOUNT_ID is set and names another account.
check_identity() {
    local caller
    caller=$(aws_json sts get-caller-identity) || die "$EXIT_PREFLIGHT" "$(aws_error)"
    read -r ACCOUNT IDENTITY < <(jq -r '"\(.Account) \(.Arn)"' <<<"$caller")
    [ "${AWS_ACCOUNT_ID:-$ACCOUNT}" = "$ACCOUNT" ] ||
        die "$EXIT_PREFLIGHT" "The credentials belong to account $ACCOUNT, but AWS_ACCOUNT_ID is $AWS_ACCOUNT_ID."
}
