#!/usr/bin/env bash
# Says what an environment costs a month, before it is made.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

usage() {
    cat <<END
Usage: scripts/cost.sh ENVIRONMENT [--json]

Estimates what an environment ($(environments)) costs a month, from its tfvars, the defaults in variables.tf, and the dated
prices in scripts/cost/REGION.tsv: line by line, the same stack with one NAT gateway instead of endpoints, and what auto-stop
saves. Asks nobody: needs neither AWS credentials nor Terraform. What depends on use is named, and not counted.

  --json   print JSON
  --help   this

Example:

  scripts/cost.sh staging
  scripts/cost.sh production --json | jq .total

Needs jq.

Exit codes: 0 done; 1 the tfvars can't be read, or something in them has no price; 2 an argument is wrong; 3 jq or the prices
of the region are missing.
END
}

json=no
unset ENVIRONMENT
for argument in "$@"; do
    case $argument in
        --json) json=yes ;;
        -h | --help)
            usage
            exit
            ;;
        -*) misused "There is no option '$argument'." ;;
        *)
            [ -z "${ENVIRONMENT:-}" ] || misused "'$argument' is one argument too many."
            use_environment "$argument"
            ;;
    esac
done
[ -n "${ENVIRONMENT:-}" ] || use_environment ''
need jq

tables=$ROOT/scripts/cost
# read_hcl FILE FUNCTION: as JSON, by a function of hcl.jq.
read_hcl() { jq -Rs -L "$tables" "include \"hcl\"; $2" "$1" || die "$1 can't be read: it may hold nothing but literal values."; }
defaults=$(read_hcl "$TERRAFORM_DIR/variables.tf" defaults)
overrides=$(read_hcl "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" tfvars)
settings=$(jq -n --argjson defaults "$defaults" --argjson overrides "$overrides" '$defaults * $overrides')
prices=$tables/$(jq -r .region <<<"$settings").tsv
[ -f "$prices" ] || die "$EXIT_PREFLIGHT" "There are no prices of that region: $prices is missing."
estimate=$(jq -n --argjson settings "$settings" --rawfile prices "$prices" -f "$tables/estimate.jq") ||
    die "No estimate for $ENVIRONMENT: see above."

if [ "$json" = yes ]; then
    printf '%s\n' "$estimate"
    exit
fi
jq -r '
    def money: . * 100 | round | tostring | if length < 3 then "0" * (3 - length) + . else . end | .[:-2] + "." + .[-2:];
    def left($width): . + " " * ($width - length);
    def right($width): " " * ($width - length) + .;
    def amount: if . == floor then tostring else money end;
    def row: (.what | left(27)) + (.count | amount | right(6)) + " x "
        + (if .hours then "\(.hours | amount | right(6)) h x " else " " * 11 end) + (.usd_each | tostring | left(9))
        + (if .stand_in then "*" else " " end) + (.usd | money | right(8));
    def sum($what): ($what | left(57)) + (. | money | right(8));

    "\(.environment) in \(.region): USD a month of \(.hours) hours, at prices of \(.prices_from) to \(.prices_to)",
    "",
    (.lines[] | row),
    (.total | sum("Total")),
    "",
    (.with_nat.total | sum("With one NAT gateway instead of endpoints")),
    (.total - .with_nat.total | "  endpoints cost \(fabs | money) \(if . > 0 then "more" else "less" end), and nothing in the private subnets has a way out"),
    (.auto_stop | if .on then .saves | sum("Saved by auto-stop") else .saves | sum("Auto-stop, which is off, would save") end),
    "  tasks for \(.auto_stop.task_hours | amount) hours and the database for \(.auto_stop.database_hours | amount); load balancer and endpoints run on",
    "",
    "Not counted: \(.not_counted | join(", ")).",
    (.notes[] | "* \(.)")
' <<<"$estimate"
