# shellcheck shell=bash
# How the scripts call AWS: sourced after lib.sh. Works with the AWS CLI 1 and 2.

# The CLI waits and asks again when AWS throttles.
export AWS_RETRY_MODE=${AWS_RETRY_MODE:-standard} AWS_MAX_ATTEMPTS=${AWS_MAX_ATTEMPTS:-8}

# call SERVICE OPERATION...: JSON on standard output. What AWS has against it stays for aws_said.
call() { aws "$@" --output json 2>"$WORK/aws-said"; }

# aws_said: why the last call failed, in one line.
aws_said() {
    local said denied='is not authorized to perform: ([a-zA-Z0-9:-]+)'
    said=$(tr -s '\n' ' ' <"$WORK/aws-said")
    if [[ $said =~ $denied ]]; then
        echo "AWS denies ${BASH_REMATCH[1]} to ${IDENTITY:-these credentials}."
    elif [[ $said =~ (ExpiredToken|InvalidClientTokenId|UnrecognizedClient|Unable to locate credentials) ]]; then
        echo "There are no valid AWS credentials (${BASH_REMATCH[1]})."
    else
        said=${said#*operation: }
        echo "${said:-The AWS CLI failed without a word.}"
    fi
}

# alter SERVICE OPERATION...: a call that changes something; a dry run prints it, and answers nothing.
alter() {
    if [ "$DRY_RUN" = yes ]; then
        change aws "$@"
    else
        call "$@"
    fi
}

# identify: who calls, and in which account; refuses another account than AWS_ACCOUNT_ID, if that is set.
identify() {
    local caller
    caller=$(call sts get-caller-identity) || die "$EXIT_PREFLIGHT" "$(aws_said)"
    IDENTITY=$(jq -r .Arn <<<"$caller") ACCOUNT=$(jq -r .Account <<<"$caller")
    [ "${AWS_ACCOUNT_ID:-$ACCOUNT}" = "$ACCOUNT" ] ||
        die "$EXIT_PREFLIGHT" "These credentials are of account $ACCOUNT, but AWS_ACCOUNT_ID is $AWS_ACCOUNT_ID."
}
