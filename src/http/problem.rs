//! Errors as problem details (RFC 9457), with the id of the request.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Code, Error, FieldError};

/// The media type of all errors (RFC 9457, section 6.1).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error (RFC 9457). Programs use `code`, people read `detail`. Some codes have additional
/// members, which their documentation describes.
#[derive(Serialize, ToSchema)]
pub struct Problem<'a> {
    /// The URI of the documentation of the code.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    r#type: String,
    /// A short title, which is the same for every occurrence of the code.
    title: &'a str,
    /// The HTTP status of the response, 400 to 599.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong this time, in a sentence for people.
    detail: &'a str,
    /// What went wrong, as a stable word for programs. More codes may be added.
    code: &'a str,
    /// The id of this request, as in the `X-Request-Id` header and in the access log.
    request_id: &'a str,
    /// The fields or query parameters that are not valid. Absent when the error is not about
    /// fields.
    #[serde(skip_serializing_if = "no_errors")]
    #[schema(required = false, value_type = Vec<FieldError>)]
    errors: &'a Vec<FieldError>,
    #[serde(flatten)]
    #[schema(ignore)]
    members: &'a serde_json::Map<String, serde_json::Value>,
}

fn no_errors(errors: &&Vec<FieldError>) -> bool {
    errors.is_empty()
}

/// The response to a request that failed with `error`.
pub fn render(error: &Error, request_id: &str) -> HttpResponse<BoxBody> {
    let status = error.code.status();
    let problem = Problem {
        r#type: error.code.type_uri(),
        title: error.code.title(),
        status: status.as_u16(),
        detail: &error.detail,
        code: error.code.as_str(),
        request_id,
        errors: &error.errors,
        members: &error.members,
    };
    let mut body = serde_json::to_vec(&problem).unwrap_or_default();
    body.push(b'\n');
    let mut response = HttpResponse::with_body(status, BoxBody::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    // A cache may keep a 404 or a 405 without being asked to (RFC 9110, section 15.1).
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    for (name, value) in &error.headers {
        headers.insert(name.clone(), value.clone());
    }
    response
}

/// Turns an error of actix itself into an [`Error`].
pub fn foreign(error: &actix_web::Error) -> Error {
    match error.as_response_error().status_code() {
        StatusCode::NOT_FOUND => Error::new(Code::NotFound, "There is nothing at this path."),
        StatusCode::PAYLOAD_TOO_LARGE => Error::new(Code::BodyTooLarge, "The body is too large."),
        status if status.is_client_error() => Error::new(Code::MalformedJson, error.to_string()),
        _ => Error::internal(error),
    }
}

/// Lets handlers return an `Error`. [`render`] writes the body later, when the request id is known.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.code.status())
    }
}
