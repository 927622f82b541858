#!/usr/bin/env bash
# Looks for known holes, secrets, unwanted licences and careless settings, and tells prop what it found in an image.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/ledger.sh
source "$(dirname "$0")/ledger.sh"

usage() {
    cat <<END
Usage: scripts/scan.sh files
       scripts/scan.sh image REFERENCE@DIGEST VERSION

  files   the dependencies with cargo-deny (deny.toml) and trivy, secrets with trivy, Terraform, Dockerfile and workflow with
          checkov
  image   what is in the image, with trivy; its bill of materials; and the result for prop, whose gate goes by it

Reports are put into reports/: SARIF for GitHub, CycloneDX for the bill. A finding worse than SCAN_MAX_SEVERITY (low, medium,
high; medium, if not said) fails the scan, as it fails prop's gate; anything that cargo-deny or checkov has against
something fails it, too. What is known and put up with is in deny.toml and .trivyignore, or beside the resource, with the reason.

Needs jq and trivy; files also cargo-deny and checkov, which are installed when they are missing (into CARGO_HOME and
.venv/checkov). PROP_URL and PROP_KEY are the ledger and a key with the scopes deploy and attest; without them nothing is told.

  --dry-run   print what would be told to prop, and tell nothing
  --help      this

Examples:

  scripts/scan.sh files
  scripts/scan.sh image 123456789012.dkr.ecr.ap-south-1.amazonaws.com/prop-backend@sha256:9f86... 0.1.0-3f2a9c1d04be

Exit codes: 0 clean; 1 a scanner failed; 2 an argument is wrong; 3 a tool is missing; 4 something was found.
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
        -*) misused "There is no option '$1'." ;;
        *) words+=("$1") ;;
    esac
    shift
done
max_severity=${SCAN_MAX_SEVERITY:-medium}
case $max_severity in low | medium | high) ;; *) misused "SCAN_MAX_SEVERITY is low, medium or high, not '$max_severity'." ;; esac
reports=reports found=()
cd "$ROOT"

# looked WHAT COMMAND...: runs a checker whose status says whether it found something.
looked() {
    local what=$1
    shift
    step "$what"
    "$@" >&2 || found+=("$what")
}

