//! The committed documents say what the program does.

use prop::error::Code;
use serde_json::Value;
use std::collections::BTreeSet;

fn committed(file: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> Value {
    serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap()
}

/// Every operation, with a name for messages and its path.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((format!("{method} {path}"), path.clone(), operation));
        }
    }
    assert!(operations.len() > 20);
    operations
}

/// Follows a reference into the document.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => schema,
    }
}

#[test]
fn the_committed_document_is_the_one_of_the_routes() {
    let current = prop::app::document().to_pretty_json().unwrap();
    let is_current = committed("openapi.json").trim_end() == current;
    assert!(
        is_current,
        "docs/openapi.json is out of date: run `cargo run -- openapi > docs/openapi.json`"
    );
}

#[test]
fn every_operation_is_described() {
    let document = document();
    let tags: Vec<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (name, path, operation) in operations(&document) {
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} has no operationId"));
        assert!(ids.insert(id), "{name}: {id} is used twice");
        assert!(
            operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()),
            "{name} has no summary"
        );
        let own: Vec<_> =
            operation["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        assert_eq!(own.len(), 1, "{name}");
        assert!(tags.contains(&own[0]), "{name}: {own:?} is not described");
        assert_eq!(
            operation["security"][0]["key"][0].is_string(),
            path.starts_with("/v1"),
            "{name}"
        );
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{name} {status}");
            let is_problem = response["content"].get("application/problem+json").is_some();
            assert_eq!(is_problem, status.starts_with(['4', '5']), "{name} {status}");
        }
    }
}

#[test]
fn the_paths_come_in_the_order_of_the_tags() {
    let document = prop::app::document();
    let operations = document
        .paths
        .paths
        .values()
        .flat_map(|item| [&item.get, &item.post, &item.put, &item.patch, &item.delete]);
    let mut used: Vec<_> =
        operations.flatten().flat_map(|operation| operation.tags.clone().unwrap()).collect();
    used.dedup();
    assert_eq!(used, document.tags.unwrap().into_iter().map(|tag| tag.name).collect::<Vec<_>>());
}

/// The example of a JSON body: its own, or that of its schema.
fn example<'a>(document: &'a Value, media: &'a Value) -> Option<&'a Value> {
    let schema = resolve(document, &media["schema"]);
    [media.get("example"), schema.get("example"), schema.pointer("/examples/0")]
        .into_iter()
        .flatten()
        .next()
}

#[test]
fn every_body_has_an_example_that_its_schema_allows() {
    let document = document();
    for (name, _, operation) in operations(&document) {
        let mut bodies = vec![(format!("{name}: request"), &operation["requestBody"])];
        let answers = operation["responses"].as_object().unwrap();
        bodies.extend(
            answers
                .iter()
                .filter(|(status, _)| status.starts_with('2'))
                .map(|(status, body)| (format!("{name}: {status}"), body)),
        );
        for (name, body) in bodies {
            if let Some(media) = body.pointer("/content/application~1json") {
                let example =
                    example(&document, media).unwrap_or_else(|| panic!("{name} has no example"));
                let wrong = misfits(&document, &media["schema"], example, "");
                assert!(wrong.is_empty(), "{name}: {wrong:?}");
            }
        }
    }
}

/// Where a value is not what its schema says: its type, its words, and required, known and well-formed fields.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fits = choices.iter().any(|choice| misfits(document, choice, value, at).is_empty());
        return if fits {
            Vec::new()
        } else {
            vec![format!("{at}: {value} fits none of {choices:?}")]
        };
    }
    let mut wrong: Vec<_> = schema["allOf"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|part| misfits(document, part, value, at))
        .collect();
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allows = |kind: &Value| kind == found || (kind == "number" && found == "integer");
    let types = &schema["type"];
    if !types.is_null()
        && !types.as_array().map_or_else(|| allows(types), |types| types.iter().any(allows))
    {
        wrong.push(format!("{at}: {value} is not of type {types}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong.push(format!("{at}: {value} is not one of {}", schema["enum"]));
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        wrong.extend(
            items.iter().flat_map(|item| misfits(document, schema, item, &format!("{at}/0"))),
        );
    }
    if let Some(fields) = value.as_object() {
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| field.as_str().unwrap());
        wrong.extend(
            required
                .filter(|field| !fields.contains_key(*field))
                .map(|field| format!("{at}/{field} is missing")),
        );
        for (field, value) in fields {
            match schema["properties"].get(field) {
                Some(schema) => {
                    wrong.extend(misfits(document, schema, value, &format!("{at}/{field}")));
                }
                None if schema["additionalProperties"] == false => {
                    wrong.push(format!("{at}/{field} is not known"));
                }
                None => {}
            }
        }
    }
    wrong
}

#[test]
fn every_reference_leads_somewhere_and_names_one_thing() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let used: BTreeSet<_> = text
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(used, schemas.keys().map(String::as_str).collect());
    for field in ["/NewRelease/properties/version", "/NewDeployment/properties/version"] {
        let version = document.pointer(&format!("/components/schemas{field}")).unwrap();
        // Where it may be left out, it may be `null` as well.
        let version = version["oneOf"].as_array().map_or(version, |choices| {
            choices.iter().find(|choice| choice["type"] != "null").unwrap()
        });
        assert_eq!(resolve(&document, version)["type"], "string", "{field}");
    }
}

/// Each code with its section: `## code`, then `**status: title.** What to do.`
#[test]
fn the_problems_are_documented() {
    let text = committed("problems.md");
    let sections: Vec<_> =
        text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        sections.iter().map(|(code, _)| *code).collect::<Vec<_>>(),
        codes,
        "in the order of src/error.rs"
    );
    for ((_, section), code) in sections.iter().zip(Code::ALL) {
        let head = format!("**{}: {}.** ", code.status().as_u16(), code.title());
        let to_do = section.trim().strip_prefix(&head);
        assert!(
            to_do.is_some_and(|text| text.len() > 20),
            "{} is to begin with {head:?} and say what to do",
            code.as_str()
        );
        assert!(code.type_uri().ends_with(&format!("/docs/problems.md#{}", code.as_str())));
    }
}
