//! The OpenAPI document and Swagger UI. The methods that a path allows also come from the document.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, get, web};
use std::sync::Arc;
use utoipa_actix_web::service_config::ServiceConfig;
use utoipa_swagger_ui::Config;

use crate::error::{Code, Error};
use crate::http::response::{gunzip, takes_gzip};

mod complete; // what the document has besides what the handlers describe
mod published; // the document as it is served, and the methods that each path allows

pub use complete::{complete, frame};
pub use published::Published;

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
