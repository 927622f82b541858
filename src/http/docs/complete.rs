//! What the OpenAPI document has besides the routes. Each handler describes what is special about
//! it; this file adds the title and the tags, and what all operations share.

use actix_web::http::Method;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    self, ContentBuilder, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, schema,
};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use crate::error::{Code, FieldError};
use crate::http::problem::{MEDIA_TYPE, Problem};

/// The name of the security scheme of all operations below `/v1`.
const KEY: &str = "key";
/// The name of the security scheme of webhooks.
const SIGNATURE: &str = "signature";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "prop",
        description = "prop is a deployment ledger. For every service in every environment it \
            answers: what is running, since when, which image, who requested it, and whether a \
            release may be deployed there now. A *place* is one service in one environment.\n\n\
            Send an API key in the header `Authorization: Bearer prop_...`. Errors are problem \
            details (RFC 9457) with a stable `code`. A POST with an `Idempotency-Key` takes effect \
            only once, however often it is sent. Lists come in pages: send `next` of a page as \
            `cursor` to get the following page. Every enum may get more values: accept unknown \
            ones.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "status",
            description = "What is live in each place, and what is about to be deployed there."),
        (name = "services",
            description = "The services that are deployed, each with its owner and repository."),
        (name = "environments",
            description = "The environments that services are deployed to, each with its rules for \
                deployments."),
        (name = "releases",
            description = "Versions of a service, each with its commit, image digest and scan \
                result."),
        (name = "deployments",
            description = "Deployments of a release to an environment, from the request to the \
                end."),
        (name = "gate",
            description = "Whether a release may be deployed to an environment now, with every \
                reason against it."),
        (name = "approvals",
            description = "Approvals and rejections of a release for an environment."),
        (name = "freezes",
            description = "Periods when deployments are blocked, and overrides for single \
                deployments."),
        (name = "incidents",
            description = "Incidents of a service, with the deployments that caused and fixed \
                them."),
        (name = "metrics",
            description = "The five DORA measures of software delivery, with the deployments \
                behind each figure."),
        (name = "events", description = "The append-only history of everything that was recorded."),
        (name = "keys", description = "API keys and their scopes."),
        (name = "webhooks",
            description = "Webhooks from GitHub, and the deliveries that prop received."),
        (name = "operations",
            description = "The server process: health, version, metrics and this document.")
    )
)]
struct Frame;

/// The document without any route: its title, and the tags in reading order.
pub fn frame() -> openapi::OpenApi {
    let mut document = Frame::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document
}

/// Adds what all operations share: the security schemes, the error responses, and the headers.
pub fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key: `prop_` and 36 more characters."))
        .build();
    components.add_security_scheme(KEY, SecurityScheme::Http(scheme));
    let signature = "Only for GitHub webhooks: `sha256=` and the HMAC-SHA256 of the body in \
        hexadecimal, as GitHub sends it.";
    let signature = ApiKey::Header(ApiKeyValue::with_description("X-Hub-Signature-256", signature));
    components.add_security_scheme(SIGNATURE, SecurityScheme::ApiKey(signature));
    components.schemas.insert("Problem".into(), Problem::schema());
    components.schemas.insert("FieldError".into(), FieldError::schema());
    let asked = named_in_requests(&document);
    if let Some(components) = &mut document.components {
        complete_answers(&mut components.schemas, &asked);
        complete_pages(components);
    }
    for item in document.paths.paths.values_mut() {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PUT, &mut item.put),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                complete_operation(&method, operation);
            }
        }
    }
    document
}

/// The names of the schemas that request bodies use, directly or through other schemas.
fn named_in_requests(document: &openapi::OpenApi) -> BTreeSet<String> {
    let bodies = document
        .paths
        .paths
        .values()
        .flat_map(|item| [&item.post, &item.put, &item.patch])
        .flatten();
    let mut open: Vec<String> = bodies
        .filter_map(|operation| operation.request_body.as_ref())
        .flat_map(references)
        .collect();
    let mut named = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some(schema) =
            document.components.iter().find_map(|components| components.schemas.get(&name))
            && named.insert(name)
        {
            open.extend(references(schema));
        }
    }
    named
}

