//! The OpenAPI document and Swagger UI. The methods that a path allows also come from the document.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, get, web};

use crate::error::{Code, Error};
use crate::http::routes::Routes;

mod complete; // what the document has besides what the handlers describe
mod published; // the document as it is served, and the methods that each path allows
pub mod swagger; // Swagger UI

pub use complete::{complete, frame};
pub use published::Published;

/// The error for a method that the path does not have. `allow` lists the methods that it has.
pub fn not_allowed(allow: HeaderValue) -> Error {
    let detail = format!(
        "This method is not allowed for this path; use {}.",
        allow.to_str().unwrap_or_default().replace(", ", " or ")
    );
    Error::new(Code::MethodNotAllowed, detail).header(header::ALLOW, allow)
}

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.service(openapi_json);
}

/// Read the OpenAPI document
///
/// Answers this document: the description of the API in OpenAPI 3.1. Needs no key.
#[utoipa::path(tag = "operations", operation_id = "openapi",
    responses((status = 200, body = Object,
        description = "The description of this API, in OpenAPI 3.1.",
        headers(("ETag" = String)), example = json!({"openapi": "3.1.0"}))))]
#[get("/openapi.json")]
async fn openapi_json(request: HttpRequest, docs: web::Data<Published>) -> HttpResponse {
    docs.get().document.answer(&request, "no-cache")
}
