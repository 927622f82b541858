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

/// Every object below `value` with its JSON pointer, except for examples.
fn objects<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    if let Some(fields) = value.as_object() {
        found.push((at.to_owned(), value));
        for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with("example")) {
            objects(value, &format!("{at}/{name}"), found);
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        objects(item, &format!("{at}/{i}"), found);
    }
}

/// The description of a property, which is in one of its parts when it refers to another schema.
fn description(schema: &Value) -> &str {
    let parts = ["oneOf", "allOf"].iter().filter_map(|parts| schema[parts].as_array()).flatten();
    std::iter::once(schema)
        .chain(parts)
        .find_map(|part| part["description"].as_str())
        .unwrap_or_default()
}

fn is_nullable(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null";
    schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_null))
        || schema["oneOf"].as_array().is_some_and(|parts| parts.iter().any(|p| is_null(&p["type"])))
}

#[test]
fn every_description_is_a_sentence_and_says_what_null_means() {
    let document = document();
    let mut wrong = Vec::new();
    let mut check = |at: String, text: &str| {
        if text.split_whitespace().count() < 5 || !text.ends_with('.') {
            wrong.push(format!("{at}: {text:?} is not a sentence of five words or more"));
        }
    };
    let mut all = Vec::new();
    objects(&document, "", &mut all);
    let mut properties = Vec::new();
    for (at, object) in &all {
        // A property may be called `description` too: then it is not a text.
        if let Some(text) = object["description"].as_str() {
            check(at.clone(), text);
        }
        let of_schema = object["properties"].as_object().into_iter().flatten();
        properties.extend(of_schema.map(|(name, property)| (format!("{at}/{name}"), property)));
    }
    assert!(properties.len() > 200);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        check(name.clone(), schema["description"].as_str().unwrap_or_default());
    }
    for (name, _, operation) in operations(&document) {
        check(name.clone(), operation["description"].as_str().unwrap_or_default());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let text = parameter["description"].as_str().unwrap_or_default();
            check(format!("{name}: {}", parameter["name"]), text);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            for (header, shape) in response["headers"].as_object().into_iter().flatten() {
                let text = shape["description"].as_str().unwrap_or_default();
                check(format!("{name} {status}: {header}"), text);
            }
        }
    }
    for (at, property) in &properties {
        check(at.clone(), description(property));
    }
    for (at, property) in properties.into_iter().filter(|(_, property)| is_nullable(property)) {
        if !description(property).contains("`null`") {
            wrong.push(format!("{at}: the description does not say when it is null"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_word_of_an_enum_is_described() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for word in schema["enum"].as_array().into_iter().flatten() {
            let entry = format!("* `{}`: ", word.as_str().unwrap());
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.contains(&entry), "{name} does not describe {word}");
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

/// Where a value is not what its schema says: its type, its words, and required, known and
/// well-formed fields.
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