fn references(part: impl serde::Serialize) -> Vec<String> {
    let json = serde_json::to_string(&part).unwrap_or_default();
    json.split("\"#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect()
}

/// The schemas of responses that omit fields which do not apply.
const SPARSE: [&str; 2] = ["Problem", "Reason"];

/// Marks all fields of responses as required: a field without a value is `null`, not absent.
fn complete_answers(schemas: &mut BTreeMap<String, RefOr<Schema>>, asked: &BTreeSet<String>) {
    for (_, schema) in schemas
        .iter_mut()
        .filter(|(name, _)| !asked.contains(*name) && !SPARSE.contains(&name.as_str()))
    {
        let parts = match schema {
            RefOr::T(Schema::AllOf(all)) => &mut all.items[..],
            one => std::slice::from_mut(one),
        };
        for part in parts {
            if let RefOr::T(Schema::Object(object)) = part {
                object.required = object.properties.keys().cloned().collect();
            }
        }
    }
}

/// Makes each page refer to the schema of its items instead of repeating it, and builds the page's
/// example from the example of the item.
fn complete_pages(components: &mut openapi::Components) {
    let named = components
        .schemas
        .iter()
        .filter_map(|(name, schema)| Some((name.clone(), example(schema)?.clone())));
    for (name, item) in named.collect::<Vec<_>>() {
        if let Some(RefOr::T(Schema::Object(page))) =
            components.schemas.get_mut(&format!("Page_{name}"))
        {
            let items = schema::ArrayBuilder::new()
                .items(Ref::from_schema_name(name))
                .description(Some("The items of this page, at most `limit` of them."));
            page.properties.insert("items".into(), items.build().into());
            page.example = Some(serde_json::json!({"items": [item], "next": null}));
        }
    }
}

fn example(schema: &RefOr<Schema>) -> Option<&serde_json::Value> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.example.as_ref(),
        _ => None,
    }
}

/// Adds what follows from the method, the parameters, the body and the security of an operation.
fn complete_operation(method: &Method, operation: &mut Operation) {
    operation.parameters.get_or_insert_default();
    for status in failures(operation) {
        add_failure(operation, status);
    }
    describe_scopes(operation);
    if is_idempotent(method, operation) {
        accept_idempotency_key(operation);
    }
    if *method == Method::PATCH {
        accept_if_match(operation);
    }
    if *method == Method::GET && has_etag(operation) {
        accept_if_none_match(operation);
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            describe(status, response);
        }
    }
}

/// The statuses with which a request can fail because of what the operation requires and accepts.
fn failures(operation: &Operation) -> Vec<u16> {
    let mut statuses = vec![500, 503];
    if operation.security.is_some() {
        statuses.extend([401, 403]);
    }
    if has_parameter(operation, ParameterIn::Query) {
        statuses.push(400);
    }
    if has_parameter(operation, ParameterIn::Path) {
        statuses.push(404);
    }
    if operation.request_body.is_some() {
        statuses.extend([400, 408, 413, 415]);
        // The body of a webhook is stored as it is; prop does not refuse its values.
        if !is_signed(operation) {
            statuses.push(422);
        }
    }
    statuses
}

/// Adds a failure. [`describe`] completes it, unless the handler describes it.
fn add_failure(operation: &mut Operation, status: u16) {
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_string()).or_insert_with(|| RefOr::T(Response::default()));
}

/// Whether the operation accepts an `Idempotency-Key`: every POST with a body, but not a webhook,
/// which has an identifier of its own, nor a new key, whose secret is not stored.
fn is_idempotent(method: &Method, operation: &Operation) -> bool {
    let creates_key = operation.tags.iter().flatten().any(|tag| tag == "keys");
    *method == Method::POST
        && operation.request_body.is_some()
        && !is_signed(operation)
        && !creates_key
}

fn accept_idempotency_key(operation: &mut Operation) {
    accept_header(
        operation,
        "Idempotency-Key",
        "A key of your choice, such as a UUID, that makes it safe to repeat the request. \
            A repeat within 24 hours gets the first response, and takes no effect. Another \
            request with the same key is refused with 422 (`idempotency_key_reused`), and a \
            repeat while the first request runs with 409 (`idempotency_in_progress`).",
        Some("^[!#-~]{1,255}$"),
    );
    add_failure(operation, 409);
    add_to_description(
        operation,
        "A repeat with the same `Idempotency-Key` gets the first response and changes nothing.",
    );
}

