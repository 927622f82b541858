//! The web pages. They are static files in the binary, the same for everyone. Their scripts load
//! what they show from the API, with the reader's own key.

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::error::{Code, Error};
use crate::http::files::File;
use crate::http::response::takes_html;
use crate::http::routes::not_allowed;

/// The pages load our own files and our own API only. Scripts and styles in the markup are blocked,
/// so text from the ledger can't become either.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the pages load: name, media type, content.
const ASSETS: [(&str, &str, &str); 13] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("main.js", SCRIPT, include_str!("main.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("copy.js", SCRIPT, include_str!("copy.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("words.js", SCRIPT, include_str!("words.js")),
    ("charts.js", SCRIPT, include_str!("charts.js")),
    ("parts.js", SCRIPT, include_str!("parts.js")),
    ("board.js", SCRIPT, include_str!("board.js")),
    ("deployment.js", SCRIPT, include_str!("deployment.js")),
    ("place.js", SCRIPT, include_str!("place.js")),
    ("dora.js", SCRIPT, include_str!("dora.js")),
];

const PAGES: [&str; 4] = [
    "/",
    "/deployments/{id:[0-9a-f-]{36}}",
    "/services/{service:[a-z0-9-]{1,63}}/environments/{environment:[a-z0-9-]{1,63}}",
    "/dora",
];

/// The routes of the pages. They are not part of the API or of its OpenAPI document.
pub fn routes(config: &mut web::ServiceConfig) {
    for path in PAGES {
        config.service(only_get(path).route(web::get().to(page)));
    }
    config.service(only_get("/assets/{version}/{name}").route(web::get().to(asset)));
    config.service(only_get("/favicon.ico").route(web::get().to(favicon)));
    config.service(only_get("/robots.txt").route(web::get().to(robots)));
}

fn only_get(path: &str) -> actix_web::Resource {
    let refuse =
        || async { Err::<HttpResponse, _>(not_allowed(HeaderValue::from_static("GET, HEAD"))) };
    web::resource(path).default_service(web::to(refuse))
}

/// All files, compressed once.
struct Site {
    page: File,
    not_found: File,
    assets: BTreeMap<&'static str, File>,
    /// A hash of all assets. It is part of their paths, so browsers may cache them forever and
    /// never mix two versions.
    version: String,
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let all: String = ASSETS.iter().map(|(_, _, text)| *text).collect();
        let version = format!("{:08x}", crc32fast::hash(all.as_bytes()));
        let html = |text: &str| {
            let text = text.replace("{assets}", &format!("/assets/{version}"));
            File::new("text/html; charset=utf-8", text).with_policy(POLICY)
        };
        Site {
            page: html(include_str!("page.html")),
            not_found: html(include_str!("not-found.html")),
            assets: ASSETS
                .iter()
                .map(|(name, media_type, text)| {
                    let text = Bytes::from_static(text.as_bytes());
                    (*name, File::new(media_type, text).with_policy(POLICY))
                })
                .collect(),
            version,
        }
    })
}

/// One page for all addresses. Its script chooses what to show by the address.
async fn page(request: HttpRequest) -> HttpResponse {
    site().page.answer(&request, "no-cache")
}

/// Answers a request for a path where nothing is: a page for a browser, a problem for others.
///
/// # Errors
/// `not_found`.
pub async fn no_route(request: HttpRequest) -> Result<HttpResponse, Error> {
    if is_for_a_page(&request) {
        return Ok(site().not_found.answer_as(StatusCode::NOT_FOUND, &request, "no-cache"));
    }
    let detail = "There is nothing at this path. `/docs/` lists all paths of the API.";
    Err(Error::new(Code::NotFound, detail))
}

/// Whether a browser opens an address outside of the API.
fn is_for_a_page(request: &HttpRequest) -> bool {
    request.method() == Method::GET && !request.path().starts_with("/v1/") && takes_html(request)
}

/// Browsers request this where no page names an icon, as for the API's document. All of today's
/// browsers read SVG.
async fn favicon(request: HttpRequest) -> Result<HttpResponse, Error> {
    let icon = site().assets.get("icon.svg").ok_or_else(|| Error::internal("no icon"))?;
    Ok(icon.answer(&request, "public, max-age=86400"))
}

/// Keeps crawlers away: what the pages show needs a key.
async fn robots() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "public, max-age=86400"))
        .body("User-agent: *\nDisallow: /\n")
}

/// During a rolling update a page may request the assets of another version. It gets the assets of
/// this version, and the browser does not cache them.
async fn asset(
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Error> {
    let (version, name) = path.into_inner();
    let file = site().assets.get(name.as_str()).ok_or_else(|| Error::not_found("asset", &name))?;
    let keep =
        if version == site().version { "public, max-age=31536000, immutable" } else { "no-cache" };
    Ok(file.answer(&request, keep))
}
