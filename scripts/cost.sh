#!/usr/bin/env bash
# Estimates the monthly cost of an environment.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<END
Usage: scripts/cost.sh ENVIRONMENT [OPTION]...
Estimate the monthly cost of an environment ($(list_environments)) in USD.

The estimate is computed from the environment's tfvars file, the defaults in variables.tf and the dated prices in
scripts/cost/REGION.tsv. It also has the cost with a NAT gateway instead of endpoints, and the saving by auto-stop. Costs that
depend on usage are listed, but not counted. The script needs jq, but neither AWS credentials nor Terraform.

Options:
  --json      print JSON
  -h, --help  print this help

Examples:
  scripts/cost.sh staging
  scripts/cost.sh production --json | jq .total

Exit codes:
  0  done
  1  the tfvars file cannot be read, or a resource has no price in the table
  2  wrong argument
  3  jq or the price table of the region is missing
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
        -*) unknown_option "$argument" ;;
        *)
            [ -z "${ENVIRONMENT:-}" ] || unexpected_argument "$argument"
            use_environment "$argument"
            ;;
    esac
done
[ -n "${ENVIRONMENT:-}" ] || use_environment ''
require_tools jq

tables=$ROOT/scripts/cost
# read_hcl FILE FUNCTION: prints the file as JSON, converted by a function of hcl.jq.
read_hcl() { jq -Rs -L "$tables" "include \"hcl\"; $2" "$1" || die "Cannot read $1: it must contain literal values only."; }
defaults=$(read_hcl "$TERRAFORM_DIR/variables.tf" defaults)
overrides=$(read_hcl "$TERRAFORM_DIR/envs/$ENVIRONMENT.tfvars" tfvars)
settings=$(jq -n --argjson defaults "$defaults" --argjson overrides "$overrides" '$defaults * $overrides')
prices=$tables/$(jq -r .region <<<"$settings").tsv
[ -f "$prices" ] || die "$EXIT_PREFLIGHT" "There is no price table for this region: $prices not found."
estimate=$(jq -n --argjson settings "$settings" --rawfile prices "$prices" -f "$tables/estimate.jq") ||
    die "Cannot estimate the cost of $ENVIRONMENT; see above."

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

    "\(.environment) in \(.region): USD per month of \(.hours) hours, at prices from \(.prices_from) to \(.prices_to)",
    "",
    (.lines[] | row),
    (.total | sum("Total")),
    "",
    (.with_nat.total | sum("With one NAT gateway instead of endpoints")),
    (.total - .with_nat.total | "  endpoints cost \(fabs | money) \(if . > 0 then "more" else "less" end); without a NAT gateway, private subnets have no internet access"),
    (.auto_stop | if .on then .saves | sum("Saved by auto-stop") else .saves | sum("Possible saving by auto-stop, which is off") end),
    "  with auto-stop, tasks run \(.auto_stop.task_hours | amount) hours and the database \(.auto_stop.database_hours | amount); load balancer and endpoints always run",
    "",
    "Not counted: \(.not_counted | join(", ")).",
    (.notes[] | "* \(.)")
' <<<"$estimate"