# trivy_scan NAME ARGUMENT...: what trivy finds, as reports/NAME.json and NAME.sarif; shows what is too bad.
trivy_scan() {
    local name=$1 worse
    shift
    step "trivy $1"
    trivy "$@" --quiet --format json --output "$reports/$name.json" || die "trivy failed."
    trivy convert --quiet --format sarif --output "$reports/$name.sarif" "$reports/$name.json" || die "trivy failed."
    worse=$(jq -r --arg max "$max_severity" '["low", "medium", "high", "critical"] as $order
        | .Results[]? | .Target as $target
        | ((.Vulnerabilities // [] | .[] | {Severity, what: "\(.VulnerabilityID) in \(.PkgName) \(.InstalledVersion), \(
              if (.FixedVersion // "") == "" then "not mended yet" else "mended in \(.FixedVersion)" end)"}),
            (.Secrets // [] | .[] | {Severity, what: "a secret: \(.Title // .RuleID)"}))
        | select((.Severity | ascii_downcase) as $severity | ($order | index($severity) // -1) > ($order | index($max)))
        | "  \(.Severity) \(.what) (\($target))"' "$reports/$name.json")
    [ -z "$worse" ] || {
        say "$worse"
        found+=("trivy $1")
    }
}

scan_files() {
    if ! command -v cargo-deny >/dev/null; then
        step "Installing cargo-deny $CARGO_DENY"
        cargo install --quiet --locked "cargo-deny@$CARGO_DENY" || die "$EXIT_PREFLIGHT" "cargo-deny can't be installed."
    fi
    looked "cargo deny" cargo deny check
    trivy_scan files fs --scanners vuln,secret --skip-dirs target --skip-dirs .venv --skip-dirs '**/node_modules' --skip-dirs '**/.terraform' .
    local checkov=checkov
    if ! command -v checkov >/dev/null; then
        checkov=.venv/checkov/bin/checkov
        [ -x "$checkov" ] || {
            step "Installing checkov"
            python3 -m venv .venv/checkov && .venv/checkov/bin/pip install --quiet --disable-pip-version-check -r tests/checkov/requirements.txt
        } || die "$EXIT_PREFLIGHT" "checkov can't be installed."
    fi
    looked "checkov" "$checkov" --directory . --framework terraform dockerfile github_actions --skip-path target --skip-path .venv \
        --compact --quiet --output cli --output sarif --output-file-path "console,$reports/checkov.sarif"
}

scan_image() {
    local image=$1 version=$2 digest=${1##*@}
    trivy_scan image image --scanners vuln,secret "$image"
    step "trivy image: the bill of materials"
    trivy image --quiet --format cyclonedx --output "$reports/sbom.cdx.json" "$image" || die "trivy failed."
    tell_prop "$version" "$digest"
}

# tell_prop VERSION DIGEST: what was found, for prop to judge. It is told of the release first, if it does not know it.
tell_prop() {
    local release report id run_url=''
    if [ -z "${PROP_URL:-}" ] || [ -z "${PROP_KEY:-}" ]; then
        warn "PROP_URL or PROP_KEY is not set: prop does not learn of this scan."
        return
    fi
    [ -z "${GITHUB_RUN_ID:-}" ] || run_url=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID
    release=$(jq -nc --arg service "$LEDGER_SERVICE" --arg version "$1" --arg digest "$2" --arg sha "$(git rev-parse HEAD)" \
        --arg at "$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)" \
        '{service: $service, version: $version, git_sha: $sha, image_digest: $digest, committed_at: $at, create_missing: true}')
    # The report without what prop does not count: descriptions make it large.
    report=$(jq -c '{SchemaVersion, ArtifactName, Trivy, Results: [.Results[]? | {Target, Class,
        Vulnerabilities: [.Vulnerabilities[]? | {VulnerabilityID, Severity}], Secrets: [.Secrets[]? | {RuleID, Severity}]}]}' "$reports/image.json")
    if [ "$DRY_RUN" = yes ]; then
        would_send POST /v1/releases "$release"
        would_send PUT "/v1/releases/ID/scan?max_severity=$max_severity" "$report"
        return
    fi
    tell POST /v1/releases "$release" || return 0
    id=$(answered .id)
    tell PUT "/v1/releases/$id/scan?max_severity=$max_severity${run_url:+&report_url=$(jq -rn --arg url "$run_url" '$url | @uri')}" "$report" || return 0
    done_with "prop knows: the scan of $LEDGER_SERVICE $1 $(answered .scan.status)."
}

# tell METHOD PATH BODY: a ledger that is away keeps nothing back but its own gate; one that refuses is set up wrongly.
tell() {
    ledger "$@" || {
        warn "${BOLD}prop can't be reached:$PLAIN $LEDGER_WHY It does not learn of this scan: run this again when it is back."
        return 1
    }
    [ "$LEDGER_STATUS" -lt 300 ] || die "prop does not take the scan: $(answered '.detail // .title')"
}

case ${words[0]:-} in
    files) [ ${#words[@]} = 1 ] || misused "'${words[1]}' is one argument too many." ;;
    image)
        [ ${#words[@]} = 3 ] || misused "image wants REFERENCE@DIGEST and VERSION."
        [[ ${words[1]} =~ @sha256:[0-9a-f]{64}$ ]] || misused "'${words[1]}' names no digest: the image that is deployed is to be scanned, and no other."
        ;;
    '') misused "What is to be scanned: files or image?" ;;
    *) misused "'${words[0]}' can't be scanned; files and image can." ;;
esac
need jq trivy
mkdir -p "$reports"
"scan_${words[0]}" "${words[@]:1}"
[ ${#found[@]} = 0 ] || die "$EXIT_FOUND" "Something was found that must not be: $(printf '%s, ' "${found[@]}" | sed 's/, $//')."
done_with "Nothing was found worse than $max_severity."
