// Reads workflows and evaluates expressions as GitHub does, for tests/support/expressions.py: one request and one answer a line,
// as JSON.
//   {file}                               -> {value}: the workflow; an expression in it is {"$expression": "..."}
//   {expression, contexts, functions}    -> {value}; a function has the value that it returns, by its first argument if it is an
//                                           object. {unknown: [function, argument]} if that value is not there
// An answer {error} says what is wrong.
import "./json_imports.js";
import {readFileSync} from "node:fs";
import {createInterface} from "node:readline";

const {data, Evaluator, Lexer, Parser} = await import("@actions/expressions");
const {NoOperationTraceWriter, parseWorkflow} = await import("@actions/workflow-parser");
const {ensureStatusFunction} = await import("@actions/workflow-parser/model/converter/if-condition");
const {TokenType} = await import("@actions/workflow-parser/templates/tokens/types");

class Unknown extends Error {
  constructor(call) {
    super();
    this.call = call;
  }
}

function read(file) {
  const {context, value} = parseWorkflow({name: file, content: readFileSync(file, "utf8")}, new NoOperationTraceWriter());
  const errors = context.errors.getErrors();
  if (errors.length) throw new Error(errors.map(error => error.message).join("\n"));
  return plain(value);
}

// A token of the parser as JSON.
function plain(token) {
  switch (token.templateTokenType) {
    case TokenType.Mapping:
      return Object.fromEntries([...token].map(({key, value}) => [key.value, key.value === "if" ? condition(value) : plain(value)]));
    case TokenType.Sequence:
      return [...token].map(plain);
    case TokenType.BasicExpression:
      return {$expression: token.expression};
    default:
      return token.value ?? null;
  }
}

// An `if` is an expression with or without ${{ }}, and one that says nothing about the status asks for success too.
function condition(token) {
  return {$expression: ensureStatusFunction(token.expression ?? String(token.value), token.definitionInfo)};
}

function evaluate({expression, contexts, functions}) {
  const known = Object.entries(functions).map(([name, value]) => ({
    name,
    minArgs: 0,
    maxArgs: 255,
    call: argument => result(name, value, argument)
  }));
  const tree = new Parser(new Lexer(expression).lex().tokens, Object.keys(contexts), known).parse();
  const values = JSON.parse(JSON.stringify(contexts), data.reviver);
  const byName = new Map(known.map(one => [one.name.toLowerCase(), one]));
  return JSON.parse(JSON.stringify(new Evaluator(tree, values, byName).evaluate(), data.replacer));
}

function result(name, value, argument) {
  if (typeof value === "object") {
    const given = argument.coerceString();
    if (!(given in value)) throw new Unknown([name, given]);
    value = value[given];
  }
  return JSON.parse(JSON.stringify(value), data.reviver);
}

for await (const line of createInterface({input: process.stdin})) {
  let answer;
  try {
    const request = JSON.parse(line);
    answer = {value: request.file ? read(request.file) : evaluate(request)};
  } catch (error) {
    answer = error instanceof Unknown ? {unknown: error.call} : {error: String(error.message)};
  }
  console.log(JSON.stringify(answer));
}
