//! The OpenAPI document and Swagger UI. The methods that a path allows also come from the document.
//!
//! The document is built from the routes. Each handler describes what is special about it; this
//! file adds what all operations share.

use actix_web::dev::ResourceDef;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, get, web};
use flate2::Compression;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    self, ContentBuilder, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, schema,
};
use utoipa::{OpenApi, PartialSchema, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use utoipa_swagger_ui::Config;

use crate::error::{Code, Error, FieldError};
use crate::http::context::State;
use crate::http::problem::{MEDIA_TYPE, Problem};
use crate::http::response::{gunzip, gzip, takes_gzip};

/// The name of the security scheme of all operations below `/v1`.
const KEY: &str = "key";
/// The name of the security scheme of webhooks.
const SIGNATURE: &str = "signature";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "prop",
        description = "prop is a deployment ledger. For every service in every environment it answers: what is running, since when, \
            which image, who requested it, and whether a release may be deployed there now. A *place* is one service in one environment.\n\n\
            Send an API key in the header `Authorization: Bearer prop_...`. Errors are problem details (RFC 9457) with a stable `code`. \
            A POST with an `Idempotency-Key` takes effect only once, however often it is sent. Lists come in pages: send `next` of a page \
            as `cursor` to get the following page. Every enum may get more values: accept unknown ones.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "status", description = "What is live in each place, and what is about to be deployed there."),
        (name = "services", description = "The services that are deployed, each with its owner and repository."),
        (name = "environments", description = "The environments that services are deployed to, each with its rules for deployments."),
        (name = "releases", description = "Versions of a service, each with its commit, image digest and scan result."),
        (name = "deployments", description = "Deployments of a release to an environment, from the request to the end."),
        (name = "gate", description = "Whether a release may be deployed to an environment now, with every reason against it."),
        (name = "approvals", description = "Approvals and rejections of a release for an environment."),
        (name = "freezes", description = "Periods when deployments are blocked, and overrides for single deployments."),
        (name = "incidents", description = "Incidents of a service, with the deployments that caused and fixed them."),
        (name = "metrics", description = "The five DORA measures of software delivery, with the deployments behind each figure."),
        (name = "events", description = "The append-only history of everything that was recorded."),
        (name = "keys", description = "API keys and their scopes."),
        (name = "webhooks", description = "Webhooks from GitHub, and the deliveries that prop received."),
        (name = "operations", description = "The server process: health, version, metrics and this document.")
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
    let signature = "Only for GitHub webhooks: `sha256=` and the HMAC-SHA256 of the body in hexadecimal, as GitHub sends it.";
    let signature = ApiKey::Header(ApiKeyValue::with_description("X-Hub-Signature-256", signature));
    components.add_security_scheme(SIGNATURE, SecurityScheme::ApiKey(signature));
    components.schemas.insert("Problem".into(), Problem::schema());
    components.schemas.insert("FieldError".into(), FieldError::schema());
    let asked = named_in_requests(&document);
    if let Some(components) = &mut document.components {
        complete_answers(&mut components.schemas, &asked);
        complete_pages(components);
    }
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PUT, &mut item.put),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                complete_operation(path, &method, operation);
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

fn complete_operation(path: &str, method: &Method, operation: &mut Operation) {
    let is_keyed = operation.security.is_some();
    let has_query = parameters(operation).any(|p| p.parameter_in == ParameterIn::Query);
    let has_body = operation.request_body.is_some();
    let is_conditional = has_etag(operation);
    let is_signed = path.starts_with("/webhooks/");
    let is_idempotent_post = *method == Method::POST
        && has_body
        && !is_signed
        && !operation.tags.iter().flatten().any(|tag| tag == "keys");

    let mut failures = vec![500, 503];
    if is_keyed {
        failures.extend([401, 403]);
    }
    if has_query || has_body {
        failures.push(400);
    }
    if path.contains('{') {
        failures.push(404);
    }
    if has_body {
        failures.extend([408, 413, 415]);
    }
    if has_body && !is_signed {
        failures.push(422);
    }
    let parameters = operation.parameters.get_or_insert_default();
    if is_idempotent_post {
        failures.push(409);
        parameters.push(header_parameter(
            "Idempotency-Key",
            "A key of your choice, such as a UUID, that makes it safe to repeat the request. A repeat within 24 hours gets the first response, and takes no effect.",
            Some("^[!#-~]{1,255}$"),
        ));
    }
    if *method == Method::PATCH {
        failures.push(412);
        parameters.push(header_parameter(
            "If-Match",
            "The `ETag` of the resource when you read it. The request fails with 412 if the resource has changed since. Without the header there is no check.",
            Some(ETAG_LIST),
        ));
    }
    if *method == Method::GET && is_conditional {
        // No pattern: a value that is not a list of tags matches nothing, and the response is the
        // whole resource.
        parameters.push(header_parameter(
            "If-None-Match",
            "The `ETag` of an earlier response. The answer is 304 without a body if it would still be the same.",
            None,
        ));
        operation.responses.responses.insert(
            "304".into(),
            RefOr::T(
                ResponseBuilder::new()
                    .description("Nothing has changed since the response with this `ETag`.")
                    .build(),
            ),
        );
    }
    for status in failures {
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(Response::default()));
    }
    describe_security(operation, is_idempotent_post);
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            describe(status, response);
        }
    }
}

