// The packages import JSON files in the way of bundlers, which Node refuses: here such an import gets what the file has.
import {register} from "node:module";

const hooks = `
import {readFile} from "node:fs/promises";
export async function load(url, context, next) {
  if (!url.endsWith(".json")) return next(url, context);
  return {format: "module", shortCircuit: true, source: "export default " + (await readFile(new URL(url), "utf8"))};
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
