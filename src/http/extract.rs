//! Request bodies and query parameters. An error names the field that is wrong.

use actix_web::dev::Payload;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};
use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::{Code, Error};
use crate::http::caller::Caller;
use crate::http::idempotency;
use crate::http::state::State;
use crate::suggest::UnknownField;
use crate::types::malformed::Malformed;

/// The serde error for a malformed value; see [`Malformed`].
pub fn malformed<E: serde::de::Error>(code: Code, detail: impl fmt::Display) -> E {
    E::custom(Malformed::new(code.as_str(), detail))
}

/// The length up to which a body may always be read, in bytes. Most webhooks have 10 to 30 KiB.
const SMALL: usize = 64 * 1024;

/// A JSON request body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let body = read(&request, payload).await?;
            idempotency::note_body(&request, &body);
            parse(&body).map(Self)
        })
    }
}

/// Reads the body of a request.
///
/// # Errors
/// When its content type is not JSON, it is compressed or too large, or it does not arrive in time.
pub async fn read(request: &HttpRequest, payload: Payload) -> Result<web::Bytes, Error> {
    check_form(request)?;
    let state =
        request.app_data::<web::Data<State>>().ok_or_else(|| Error::internal("no state"))?;
    let limit = state.http.body_limit;
    let too_large = || Error::new(Code::BodyTooLarge, format!("A body may have {limit} bytes."));
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let payload =
        web::Payload::from_request(request, &mut { payload }).await.map_err(Error::internal)?;
    let is_large = announced.is_none_or(|length| length > SMALL);
    let bytes = async {
        let is_anonymous = !request.extensions().contains::<Arc<Caller>>();
        let _permit = match is_large && is_anonymous {
            true => state.anonymous_bodies.acquire().await.ok(),
            false => None,
        };
        payload.to_bytes_limited(limit).await
    };
    match tokio::time::timeout(state.http.read_timeout, bytes).await {
        Err(_elapsed) => Err(Error::new(
            Code::RequestTimeout,
            format!("The body was not complete after {} s.", state.http.read_timeout.as_secs()),
        )),
        Ok(Err(_limit)) => Err(too_large()),
        Ok(Ok(Err(broken))) => {
            Err(Error::new(Code::MalformedJson, format!("The body could not be read: {broken}")))
        }
        Ok(Ok(Ok(bytes))) => Ok(bytes),
    }
}

/// Checks that the headers announce a body of JSON as it is.
fn check_form(request: &HttpRequest) -> Result<(), Error> {
    // Media types and codings are compared in any case (RFC 9110, sections 8.3.1 and 8.4.1).
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Error::new(
            Code::UnsupportedMediaType,
            "Send JSON with `Content-Type: application/json`.",
        ));
    }
    let coding = request.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if coding.is_some_and(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        let detail = "Send the body as it is, without a `Content-Encoding`.";
        return Err(Error::new(Code::UnsupportedEncoding, detail)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    Ok(())
}

/// Parses a JSON body.
///
/// # Errors
/// `malformed_json`, or an error with a pointer to the field that is wrong.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if body.trim_ascii().is_empty() {
        return Err(Error::new(Code::MalformedJson, "The body is empty."));
    }
    let malformed = |cause: serde_json::Error| {
        Error::new(Code::MalformedJson, format!("The body is not valid JSON: {cause}."))
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let cause = error.inner();
        if cause.is_data() {
            // Cut "... at line 1 column 17": the pointer already names the field.
            let message = cause.to_string();
            let message =
                message.rfind(" at line ").map_or(message.as_str(), |end| &message[..end]);
            return explain(message, &pointer(error.path()), &[]);
        }
        malformed(error.into_inner())
    })?;
    json.end().map_err(malformed)?;
    Ok(value)
}

/// A JSON object. An implementation derived by serde would also accept an array of the field
/// values, which the OpenAPI document does not allow.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Deserializes a field whose value must be an object; see [`Object`].
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

fn pointer(path: &Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(format!("/{}", escape(key))),
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Escapes a field name for a JSON pointer (RFC 6901, section 3).
fn escape(field: &str) -> String {
    field.replace('~', "~0").replace('/', "~1")
}

/// Turns a message of serde into an error. `at` is the pointer to the field, or to the object in
/// which the field is missing, and `others` are allowed fields that serde does not know.
fn explain(message: &str, at: &str, others: &[&str]) -> Error {
    let malformed = Malformed::split(message);
    if let Some((code, detail)) =
        malformed.and_then(|(word, detail)| Some((Code::from_word(word)?, detail)))
    {
        return Error::field(code, at, detail);
    }
    if let Some(mut unknown) = UnknownField::read(message) {
        unknown.known.extend(others);
        let detail = format!("unknown field. {}", unknown.advice());
        return Error::field(Code::UnknownField, beside(at, unknown.field), detail);
    }
    let field = message.split('`').nth(1).unwrap_or_default();
    let kind = message.split(' ').take(2).collect::<Vec<_>>().join(" ");
    match kind.as_str() {
        "duplicate field" => Error::field(Code::InvalidValue, beside(at, field), "is given twice"),
        "missing field" => Error::field(Code::MissingField, format!("{at}/{field}"), "is missing"),
        "invalid type:" => {
            Error::field(Code::InvalidType, at, message.trim_start_matches("invalid type: "))
        }
        _ => Error::field(Code::InvalidValue, at, message),
    }
}

/// The pointer to an unknown or repeated field. serde points to the field, or to its object.
fn beside(at: &str, field: &str) -> String {
    let field = escape(field);
    if at.ends_with(&format!("/{field}")) { at.to_owned() } else { format!("{at}/{field}") }
}

/// Query parameters. Unknown parameters are an error.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse_query(request.query_string(), &[]).map(Self))
    }
}

/// Parses a query. `others` are the names of parameters that are allowed besides those of `T`; an
/// error about an unknown parameter lists them too.
///
/// # Errors
/// `invalid_query`, or the code of a malformed value, with the name of the parameter.
pub fn parse_query<T: DeserializeOwned>(query: &str, others: &[&str]) -> Result<T, Error> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let explained = explain(&error.inner().to_string(), &pointer(error.path()), others);
        let code = if explained.code.status() == actix_web::http::StatusCode::BAD_REQUEST {
            explained.code
        } else {
            Code::InvalidQuery
        };
        let field = explained.errors.into_iter().next();
        let (name, detail) = field
            .map(|f| (f.pointer.trim_start_matches('/').to_owned(), f.detail))
            .unwrap_or_default();
        Error::field(code, name, detail)
    })
}

/// Answers 404 for a path parameter that is malformed: no resource has such a name.
pub fn path_config() -> web::PathConfig {
    web::PathConfig::default()
        .error_handler(|_, request| Error::not_found("resource", request.path()).into())
}