fn accept_if_match(operation: &mut Operation) {
    accept_header(
        operation,
        "If-Match",
        "The `ETag` of the resource when you read it: its revision, from 1 on, in quotes. The \
            request fails with 412 (`precondition_failed`) if the resource has changed since, and \
            for a tag that it never has, such as a weak one. Without the header there is no check.",
        Some(REVISIONS),
    );
    add_failure(operation, 412);
}

fn accept_if_none_match(operation: &mut Operation) {
    // No pattern: a value that is not a list of tags matches nothing, and the response is the whole
    // resource.
    accept_header(
        operation,
        "If-None-Match",
        "The `ETag` of an earlier response. The answer is 304 without a body if it would still be \
            the same.",
        None,
    );
    let not_modified = ResponseBuilder::new()
        .description("Nothing has changed since the response with this `ETag`.")
        .build();
    operation.responses.responses.insert("304".into(), RefOr::T(not_modified));
}

/// Adds the scopes of an operation to its description.
fn describe_scopes(operation: &mut Operation) {
    let schemes = security(operation).into_iter().filter(|(scheme, _)| scheme == KEY);
    let scopes: Vec<_> =
        schemes.flat_map(|(_, scopes)| scopes).map(|scope| format!("`{scope}`")).collect();
    if !scopes.is_empty() {
        let sentence = format!("Requires a key with the scope {}.", scopes.join(" or "));
        add_to_description(operation, &sentence);
    }
}

fn add_to_description(operation: &mut Operation, paragraph: &str) {
    let mut paragraphs: Vec<_> = operation.description.take().into_iter().collect();
    paragraphs.push(paragraph.to_owned());
    operation.description = Some(paragraphs.join("\n\n"));
}

/// The security schemes of which an operation requires one, each with its scopes.
fn security(operation: &Operation) -> Vec<(String, Vec<String>)> {
    let schemes = serde_json::to_value(&operation.security).unwrap_or_default();
    let schemes: Vec<BTreeMap<_, _>> = serde_json::from_value(schemes).unwrap_or_default();
    schemes.into_iter().flatten().collect()
}

/// Whether the operation is a webhook, which is signed and has no key.
fn is_signed(operation: &Operation) -> bool {
    security(operation).iter().any(|(scheme, _)| scheme == SIGNATURE)
}

/// What an `If-Match` can match: any revision, or one of several.
const REVISIONS: &str = r#"^(\*|"[1-9][0-9]{0,9}"(, "[1-9][0-9]{0,9}")*)$"#;

fn has_etag(operation: &Operation) -> bool {
    let ok = operation.responses.responses.get("200");
    matches!(ok, Some(RefOr::T(response)) if response.headers.contains_key("ETag"))
}

fn has_parameter(operation: &Operation, place: ParameterIn) -> bool {
    operation.parameters.iter().flatten().any(
        |parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == place),
    )
}

fn accept_header(operation: &mut Operation, name: &str, description: &str, pattern: Option<&str>) {
    let text = ObjectBuilder::new().schema_type(schema::Type::String).pattern(pattern).build();
    let header = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text));
    operation.parameters.get_or_insert_default().push(header.build().into());
}

/// Completes a response. A failure lists the codes with its status, which `docs/problems.md`
/// explains; headers get their descriptions.
fn describe(status: &str, response: &mut Response) {
    let codes = Code::ALL.iter().filter(|code| code.status().as_str() == status);
    let codes: Vec<_> = codes.map(|code| format!("`{}`", code.as_str())).collect();
    if !codes.is_empty() {
        let content =
            ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        response.content.insert(MEDIA_TYPE.into(), content.into());
    }
    if response.description.is_empty() {
        response.description = match codes.as_slice() {
            [] => "The request succeeded; the body has the result.".into(),
            [code] => format!("The request failed with the code {code}."),
            codes => format!("The request failed with one of the codes {}.", codes.join(", ")),
        };
    }
    for (name, header) in &mut response.headers {
        let text = match name.as_str() {
            "ETag" => "The version of the resource, for `If-Match` and `If-None-Match`.",
            "Location" => "The path of the resource that was created.",
            _ => continue,
        };
        if let RefOr::T(header) = header {
            header.description.get_or_insert_with(|| text.into());
        }
    }
    if status == "503" {
        let seconds = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(schema::Type::Integer)))
            .description(Some("How many seconds to wait before the next attempt."));
        response.headers.insert("Retry-After".into(), seconds.build().into());
    }
}
