//! Entity tags (RFC 9110, sections 8.8.3 and 13): made from a row's revision, or from the bytes of an answer.

use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header, IfNoneMatch};

use crate::error::{Code, Error};

/// The tag of a resource at a revision. A revision grows with every change.
pub fn of_revision(revision: i32) -> EntityTag {
    EntityTag::new_strong(revision.to_string())
}

/// The tag of an answer that no single row stands for.
pub fn of_bytes(bytes: &[u8]) -> EntityTag {
    EntityTag::new_weak(format!("{:08x}-{:x}", crc32fast::hash(bytes), bytes.len()))
}

/// Whether the client says that it has this already (`If-None-Match`, compared weakly).
pub fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    request.headers().contains_key(header::IF_NONE_MATCH)
        && match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
            Err(_) => false,
        }
}

/// What a client asks to be true of a resource before it is changed (`If-Match`).
pub struct IfMatch(Option<header::IfMatch>);

impl IfMatch {
    /// Reads the header.
    pub fn from_request(request: &HttpRequest) -> Result<Self, Error> {
        if !request.headers().contains_key(header::IF_MATCH) {
            return Ok(Self(None));
        }
        // What is no entity tag is left out when a list is parsed.
        let is_empty = |parsed: &header::IfMatch| matches!(parsed, header::IfMatch::Items(tags) if tags.is_empty());
        match header::IfMatch::parse(request) {
            Ok(parsed) if !is_empty(&parsed) => Ok(Self(Some(parsed))),
            _ => Err(Error::new(
                Code::InvalidIfMatch,
                "If-Match is neither `*` nor a list of entity tags.",
            )),
        }
    }

    /// Compares it (strongly) with the resource as it is.
    pub fn check(&self, revision: i32) -> Result<(), Error> {
        let now = of_revision(revision);
        match &self.0 {
            Some(header::IfMatch::Items(tags)) if !tags.iter().any(|tag| tag.strong_eq(&now)) => {
                Err(Error::new(
                    Code::PreconditionFailed,
                    format!("It is at ETag {now} now. Read it again, then change it."),
                ))
            }
            _ => Ok(()),
        }
    }
}
