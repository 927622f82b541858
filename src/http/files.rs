//! Files that do not change while the process runs: pages, scripts, the API document. Each is held
//! once, plain and compressed, and an answer copies neither.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, EntityTag, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;

use crate::http::etag;
use crate::http::response::{gunzip, gzip, takes_gzip};

/// A file, ready to be sent.
pub struct File {
    media_type: &'static str,
    /// The `Content-Security-Policy`. `None`: the policy of all answers.
    policy: Option<HeaderValue>,
    plain: Bytes,
    /// Compressed with gzip. `None` when that does not make it smaller.
    compressed: Option<Bytes>,
    etag: EntityTag,
}

impl File {
    /// A file with this content.
    pub fn new(media_type: &'static str, plain: impl Into<Bytes>) -> Self {
        let plain = plain.into();
        let compressed = gzip(&plain, Compression::best()).ok().map(Bytes::from);
        Self::of(media_type, plain, compressed)
    }

    /// A file that was compressed with gzip before.
    ///
    /// # Errors
    /// When `compressed` is not valid gzip.
    pub fn from_compressed(
        media_type: &'static str,
        compressed: impl Into<Bytes>,
    ) -> std::io::Result<Self> {
        let compressed = compressed.into();
        let plain = Bytes::from(gunzip(&compressed)?);
        Ok(Self::of(media_type, plain, Some(compressed)))
    }

    fn of(media_type: &'static str, plain: Bytes, compressed: Option<Bytes>) -> Self {
        let compressed = compressed.filter(|compressed| compressed.len() < plain.len());
        Self { media_type, policy: None, etag: etag::of_bytes(&plain), compressed, plain }
    }

    /// Sets the `Content-Security-Policy`.
    pub fn with_policy(self, policy: &'static str) -> Self {
        Self { policy: Some(HeaderValue::from_static(policy)), ..self }
    }

    /// The answer with this file: 304 when the client has it, else 200. `keep` is the
    /// `Cache-Control`.
    pub fn answer(&self, request: &HttpRequest, keep: &'static str) -> HttpResponse {
        self.answer_as(StatusCode::OK, request, keep)
    }

    /// The same with another status, such as 404.
    pub fn answer_as(
        &self,
        status: StatusCode,
        request: &HttpRequest,
        keep: &'static str,
    ) -> HttpResponse {
        let mut response = HttpResponse::build(status);
        response
            .content_type(self.media_type)
            .insert_header((header::CACHE_CONTROL, keep))
            .insert_header((header::VARY, "Accept-Encoding"))
            .insert_header((header::ETAG, self.etag.clone()));
        if let Some(policy) = &self.policy {
            response.insert_header((header::CONTENT_SECURITY_POLICY, policy.clone()));
        }
        if status == StatusCode::OK && etag::is_known(request, &self.etag) {
            return response.status(StatusCode::NOT_MODIFIED).finish();
        }
        match &self.compressed {
            Some(compressed) if takes_gzip(request) => {
                response.insert_header(header::ContentEncoding::Gzip).body(compressed.clone())
            }
            _ => response.body(self.plain.clone()),
        }
    }
}
