//! Swagger UI at `/docs/`. Its files are in the binary, compressed.

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use utoipa_swagger_ui::{Config, SwaggerFile};

use crate::error::Error;
use crate::http::files::File;

/// The style sheets need `unsafe-inline`, the scripts do not.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    frame-ancestors 'none'";

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page loads. Swagger UI comes with more files, which nothing here uses.
const FILES: [(&str, &str); 9] = [
    ("index.html", "text/html; charset=utf-8"),
    ("index.css", STYLE),
    ("swagger-ui.css", STYLE),
    ("swagger-ui-bundle.js", SCRIPT),
    ("swagger-ui-standalone-preset.js", SCRIPT),
    ("swagger-initializer.js", SCRIPT),
    ("favicon-16x16.png", "image/png"),
    ("favicon-32x32.png", "image/png"),
    ("oauth2-redirect.html", "text/html; charset=utf-8"),
];

/// The route of the page and its files.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::redirect("/docs", "/docs/"))
        .service(web::resource("/docs/{file:.*}").route(web::get().to(file)));
}

async fn file(request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Error> {
    let name = if path.is_empty() { "index.html" } else { path.as_str() };
    let file = files()?.get(name).ok_or_else(|| Error::not_found("page", &path))?;
    Ok(file.answer(&request, "public, max-age=3600"))
}

/// The files, inflated at their first use.
fn files() -> Result<&'static BTreeMap<&'static str, File>, Error> {
    static FOUND: OnceLock<Result<BTreeMap<&'static str, File>, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| inflate().map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|error| Error::internal(format_args!("Swagger UI: {error}")))
}

fn inflate() -> Result<BTreeMap<&'static str, File>, Box<dyn std::error::Error>> {
    let settings = Config::new(["/openapi.json"])
        .try_it_out_enabled(true)
        .persist_authorization(false)
        .doc_expansion("list")
        .validator_url("none");
    let settings = Arc::new(settings);
    let mut files = BTreeMap::new();
    for (name, media_type) in FILES {
        let found = utoipa_swagger_ui::serve(name, settings.clone())?;
        let SwaggerFile { bytes, gzpipped, .. } = found.ok_or(name)?;
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let file = if gzpipped {
            File::from_compressed(media_type, bytes)?
        } else {
            File::new(media_type, bytes)
        };
        files.insert(name, file.with_policy(POLICY));
    }
    Ok(files)
}