/// Adds to the description what the scopes and the headers of an operation imply.
fn describe_security(operation: &mut Operation, is_idempotent_post: bool) {
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    let scopes: Vec<_> = security
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|requirement| Some(format!("`{}`", requirement[KEY][0].as_str()?)))
        .collect();
    let mut sentences: Vec<_> = operation.description.take().into_iter().collect();
    if !scopes.is_empty() {
        sentences.push(format!("Requires a key with the scope {}.", scopes.join(" or ")));
    }
    if is_idempotent_post {
        sentences.push(
            "A repeat with the same `Idempotency-Key` gets the first response and changes nothing."
                .into(),
        );
    }
    operation.description = (!sentences.is_empty()).then(|| sentences.join("\n\n"));
}

const ETAG_LIST: &str = r#"^(\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)$"#;

fn has_etag(operation: &Operation) -> bool {
    let ok = operation.responses.responses.get("200");
    matches!(ok, Some(RefOr::T(response)) if response.headers.contains_key("ETag"))
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &openapi::path::Parameter> {
    operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}

fn header_parameter(
    name: &str,
    description: &str,
    pattern: Option<&str>,
) -> RefOr<openapi::path::Parameter> {
    let text = ObjectBuilder::new().schema_type(schema::Type::String).pattern(pattern).build();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text))
        .build()
        .into()
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

/// The document as it is served, and the allowed methods of each path. Both are built at the first
/// use.
pub struct Published {
    make: fn() -> openapi::OpenApi,
    made: OnceLock<Made>,
}

struct Made {
    json: Vec<u8>,
    compressed: Vec<u8>,
    /// The `Allow` header of each path.
    methods: Vec<(ResourceDef, HeaderValue)>,
}

impl Published {
    /// Publishes the document that `make` builds.
    pub fn new(make: fn() -> openapi::OpenApi) -> Self {
        Self { make, made: OnceLock::new() }
    }

    /// The `Allow` header of a path of the API. `None` when no path of the API matches.
    pub fn allowed_methods(&self, path: &str) -> Option<&HeaderValue> {
        let paths = &self.get().methods;
        paths.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, allow)| allow)
    }

    fn get(&self) -> &Made {
        self.made.get_or_init(|| {
            let document = (self.make)();
            let json = (document.to_json().unwrap_or_default() + "\n").into_bytes();
            let methods = document
                .paths
                .paths
                .iter()
                .map(|(path, item)| (ResourceDef::new(path.as_str()), allow(item)))
                .collect();
            Made {
                compressed: gzip(&json, Compression::default()).unwrap_or_default(),
                json,
                methods,
            }
        })
    }
}

fn allow(item: &openapi::PathItem) -> HeaderValue {
    let methods = [
        ("GET, HEAD", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    let present: Vec<_> = methods
        .iter()
        .filter(|(_, operation)| operation.is_some())
        .map(|(method, _)| *method)
        .collect();
    HeaderValue::from_str(&present.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// The error for a method that the path does not have. `allow` lists the methods that it has.
pub fn not_allowed(request: &HttpRequest, allow: HeaderValue) -> Error {
    let detail = format!(
        "{} is not allowed for this path; use {}.",
        request.method(),
        allow.to_str().unwrap_or_default().replace(", ", " or ")
    );
    Error::new(Code::MethodNotAllowed, detail).header(header::ALLOW, allow)
}

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(openapi_json);
}

/// Read the OpenAPI document
///
/// Answers this document: the description of the API in OpenAPI 3.1. Needs no key.
#[utoipa::path(tag = "operations", operation_id = "openapi",
    responses((status = 200, body = Object, description = "The description of this API, in OpenAPI 3.1.", example = json!({"openapi": "3.1.0"}))))]
#[get("/openapi.json")]
async fn openapi_json(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let made = state.docs.get();
    let mut response = HttpResponse::Ok();
    response.content_type("application/json").insert_header((header::VARY, "Accept-Encoding"));
    if takes_gzip(&request) {
        response.insert_header(header::ContentEncoding::Gzip).body(made.compressed.clone())
    } else {
        response.body(made.json.clone())
    }
}

/// Serves Swagger UI at `/docs/`. Its files are in the binary. Its style sheets need
/// `unsafe-inline`, its scripts do not.
pub fn swagger_ui(config: &mut web::ServiceConfig) {
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    let settings = Config::new(["/openapi.json"])
        .try_it_out_enabled(true)
        .persist_authorization(false)
        .doc_expansion("list")
        .validator_url("none");
    let settings = Arc::new(settings);
    let file = move |request: HttpRequest, path: web::Path<String>| {
        let settings = settings.clone();
        async move {
            match utoipa_swagger_ui::serve(&path, settings) {
                Ok(Some(file)) => {
                    let mut response = HttpResponse::Ok();
                    let response = response
                        .content_type(file.content_type)
                        .insert_header((header::CONTENT_SECURITY_POLICY, policy));
                    response
                        .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
                        .insert_header((header::VARY, "Accept-Encoding"));
                    // Files are compressed in the binary, and sent as they are to clients that
                    // accept gzip.
                    match file.gzpipped {
                        true if takes_gzip(&request) => Ok(response
                            .insert_header(header::ContentEncoding::Gzip)
                            .body(file.bytes.into_owned())),
                        true => Ok(response.body(gunzip(&file.bytes).map_err(Error::internal)?)),
                        false => Ok(response.body(file.bytes.into_owned())),
                    }
                }
                Ok(None) => Err(Error::not_found("page", path)),
                Err(error) => Err(Error::internal(error)),
            }
        }
    };
    config
        .service(web::redirect("/docs", "/docs/"))
        .service(web::resource("/docs/{file:.*}").route(web::get().to(file)));
}
