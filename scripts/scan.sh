#!/usr/bin/env bash
# Scans for known vulnerabilities, secrets, disallowed licences and unsafe settings, and reports an image's scan to prop.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"
source "$(dirname "$0")/lib/ledger.sh"

usage() {
    cat <<END
Usage: scripts/scan.sh files
       scripts/scan.sh image REFERENCE@DIGEST VERSION
Scan the repository's files or an image for vulnerabilities, secrets, disallowed licences and unsafe settings.

The scan fails if trivy finds something more severe than SCAN_MAX_SEVERITY, or if cargo-deny or checkov finds anything.
Exceptions are listed with their reasons in deny.toml, in .trivyignore or beside the resource. Reports are written to reports/
as SARIF and CycloneDX. The script needs jq and trivy. For files, it also needs cargo-deny and checkov, and installs them if
they are missing (into CARGO_HOME and .venv/checkov).

Commands:
  files       scan dependencies with cargo-deny (deny.toml) and trivy, files for secrets with trivy, and Terraform, Dockerfile
              and workflow with checkov
  image       scan an image with trivy, write its bill of materials, and report the result to prop, whose gate checks it

Options:
  --dry-run   print the requests to prop without sending them
  -h, --help  print this help

Environment:
  SCAN_MAX_SEVERITY  highest severity that passes: low, medium or high (default: medium)
  PROP_URL           address of prop; without PROP_URL and PROP_KEY, the result is not reported
  PROP_KEY           key for prop with the scope deploy, which records the release
  PROP_ATTEST_KEY    key for prop with the scope attest, which reports the scan (default: PROP_KEY)

Examples:
  scripts/scan.sh files
  scripts/scan.sh image 123456789012.dkr.ecr.ap-south-1.amazonaws.com/prop-backend@sha256:9f86... 0.1.0-3f2a9c1d04be

Exit codes:
  0  nothing found
  1  a scanner failed
  2  wrong argument
  3  a tool is missing
  4  something was found
END
}

readonly EXIT_FOUND=4 CARGO_DENY=0.20.2
words=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run) DRY_RUN=yes ;;
        -*) unknown_option "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
max_severity=${SCAN_MAX_SEVERITY:-medium}
case $max_severity in low | medium | high) ;; *) usage_error "SCAN_MAX_SEVERITY must be low, medium or high, not '$max_severity'." ;; esac
reports=reports found=()
cd "$ROOT"

# run_checker NAME COMMAND...: runs a checker that fails if it finds something.
run_checker() {
    local name=$1
    shift
    step "$name"
    "$@" >&2 || found+=("$name")
}

