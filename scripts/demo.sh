#!/usr/bin/env bash
# Fills a ledger with three services and a week of history, and prints each step.
set -euo pipefail

usage() {
    cat <<'END'
Usage: PROP_KEY=prop_... scripts/demo.sh [URL]

Fills the ledger at URL (PROP_URL, else http://127.0.0.1:8080) with three services and a week of sample history:
releases, scans, approvals, a freeze with an override, incidents, a rollback. Requires curl and a key with the scope
admin, such as the one a new ledger prints. Use a ledger for testing: the records can't be removed.

Exit codes: 0 done, 1 a request failed, 2 PROP_KEY is not set.
END
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
esac
url=${1:-${PROP_URL:-http://127.0.0.1:8080}}
if [ -z "${PROP_KEY:-}" ]; then
    echo 'PROP_KEY is not set.' >&2
    usage >&2
    exit 2
fi

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# call KEY METHOD PATH [BODY]: sends a request; sets $answer and $status.
call() {
    local out
    out=$(curl -sS -w '\n%{http_code}' -X "$2" "$url$3" -H "Authorization: Bearer $1" -H 'Content-Type: application/json' ${4:+-d "$4"})
    status=${out##*$'\n'} answer=${out%$'\n'*}
}

# ok KEY METHOD PATH [BODY]: the same; ends the script if the request fails.
ok() {
    call "$@"
    case $status in
        2*) ;;
        *)
            echo "$2 $3 answered $status: $answer" >&2
            exit 1
            ;;
    esac
}

# field NAME: a text field of the answer, the first of that name.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"${answer%%\"decision\":\{*}" | head -n 1; }
first_id() { grep -o '"id":"[^"]*"' <<<"$answer" | head -n 1 | cut -d'"' -f4; }

# key NAME SCOPES: creates a key and prints it.
key() {
    ok "$PROP_KEY" POST /v1/keys "{\"name\":\"$1\",\"scopes\":$2}"
    field key
}

ago() { date -u -d "@$(($(date +%s) - $1 * 3600))" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r $(($(date +%s) - $1 * 3600)) +%Y-%m-%dT%H:%M:%SZ; }
hash_of() { printf '%s' "$1" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d' ' -f1; }

# release SERVICE VERSION HOURS_AGO: records a release from a commit of that time, with a passed scan.
release() {
    local digest sha
    digest=$(hash_of "$1 $2") sha=$(hash_of "commit $1 $2" | cut -c1-40)
    ok "$pipeline" POST /v1/releases "{\"service\":\"$1\",\"version\":\"$2\",\"git_sha\":\"$sha\",\"image_digest\":\"sha256:$digest\",
        \"committed_at\":\"$(ago "$3")\",\"source_url\":\"https://github.example.org/shop/$1/tree/$2\",\"create_missing\":true}"
    ok "$scanner" PUT "/v1/releases/$(first_id)/scan" '{"tool":"trivy 0.66","summary":{"medium":2,"low":7}}'
    echo "  $1 $2: built and scanned"
}

# happened SERVICE VERSION ENVIRONMENT HOURS_AGO MINUTES STATE: records a past deployment.
happened() {
    local started finished
    started=$(ago "$4") finished=$(date -u -d "$started + $5 minutes" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || ago "$4")
    ok "$pipeline" POST /v1/deployments "{\"service\":\"$1\",\"version\":\"$2\",\"environment\":\"$3\",\"state\":\"$6\",\"at\":\"$started\",
        \"finished_at\":\"$finished\",\"source\":\"demo\",\"requested_by\":\"${requester:-dana}\",
        \"rollback\":${rollback:-false},\"run_url\":\"https://ci.example.org/shop/$1/runs/$RANDOM\"}"
    deployment=$(first_id)
    echo "  $1 $2 in $3: $6, $4 h ago"
}

approve() {
    ok "$alice" POST /v1/approvals "{\"service\":\"$1\",\"version\":\"$2\",\"environment\":\"production\",\"decision\":\"approved\",\"comment\":\"Looks good.\"}"
    echo "  alice approved $1 $2 for production"
}

# ask SERVICE VERSION ENVIRONMENT: prints whether the gate allows the deployment.
ask() {
    ok "$pipeline" GET "/v1/gate?service=$1&version=$2&environment=$3&requested_by=dana"
    case $answer in
        *'"allowed":true'*) echo "  Can $1 $2 be deployed to $3? Yes." ;;
        *) echo "  Can $1 $2 be deployed to $3? No: $(grep -o '"detail":"[^"]*"' <<<"$answer" | cut -d'"' -f4 | paste -sd' ')" ;;
    esac
}

step 'Keys'
pipeline=$(key pipeline '["read","deploy"]')
scanner=$(key scanner '["attest"]')
alice=$(key alice '["read","approve","override","operate"]')
echo '  pipeline (deploys), scanner (reports scans), alice (approves, manages freezes and incidents)'

step 'Environments: testing, staging and production. Production requires a scan, success in staging and an approval'
ok "$PROP_KEY" POST /v1/environments '{"slug":"testing","name":"Testing","tier":"testing"}'
ok "$PROP_KEY" POST /v1/environments '{"slug":"staging","name":"Staging","tier":"staging"}'
ok "$PROP_KEY" POST /v1/environments '{"slug":"production","name":"Production","tier":"production","required_approvals":1,
    "require_scan":true,"predecessor":"staging"}'

step 'Three services'
for service in 'checkout Checkout payments' 'catalog Catalogue search' 'accounts Accounts identity'; do
    read -r slug name owner <<<"$service"
    ok "$PROP_KEY" POST /v1/services "{\"slug\":\"$slug\",\"name\":\"$name\",\"owner\":\"$owner\",\"repository_url\":\"https://github.example.org/shop/$slug\"}"
    echo "  $slug"
done

step 'A week ago'
for service in checkout catalog accounts; do
    release "$service" 1.0.0 170
    happened "$service" 1.0.0 testing 169 3 succeeded
    happened "$service" 1.0.0 staging 168 4 succeeded
    approve "$service" 1.0.0
    happened "$service" 1.0.0 production 166 6 succeeded
done

step 'The days since'
release catalog 1.1.0 143
happened catalog 1.1.0 testing 142 3 failed
release catalog 1.1.1 140
happened catalog 1.1.1 testing 139 3 succeeded
happened catalog 1.1.1 staging 138 4 succeeded
approve catalog 1.1.1
happened catalog 1.1.1 production 120 5 succeeded
release accounts 1.1.0 119
happened accounts 1.1.0 staging 118 4 succeeded
approve accounts 1.1.0
happened accounts 1.1.0 production 96 7 succeeded

step 'A release that breaks payments, and its rollback'
release checkout 1.1.0 80
happened checkout 1.1.0 staging 79 4 succeeded
approve checkout 1.1.0
happened checkout 1.1.0 production 72 6 succeeded
broken=$deployment
ok "$alice" POST /v1/incidents "{\"service\":\"checkout\",\"environment\":\"production\",\"title\":\"Card payments fail\",\"severity\":\"critical\",
    \"detected_at\":\"$(ago 71)\",\"caused_by\":[\"$broken\"]}"
incident=$(first_id)
echo '  an incident: card payments fail'
release checkout 1.1.1 71
ask checkout 1.1.1 production
rollback=true happened checkout 1.0.0 production 71 4 succeeded
ok "$alice" PATCH "/v1/incidents/$incident" "{\"resolved_at\":\"$(ago 70)\",\"fixed_by\":[\"$deployment\"]}"
echo '  rolled back to 1.0.0; the incident is resolved'
happened checkout 1.1.1 staging 50 4 succeeded
approve checkout 1.1.1
happened checkout 1.1.1 production 48 6 succeeded

step 'A deployment that bypasses the gate: recorded and flagged'
release accounts 1.1.1 30
requester=erin happened accounts 1.1.1 production 29 2 succeeded

step 'A release that waits for approval'
release checkout 1.2.0 6
happened checkout 1.2.0 staging 5 4 succeeded
ask checkout 1.2.0 production
ok "$pipeline" POST /v1/deployments '{"service":"checkout","version":"1.2.0","environment":"production","requested_by":"dana"}'
echo '  checkout 1.2.0 is waiting for approval in production'

step 'Today: a freeze'
ok "$alice" POST /v1/freezes "{\"environment\":\"production\",\"reason\":\"Quarter end\",\"ends_at\":\"$(ago -36)\"}"
freeze=$(first_id)
release catalog 1.2.0 5
happened catalog 1.2.0 staging 4 4 succeeded
ask catalog 1.2.0 production
approve catalog 1.2.0
call "$pipeline" POST /v1/deployments '{"service":"catalog","version":"1.2.0","environment":"production","requested_by":"dana"}'
echo "  catalog 1.2.0 to production answers $status: $(field detail)"
ok "$alice" POST "/v1/freezes/$freeze/overrides" '{"service":"catalog","version":"1.2.0","environment":"production","reason":"The price feed needs it."}'
echo '  alice overrides the freeze for this deployment'
ok "$pipeline" POST /v1/deployments '{"service":"catalog","version":"1.2.0","environment":"production","requested_by":"dana","start":true}'
id=$(first_id)
ok "$pipeline" POST "/v1/deployments/$id/transitions" '{"to":"succeeded"}'
echo '  catalog 1.2.0 is live'
ok "$alice" POST /v1/incidents '{"service":"accounts","environment":"production","title":"Sign-ins are slow","severity":"minor"}'
echo '  an open incident: sign-ins to accounts are slow'
release accounts 1.2.0 1
ok "$pipeline" POST /v1/deployments '{"service":"accounts","version":"1.2.0","environment":"staging","requested_by":"dana","start":true}'
echo '  accounts 1.2.0 is being rolled out to staging'

step "Done. See what is live, from the shell or on the board (sign in with \$PROP_KEY):"
echo "  curl -sS $url/v1/status -H \"Authorization: Bearer \$PROP_KEY\""
echo "  $url/"
