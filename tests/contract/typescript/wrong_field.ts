// Must not compile: each line that ends in `// wrong` is one mistake, and nothing else is.

import createClient from "openapi-fetch";
import type { components, paths } from "./generated/prop.js";

const prop = createClient<paths>({ baseUrl: "http://127.0.0.1" });

const body: components["schemas"]["NewDeployment"] = {
  service: "checkout",
  environment: "staging",
  version: "1.4.2",
  verison: "1.4.3", // wrong
};

const { data } = await prop.POST("/v1/deployments", { body });
console.log(data?.verison); // wrong

const params = { path: { id: "00000000-0000-0000-0000-000000000000" } };
await prop.POST("/v1/deployments/{id}/transitions", { params, body: { to: "running" } });
await prop.POST("/v1/deployments/{id}/transitions", { params, body: { to: "done" } }); // wrong
