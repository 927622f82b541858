//! Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13). A tag is made from the
//! revision of a row, or from the bytes of a response.

use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header, IfNoneMatch};

use crate::error::{Code, Error};

/// The strong tag of a resource at a revision. Each change increases the revision.
pub fn of_revision(revision: i32) -> EntityTag {
    EntityTag::new_strong(revision.to_string())
}

/// The weak tag of a response that is made from several rows.
pub fn of_bytes(bytes: &[u8]) -> EntityTag {
    EntityTag::new_weak(format!("{:08x}-{:x}", crc32fast::hash(bytes), bytes.len()))
}

/// Whether the client already has this version (`If-None-Match`, weak comparison).
pub fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    request.headers().contains_key(header::IF_NONE_MATCH)
        && match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
            Err(_) => false,
        }
}

/// The condition of a change: the revisions of the resource that the client accepts (`If-Match`).
pub struct IfMatch(Option<header::IfMatch>);

impl IfMatch {
    /// Parses the header. Without the header, every revision is accepted.
    ///
    /// # Errors
    /// `invalid_if_match` when the header is neither `*` nor a list of entity tags.
    pub fn from_request(request: &HttpRequest) -> Result<Self, Error> {
        if !request.headers().contains_key(header::IF_MATCH) {
            return Ok(Self(None));
        }
        let malformed = || {
            let detail = "If-Match is neither `*` nor a list of entity tags.";
            Error::new(Code::InvalidIfMatch, detail)
        };
        match header::IfMatch::parse(request) {
            // The parser drops everything that is not an entity tag.
            Ok(header::IfMatch::Items(tags)) if tags.is_empty() => Err(malformed()),
            Ok(parsed) => Ok(Self(Some(parsed))),
            Err(_) => Err(malformed()),
        }
    }

    /// Compares the condition with the current revision of the resource (strong comparison).
    ///
    /// # Errors
    /// `precondition_failed` when the revision is not in the list.
    pub fn check(&self, revision: i32) -> Result<(), Error> {
        let now = of_revision(revision);
        match &self.0 {
            Some(header::IfMatch::Items(tags)) if !tags.iter().any(|tag| tag.strong_eq(&now)) => {
                Err(Error::new(
                    Code::PreconditionFailed,
                    format!(
                        "The current ETag is {now}. Read the resource again before you change it."
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}
