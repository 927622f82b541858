//! The OpenAPI document, Swagger UI, and what follows from the document: which methods a path has.
//!
//! The routes are the document: each handler says what only it knows, and what holds for all of them is added here once.

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
use crate::http::pages;
use crate::http::problem::{MEDIA_TYPE, Problem};
use crate::http::reply::{gunzip, gzip, takes_gzip, takes_html};

/// The name of the security scheme of everything below `/v1`.
const KEY: &str = "key";
/// And of webhooks.
const SIGNATURE: &str = "signature";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "prop",
        description = "A deployment ledger. For every service and environment: what is running, since when, which image, who asked for it, \
            and may this release go there now.\n\n\
            Send a key as `Authorization: Bearer prop_...`. Errors are problem details (RFC 9457) with a stable `code`. A POST with an \
            `Idempotency-Key` is done once, however often it is sent. Lists come in pages: pass `next` as `cursor`. \
            Treat every enum as open: values may be added.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "status", description = "What runs where"),
        (name = "services", description = "What is deployed"),
        (name = "environments", description = "Where it is deployed to"),
        (name = "releases", description = "Versions of a service, and the image that each one is"),
        (name = "deployments", description = "A release on its way into an environment"),
        (name = "gate", description = "May this release go there now, and if not, why not"),
        (name = "approvals", description = "What people say about a release"),
        (name = "freezes", description = "When nothing goes where"),
        (name = "incidents", description = "What is wrong, what caused it, what mended it"),
        (name = "metrics", description = "How well delivery goes: DORA's five measures"),
        (name = "events", description = "The history of everything, append-only"),
        (name = "keys", description = "Who may do what"),
        (name = "webhooks", description = "What GitHub tells by itself"),
        (name = "operations", description = "The process itself: health, version, metrics")
    )
)]
struct Frame;

/// The document before any route: title, tags in reading order.
pub fn frame() -> openapi::OpenApi {
    let mut document = Frame::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document
}

/// Adds what holds for every operation: the key, the ways to fail, and the headers of the conventions.
pub fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of prop: `prop_` and 36 characters."))
        .build();
    components.add_security_scheme(KEY, SecurityScheme::Http(scheme));
    let signature =
        "`sha256=` and the HMAC-SHA256 of the body, in hexadecimal, as GitHub makes it.";
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

/// Names of the schemas that request bodies use, directly or through others.
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

/// Schemas of answers that leave out what does not apply.
const SPARSE: [&str; 2] = ["Problem", "Reason"];

/// In answers, a field that may be `null` is there all the same.
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

/// A page refers to what its items are, instead of describing it again, and is shown with one: the item's own example.
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
                .description(Some("The items, at most `limit`."));
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
            "Done once, however often it is sent in 24 hours.",
            Some("^[!#-~]{1,255}$"),
        ));
    }
    if *method == Method::PATCH {
        failures.push(412);
        parameters.push(header_parameter(
            "If-Match",
            "The ETag that was read: refused with 412 when it has changed since.",
            Some(ETAG_LIST),
        ));
    }
    if *method == Method::GET && is_conditional {
        // No pattern: what is no list of tags matches nothing, and the answer is the whole resource.
        parameters.push(header_parameter(
            "If-None-Match",
            "The ETag that was read: 304 when it has not changed since.",
            None,
        ));
        operation.responses.responses.insert(
            "304".into(),
            RefOr::T(ResponseBuilder::new().description("Not changed.").build()),
        );
    }
    for status in failures {
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(Response::default()));
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            describe(status, response);
        }
    }
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

/// Fills in what a handler did not say: of a failure, the codes that have this status, each explained in
/// `docs/problems.md`.
fn describe(status: &str, response: &mut Response) {
    let codes = Code::ALL.iter().filter(|code| code.status().as_str() == status);
    let codes: Vec<_> = codes.map(|code| format!("`{}`", code.as_str())).collect();
    if !codes.is_empty() {
        let content =
            ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        response.content.insert(MEDIA_TYPE.into(), content.into());
    }
    if response.description.is_empty() {
        response.description = if codes.is_empty() { "Done.".into() } else { codes.join(", ") };
    }
    if status == "503" {
        let seconds = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(schema::Type::Integer)))
            .description(Some("Seconds."));
        response.headers.insert("Retry-After".into(), seconds.build().into());
    }
}

/// The document as it is served, and what is derived from it. Made when it is first asked for.
pub struct Published {
    make: fn() -> openapi::OpenApi,
    made: OnceLock<Made>,
}

struct Made {
    json: Vec<u8>,
    compressed: Vec<u8>,
    /// The `Allow` of each path.
    methods: Vec<(ResourceDef, HeaderValue)>,
}

impl Published {
    /// Publishes what `make` makes.
    pub fn new(make: fn() -> openapi::OpenApi) -> Self {
        Self { make, made: OnceLock::new() }
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

/// Where no route is: 405 with `Allow` when the path has other methods (RFC 9110, section 15.5.6),
/// else 404; as a page for browsers, outside of the API.
pub async fn nowhere(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Error> {
    match state.docs.get().methods.iter().find(|(path, _)| path.is_match(request.path())) {
        Some((_, allow)) => Err(not_allowed(&request, allow.clone())),
        None if request.method() == Method::GET && takes_html(&request) => {
            Ok(pages::not_found(&request))
        }
        None => Err(Error::new(
            Code::NotFound,
            "There is nothing at this path. `/docs/` lists all paths of the API.",
        )),
    }
}

/// This path has other methods.
pub fn not_allowed(request: &HttpRequest, allow: HeaderValue) -> Error {
    let detail = format!(
        "{} is not for this path; {} is.",
        request.method(),
        allow.to_str().unwrap_or_default()
    );
    Error::new(Code::MethodNotAllowed, detail).header(header::ALLOW, allow)
}

/// The route of the document.
pub fn routes(config: &mut ServiceConfig) {
    config.service(openapi_json);
}

/// This document
#[utoipa::path(tag = "operations", operation_id = "openapi", 
    responses((status = 200, body = Object, description = "OpenAPI 3.1.", example = json!({"openapi": "3.1.0"}))))]
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

/// Swagger UI. Its files are in the binary; its style needs `unsafe-inline`, its scripts do not.
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
                    // In the binary it is compressed; every browser takes it so.
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
