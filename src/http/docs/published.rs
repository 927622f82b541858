//! The document, built at its first use.

use actix_web::dev::ResourceDef;
use actix_web::http::header::HeaderValue;
use std::sync::OnceLock;
use utoipa::openapi;

use crate::http::files::File;

/// The document as it is served, and the allowed methods of each path. Both are built at the first
/// use.
pub struct Published {
    make: fn() -> openapi::OpenApi,
    made: OnceLock<Made>,
}

/// The document as it is served.
pub(super) struct Made {
    pub(super) document: File,
    /// The `Allow` header of each path.
    methods: Vec<(ResourceDef, HeaderValue)>,
}

impl Published {
    /// Publishes the document that `make` builds.
    pub fn new(make: fn() -> openapi::OpenApi) -> Self {
        Self { make, made: OnceLock::new() }
    }

    /// The `Allow` header of a path of the API. `None` when no path of the API matches.
    pub fn allowed_methods(&self, path: &str) -> Option<&HeaderValue> {
        let paths = &self.get().methods;
        paths.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, allow)| allow)
    }

    pub(super) fn get(&self) -> &Made {
        self.made.get_or_init(|| {
            let document = (self.make)();
            let json = (document.to_json().unwrap_or_default() + "\n").into_bytes();
            let methods = document
                .paths
                .paths
                .iter()
                .map(|(path, item)| (ResourceDef::new(path.as_str()), allow(item)))
                .collect();
            Made { document: File::new("application/json", json), methods }
        })
    }
}

fn allow(item: &openapi::PathItem) -> HeaderValue {
    let methods = [
        ("GET, HEAD", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    let present: Vec<_> = methods
        .iter()
        .filter(|(_, operation)| operation.is_some())
        .map(|(method, _)| *method)
        .collect();
    HeaderValue::from_str(&present.join(", ")).unwrap_or(HeaderValue::from_static(""))
}
