//! Successful responses: JSON with ETag and 304, Location and Link, compressed when large.

use actix_web::body::BoxBody;
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, EntityTag, Header, HeaderValue,
};
use actix_web::http::{Method, StatusCode};
use actix_web::mime;
use actix_web::{HttpRequest, HttpResponse, Responder};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::io::{Read, Write};

use crate::error::Error;
use crate::http::etag;

/// The size in bytes from which a body is compressed for clients that accept gzip. A smaller body
/// fits in a few packets anyway.
const COMPRESS_FROM: usize = 4096;

/// The size in bytes from which a body, such as a large status grid, gets the slower and better
/// compression.
const COMPRESS_WELL_FROM: usize = 128 * 1024;

/// A successful response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200, or 201 when a resource was created.
    pub status: StatusCode,
    /// The path of the created resource, if it has one.
    pub location: Option<String>,
    /// The entity tag of the resource, if it has one.
    pub etag: Option<EntityTag>,
    /// The body as JSON.
    pub body: Vec<u8>,
    /// Whether this is the stored response of an earlier request with the same idempotency key.
    pub replayed: bool,
    /// The cursor of the next page of a list.
    pub next: Option<String>,
}

impl Reply {
    /// A 200 with a JSON body.
    pub fn ok<T: Serialize>(value: &T) -> Result<Self, Error> {
        Ok(Self::json(serde_json::to_vec(value).map_err(Error::internal)?))
    }

    /// A 200 with a body that is JSON already.
    pub fn json(body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            location: None,
            etag: None,
            body,
            replayed: false,
            next: None,
        }
    }

    /// A 201 with the created resource and its path.
    pub fn created<T: Serialize>(location: String, value: &T) -> Result<Self, Error> {
        Ok(Self { location: Some(location), ..Self::made(value)? })
    }

    /// A 201 with a created resource that has no path of its own.
    pub fn made<T: Serialize>(value: &T) -> Result<Self, Error> {
        Ok(Self { status: StatusCode::CREATED, ..Self::ok(value)? })
    }

    /// Sets the entity tag from the revision of the resource.
    pub fn at_revision(self, revision: i32) -> Self {
        Self { etag: Some(etag::of_revision(revision)), ..self }
    }

    /// Sets the entity tag from the content of the body.
    pub fn tagged(self) -> Self {
        Self { etag: Some(etag::of_bytes(&self.body)), ..self }
    }

    fn link(&self, request: &HttpRequest) -> Option<String> {
        let next = self.next.as_ref()?;
        let others = request
            .query_string()
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query: String = others.map(|pair| format!("{pair}&")).collect();
        Some(format!("<{}?{query}cursor={next}>; rel=\"next\"", request.path()))
    }
}

impl Responder for Reply {
    type Body = BoxBody;

    fn respond_to(mut self, request: &HttpRequest) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
        if let Some(etag) = &self.etag {
            response.insert_header((header::ETAG, etag.clone()));
            if self.status == StatusCode::OK
                && request.method() == Method::GET
                && etag::is_known(request, etag)
            {
                return response.status(StatusCode::NOT_MODIFIED).finish();
            }
        }
        if let Some(link) = self.link(request) {
            response.insert_header((header::LINK, link));
        }
        if let Some(location) = &self.location {
            response.insert_header((header::LOCATION, location.as_str()));
        }
        if self.replayed {
            response.insert_header(("Idempotent-Replayed", "true"));
        }
        response
            .insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        // So that a terminal's prompt begins on a line of its own.
        self.body.push(b'\n');
        if self.body.len() < COMPRESS_FROM {
            return response.body(self.body);
        }
        response.insert_header((header::VARY, "Accept-Encoding"));
        let level = if self.body.len() < COMPRESS_WELL_FROM {
            Compression::fast()
        } else {
            Compression::default()
        };
        match takes_gzip(request).then(|| gzip(&self.body, level)) {
            Some(Ok(compressed)) => response.insert_header(ContentEncoding::Gzip).body(compressed),
            _ => response.body(self.body),
        }
    }
}

/// Whether the client accepts gzip.
pub fn takes_gzip(request: &HttpRequest) -> bool {
    request.headers().contains_key(header::ACCEPT_ENCODING)
        && AcceptEncoding::parse(request).is_ok_and(|accepted| {
            let available = [header::Encoding::gzip(), header::Encoding::identity()];
            accepted.negotiate(available.iter()) == Some(header::Encoding::gzip())
        })
}

/// Whether the client is a browser that opens an address, or another reader of HTML: `*/*`, as
/// programs send it, does not count.
pub fn takes_html(request: &HttpRequest) -> bool {
    header::Accept::parse(request).is_ok_and(|accepted| {
        let html = accepted.iter().find(|range| range.item == mime::TEXT_HTML);
        html.is_some_and(|range| range.quality > header::Quality::ZERO)
    })
}

/// Compresses `bytes` with gzip.
///
/// # Errors
/// When the encoder fails, which does not happen in memory.
pub fn gzip(bytes: &[u8], level: Compression) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Decompresses gzip, for clients that do not accept it.
///
/// # Errors
/// When `bytes` are not valid gzip.
pub fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len() * 4);
    GzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}
