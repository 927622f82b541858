//! The OpenAPI document and Swagger UI.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::http::routes::Routes;

mod complete; // what the document has besides what the handlers describe
mod published; // the document as it is served
pub mod swagger; // Swagger UI

pub use complete::{complete, frame};
pub use published::Published;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(openapi_json, __path_openapi_json);
}

/// Read the OpenAPI document
///
/// Answers this document: the description of the API in OpenAPI 3.1. Needs no key.
#[utoipa::path(get, path = "/openapi.json",
    tag = "operations", operation_id = "openapi",
    responses((status = 200, body = Object,
        description = "The description of this API, in OpenAPI 3.1.",
        headers(("ETag" = String)), example = json!({"openapi": "3.1.0"}))))]
async fn openapi_json(request: HttpRequest, docs: web::Data<Published>) -> HttpResponse {
    docs.get().answer(&request, "no-cache")
}
