//! The OpenAPI document and Swagger UI. The methods that a path allows also come from the document.

use actix_web::dev::ResourceDef;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, get, web};
use flate2::Compression;
use std::sync::{Arc, OnceLock};
use utoipa::openapi;
use utoipa_actix_web::service_config::ServiceConfig;
use utoipa_swagger_ui::Config;

use crate::error::{Code, Error};
use crate::http::response::{gunzip, gzip, takes_gzip};

mod complete; // what the document has besides what the handlers describe

pub use complete::{complete, frame};

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
    responses((status = 200, body = Object,
        description = "The description of this API, in OpenAPI 3.1.",
        example = json!({"openapi": "3.1.0"}))))]
#[get("/openapi.json")]
async fn openapi_json(request: HttpRequest, docs: web::Data<Published>) -> HttpResponse {
    let made = docs.get();
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
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
        frame-ancestors 'none'";
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
