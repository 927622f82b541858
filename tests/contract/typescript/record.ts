// Does what a deploy script does, typed by the document: records a release and a deployment of it, reports its success,
// reads it back, and pages through a list. Anything unexpected ends it with an error.

import { strict as assert } from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/prop.js";

type Deployment = components["schemas"]["Deployment"];
type Problem = components["schemas"]["Problem"];

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

const prop = createClient<paths>({
  baseUrl: setting("PROP_URL"),
  headers: { Authorization: `Bearer ${setting("PROP_KEY")}` },
});

// The data of an answer that is not a problem.
function good<T>(answer: { data?: T; error?: Problem; response: Response }): T {
  if (answer.error !== undefined) throw new Error(`${answer.response.status} ${answer.error.code}: ${answer.error.detail}`);
  assert(answer.data !== undefined);
  return answer.data;
}

const service = "checkout";
const environment = "staging";

async function deploy(version: string): Promise<Deployment> {
  const recorded = await prop.POST("/v1/deployments", {
    body: { service, environment, version, start: true, create_missing: true },
  });
  return good(await prop.POST("/v1/deployments/{id}/transitions", {
    params: { path: { id: good(recorded).id } },
    body: { to: "succeeded" },
  }));
}

const release = good(await prop.POST("/v1/releases", {
  body: { service, version: "1.4.2", image_digest: `sha256:${"0f".repeat(32)}`, create_missing: true },
}));
await deploy("1.4.0");
await deploy("1.4.1");
const { id } = await deploy("1.4.2");

const deployment = good(await prop.GET("/v1/deployments/{id}", { params: { path: { id } } }));
assert.equal(deployment.release_id, release.id);
assert.equal(deployment.image_digest, release.image_digest);

const found: Deployment[] = [];
let pages = 0;
for (let cursor: string | null | undefined; cursor !== null; pages += 1) {
  const page = good(await prop.GET("/v1/deployments", {
    params: { query: { service, environment, limit: 2, ...(cursor === undefined ? {} : { cursor }) } },
  }));
  found.push(...page.items);
  cursor = page.next;
}
assert.deepEqual(found.map(({ version, state }) => `${version} ${state}`), ["1.4.2 succeeded", "1.4.1 superseded", "1.4.0 superseded"]);

const missing = await prop.GET("/v1/deployments/{id}", { params: { path: { id: "00000000-0000-0000-0000-000000000000" } } });
assert.equal(missing.error?.code, "not_found");

console.log(`${service} ${deployment.version} ${deployment.state} in ${environment}; ${found.length} deployments on ${pages} pages`);
