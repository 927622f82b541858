// Usage: node check.js FILE...
// Prints what GitHub's language service finds in workflows: unknown keys and values, jobs and steps that do not exist, faulty
// expressions. Warnings count too. Exits with 1 if it finds anything.
import "./json_imports.js";
import {readFileSync} from "node:fs";

const {validate} = await import("@actions/languageservice/validate");
const {TextDocument} = await import("vscode-languageserver-textdocument");

for (const file of process.argv.slice(2)) {
  const workflow = TextDocument.create(`file:///${file}`, "yaml", 1, readFileSync(file, "utf8"));
  for (const {range, message} of await validate(workflow, {})) {
    console.log(`${file}:${range.start.line + 1}:${range.start.character + 1}: ${message}`);
    process.exitCode = 1;
  }
}
