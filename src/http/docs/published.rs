//! The document, built at its first use.

use std::sync::OnceLock;
use utoipa::openapi::OpenApi;

use crate::http::files::File;

/// The document as it is served. It is built at its first use.
pub struct Published {
    make: fn() -> OpenApi,
    made: OnceLock<File>,
}

impl Published {
    /// Publishes the document that `make` builds.
    pub fn new(make: fn() -> OpenApi) -> Self {
        Self { make, made: OnceLock::new() }
    }

    pub(super) fn get(&self) -> &File {
        self.made.get_or_init(|| {
            let json = (self.make)().to_json().unwrap_or_default() + "\n";
            File::new("application/json", json)
        })
    }
}
