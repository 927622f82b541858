//! The outermost middleware: request ids, the access log, metrics, security headers, and errors as
//! problem details.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse, Url};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, Uri};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, web};
use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Code, Error};
use crate::http::caller::Caller;
use crate::http::exchange::{Answer, Exchange};
use crate::http::problem;
use crate::http::routes::Pattern;
use crate::http::state::State;
use crate::types::request::{self, RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The security headers of all responses (OWASP REST Security Cheat Sheet). Pages with scripts set
/// their own policy.
const SECURITY: [(HeaderName, HeaderValue); 4] = [
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// The methods that are counted and logged by their names.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The name of all other methods. A client can invent any number of them, and each may be long.
const OTHER: &[u8] = b"OTHER";

/// The longest head of a request, in bytes. actix keeps the heads of some hundred requests, to use
/// their memory again.
const LONGEST_HEAD: usize = 32 * 1024;

/// Gives a request its id, runs it, completes the response, and writes the access log.
pub async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<Answer>, actix_web::Error> {
    if !METHODS.contains(request.method())
        && let Ok(other) = Method::from_bytes(OTHER)
    {
        request.head_mut().method = other;
    }
    let received = Received::now(&request);
    let exchange = Exchange::begin(&mut request);
    if received.method == Method::HEAD {
        // HEAD is GET without the body (RFC 9110, section 9.3.2). actix omits the body by itself.
        request.head_mut().method = Method::GET;
    }
    let mut response = if length(request.head()) > LONGEST_HEAD {
        forget_head(&mut request);
        let detail = format!("The head of a request may have {LONGEST_HEAD} bytes.");
        let error = Error::new(Code::HeadTooLarge, detail);
        request.into_response(problem::render(&error, &received.request_id))
    } else {
        let (mut work, id) = (pin!(next.call(request)), &received.request_id);
        let response =
            poll_fn(|cx| request::within(Some(id.clone()), || work.as_mut().poll(cx))).await?;
        // What is logged about an error names the request, too.
        request::within(Some(id.clone()), || render_error(response, id))
    };
    complete_headers(response.headers_mut(), &received.request_id);

    let took = received.started.elapsed();
    let route = route(response.request());
    if let Some(state) = response.request().app_data::<web::Data<State>>().cloned() {
        let (method, status) = (received.method.as_str(), response.status());
        state.metrics.count(method, &route, status.as_str(), took);
        if state.draining.load(Ordering::Relaxed) {
            // Open connections would delay the shutdown.
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
    }
    received.log(&response, &route, took);
    Ok(response.map_body(|_, body| Answer::new(body, exchange)))
}

/// The pattern of the path that a request was for: a route's, or a page's, which actix knows.
fn route(request: &HttpRequest) -> Cow<'static, str> {
    let known = request.extensions().get().map(|Pattern(pattern)| Cow::from(*pattern));
    let page = || request.match_pattern().map(Cow::from);
    known.or_else(page).unwrap_or(Cow::from("unmatched"))
}

/// The length of a head, in bytes, without the method.
fn length(head: &RequestHead) -> usize {
    let headers = head.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    head.uri.path().len() + head.uri.query().map_or(0, str::len) + headers
}

/// Drops all that a client has put into a head.
fn forget_head(request: &mut ServiceRequest) {
    request.match_info_mut().set(Url::new(Uri::default()));
    let head = request.head_mut();
    head.headers.clear();
    head.uri = Uri::default();
}

/// What a request was before it ran.
struct Received {
    started: Instant,
    method: Method,
    request_id: RequestId,
    trace_id: Option<String>,
}

impl Received {
    fn now(request: &ServiceRequest) -> Self {
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            request_id: request_id(request.headers()),
            trace_id: trace_id(request.headers()).map(str::to_owned),
        }
    }

    /// Writes the access log.
    fn log(&self, response: &ServiceResponse<BoxBody>, route: &str, took: Duration) {
        let caller = response.request().extensions().get::<Arc<Caller>>().cloned();
        log::info!(
            target: "access",
            method = self.method.as_str(),
            route,
            status = response.status().as_u16(),
            ms = (took.as_micros() as f64) / 1000.0,
            key_id:serde = caller.as_ref().and_then(|caller| caller.id),
            request_id = &*self.request_id,
            trace_id:serde = self.trace_id;
            "request"
        );
    }
}

/// Turns an error into problem details.
fn render_error(
    response: ServiceResponse<impl MessageBody + 'static>,
    request_id: &str,
) -> ServiceResponse<BoxBody> {
    let failed = response.response().error().map(|error| match error.as_error::<Error>() {
        Some(error) => error.clone(),
        None => problem::foreign(error),
    });
    match failed {
        Some(error) => response.into_response(problem::render(&error, request_id)),
        None => response.map_into_boxed_body(),
    }
}

/// Adds the request id, and the security headers that the handler did not set itself.
fn complete_headers(headers: &mut HeaderMap, request_id: &str) {
    for (name, value) in SECURITY {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
}

/// The request id that the client sent, if it is well formed, so that both logs have the same id;
/// else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let sensible = |id: &&str| {
        !id.is_empty()
            && id.len() <= 64
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given.filter(sensible).map_or_else(request::new_id, RequestId::from)
}

/// The trace id of the request (W3C Trace Context, section 3.2.2:
/// `00-<trace id>-<parent id>-<flags>`).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let whole = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2);
    (whole && trace.bytes().any(|b| b != b'0') && parent.bytes().any(|b| b != b'0'))
        .then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_trace_is_taken_from_a_well_formed_header_only() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            trace_id(&headers("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))),
            Some(trace)
        );
        assert_eq!(
            trace_id(&headers("traceparent", &format!("cc-{trace}-00f067aa0ba902b7-01-later"))),
            Some(trace)
        );
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for wrong in [
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &zeros,
            "00-abc-def-01",
            "",
            &format!("00-{trace}"),
        ] {
            assert_eq!(trace_id(&headers("traceparent", wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_clients_request_id_is_kept_when_it_is_sensible() {
        assert_eq!(&*request_id(&headers("x-request-id", "build-17.3_a")), "build-17.3_a");
        for wrong in ["", "a b", "<script>", &"x".repeat(65)] {
            assert_ne!(&*request_id(&headers("x-request-id", wrong)), wrong);
        }
    }
}