# trivy_scan NAME ARGUMENT...: writes trivy's findings to reports/NAME.json and NAME.sarif, and prints those that are too severe.
trivy_scan() {
    local name=$1 worse
    shift
    step "trivy $1"
    trivy "$@" --quiet --format json --output "$reports/$name.json" || die "trivy failed; see above."
    trivy convert --quiet --format sarif --output "$reports/$name.sarif" "$reports/$name.json" || die "trivy failed; see above."
    worse=$(jq -r --arg max "$max_severity" '["low", "medium", "high", "critical"] as $order
        | .Results[]? | .Target as $target
        | ((.Vulnerabilities // [] | .[] | {Severity, what: "\(.VulnerabilityID) in \(.PkgName) \(.InstalledVersion), \(
              if (.FixedVersion // "") == "" then "not fixed yet" else "fixed in \(.FixedVersion)" end)"}),
            (.Secrets // [] | .[] | {Severity, what: "a secret: \(.Title // .RuleID)"}))
        | select((.Severity | ascii_downcase) as $severity | ($order | index($severity) // -1) > ($order | index($max)))
        | "  \(.Severity) \(.what) (\($target))"' "$reports/$name.json")
    [ -z "$worse" ] || {
        info "$worse"
        found+=("trivy $1")
    }
}

scan_files() {
    if ! command -v cargo-deny >/dev/null; then
        step "Installing cargo-deny $CARGO_DENY"
        cargo install --quiet --locked "cargo-deny@$CARGO_DENY" || die "$EXIT_PREFLIGHT" "Cannot install cargo-deny; see above."
    fi
    run_checker "cargo deny" cargo deny check
    trivy_scan files fs --scanners vuln,secret --skip-dirs target --skip-dirs .venv --skip-dirs '**/node_modules' --skip-dirs '**/.terraform' .
    local checkov=checkov
    if ! command -v checkov >/dev/null; then
        checkov=.venv/checkov/bin/checkov
        [ -x "$checkov" ] || {
            step "Installing checkov"
            python3 -m venv .venv/checkov && .venv/checkov/bin/pip install --quiet --disable-pip-version-check -r tests/checkov/requirements.txt
        } || die "$EXIT_PREFLIGHT" "Cannot install checkov; see above."
    fi
    run_checker "checkov" "$checkov" --directory . --framework terraform dockerfile github_actions --skip-path target --skip-path .venv \
        --compact --quiet --output cli --output sarif --output-file-path "console,$reports/checkov.sarif"
}

scan_image() {
    local image=$1 version=$2 digest=${1##*@}
    trivy_scan image image --scanners vuln,secret "$image"
    step "trivy image: bill of materials"
    trivy image --quiet --format cyclonedx --output "$reports/sbom.cdx.json" "$image" || die "trivy failed; see above."
    record_scan "$version" "$digest"
}

# record_scan VERSION DIGEST: records the release in prop if necessary, and reports the findings.
record_scan() {
    local release report id run_url=''
    if [ -z "${PROP_URL:-}" ] || [ -z "${PROP_KEY:-}" ]; then
        warn "The scan is not reported to prop: PROP_URL or PROP_KEY is not set."
        return
    fi
    [ -z "${GITHUB_RUN_ID:-}" ] || run_url=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID
    release=$(jq -nc --arg service "$LEDGER_SERVICE" --arg version "$1" --arg digest "$2" --arg sha "$(git rev-parse HEAD)" \
        --arg at "$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)" \
        '{service: $service, version: $version, git_sha: $sha, image_digest: $digest, committed_at: $at, create_missing: true}')
    # Only the fields that prop counts, because descriptions make the report large.
    report=$(jq -c '{SchemaVersion, ArtifactName, Trivy, Results: [.Results[]? | {Target, Class,
        Vulnerabilities: [.Vulnerabilities[]? | {VulnerabilityID, Severity}], Secrets: [.Secrets[]? | {RuleID, Severity}]}]}' "$reports/image.json")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/releases "$release"
        would_send PUT "/v1/releases/ID/scan?max_severity=$max_severity" "$report"
        return
    fi
    send_to_ledger POST /v1/releases "$release" || return 0
    id=$(ledger_get .id)
    PROP_KEY=${PROP_ATTEST_KEY:-$PROP_KEY} send_to_ledger PUT "/v1/releases/$id/scan?max_severity=$max_severity${run_url:+&report_url=$(jq -rn --arg url "$run_url" '$url | @uri')}" "$report" || return 0
    success "Reported to prop: the scan of $LEDGER_SERVICE $1 $(ledger_get .scan.status)."
}

# send_to_ledger METHOD PATH BODY: fails if prop is unavailable, which does not fail the scan. Ends the script if prop rejects the
# request.
send_to_ledger() {
    ledger_request "$@" || {
        warn "${BOLD}Cannot reach prop:$PLAIN the scan is not reported. $LEDGER_WHY Run this script again when prop is available."
        return 1
    }
    [ "$LEDGER_STATUS" -lt 300 ] || die "prop rejected the scan: $(ledger_problem)"
}

case ${words[0]:-} in
    files) [ ${#words[@]} = 1 ] || unexpected_argument "${words[1]}" ;;
    image)
        [ ${#words[@]} = 3 ] || usage_error "image needs two arguments: REFERENCE@DIGEST and VERSION."
        [[ ${words[1]} =~ @sha256:[0-9a-f]{64}$ ]] || usage_error "'${words[1]}' has no digest; the digest ensures that the scanned image is the one that is deployed."
        ;;
    '') missing_argument "COMMAND (one of: files, image)" ;;
    *) usage_error "unknown command '${words[0]}'; must be one of: files, image." ;;
esac
require_tools jq trivy
mkdir -p "$reports"
"scan_${words[0]}" "${words[@]:1}"
[ ${#found[@]} = 0 ] || die "$EXIT_FOUND" "The scan failed: $(printf '%s, ' "${found[@]}" | sed 's/, $//'). Fix the findings above, or list them as exceptions with a reason."
success "Nothing found above severity $max_severity."
