//! The routes of the API. Each is declared once, by its handler: a server takes the handlers, and
//! the document their descriptions, which a server does not build.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{FromRequest, Handler, HttpMessage, HttpResponse, Responder, web};
use futures_core::future::LocalBoxFuture;
use utoipa::openapi::{HttpMethod, OpenApi};
use utoipa_actix_web::OpenApiFactory;

use crate::error::{Code, Error};
use crate::http::auth::authenticate;
use crate::http::paths::{Paths, parameters};

/// A list of routes, in the order of the document.
#[derive(Default)]
pub struct Routes(Vec<Route>);

struct Route {
    method: Method,
    pattern: String,
    answer: Answer,
    description: Box<dyn OpenApiFactory>,
}

/// Adds routes to a list.
pub type Declare = fn(&mut Routes);

/// Answers a request with what a handler returns.
type Answer = Box<dyn Fn(ServiceRequest) -> Answered + Send + Sync>;
type Answered = LocalBoxFuture<'static, ServiceResponse>;

impl Routes {
    /// Adds the route of a handler. Its method, its path and its description come from the type
    /// that `#[utoipa::path]` makes of it: `__path_` and the name of the handler.
    pub fn add<F, Args, D>(&mut self, handler: F, description: D) -> &mut Self
    where
        F: Handler<Args> + Send + Sync,
        F::Output: Responder + 'static,
        Args: FromRequest + 'static,
        D: utoipa::Path + OpenApiFactory + 'static,
    {
        self.0.push(Route {
            method: D::methods().first().map_or(Method::GET, method),
            pattern: D::path(),
            answer: Box::new(move |request| Box::pin(call(handler.clone(), request))),
            description: Box::new(description),
        });
        self
    }

    /// Adds the routes that a function declares.
    pub fn configure(&mut self, declare: impl FnOnce(&mut Self)) -> &mut Self {
        declare(self);
        self
    }

    fn declared_by(declare: impl FnOnce(&mut Self)) -> Vec<Route> {
        let mut routes = Self::default();
        declare(&mut routes);
        routes.0
    }
}

fn method(described: &HttpMethod) -> Method {
    match described {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Trace => Method::TRACE,
    }
}

/// Calls a handler with what it takes from the request, as actix does.
async fn call<F, Args>(handler: F, request: ServiceRequest) -> ServiceResponse
where
    F: Handler<Args>,
    F::Output: Responder + 'static,
    Args: FromRequest,
{
    let (request, mut body) = request.into_parts();
    let response = match Args::from_request(&request, &mut body).await {
        Ok(args) => handler.call(args).await.respond_to(&request).map_into_boxed_body(),
        Err(error) => HttpResponse::from_error(error),
    };
    ServiceResponse::new(request, response)
}

/// Adds the descriptions of routes to a document, below `prefix`.
pub fn describe(document: &mut OpenApi, prefix: &str, declare: Declare) {
    for Route { description, .. } in Routes::declared_by(declare) {
        let mut paths = description.paths();
        let below = |(path, item)| (format!("{prefix}{path}"), item);
        paths.paths = paths.paths.into_iter().map(below).collect();
        document.paths.merge(paths);
        let mut schemas = Vec::new();
        description.schemas(&mut schemas);
        document.components.get_or_insert_default().schemas.extend(schemas);
    }
}

/// The routes of a server, by their paths.
pub struct Served {
    paths: Paths<Resource>,
    with_key: &'static str,
}

/// All that is served at one path.
struct Resource {
    pattern: Pattern,
    methods: Vec<(Method, Answer)>,
}

/// The pattern of the path that a request was for. A request has it as an extension.
#[derive(Clone, Copy)]
pub struct Pattern(pub &'static str);

impl Served {
    /// Serves routes below their prefixes. All that is below the prefix `with_key` needs a key,
    /// even what does not exist.
    pub fn new(routes: &[(&str, Declare)], with_key: &'static str) -> Self {
        let mut paths = Paths::default();
        for (prefix, declare) in routes {
            for Route { method, pattern, answer, .. } in Routes::declared_by(declare) {
                // A server has them until it ends.
                let pattern = format!("{prefix}{pattern}").leak();
                let new = || Resource { pattern: Pattern(pattern), methods: Vec::new() };
                paths.at(pattern).get_or_insert_with(new).methods.push((method, answer));
            }
        }
        Self { paths, with_key }
    }

    fn needs_key(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.with_key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Resource {
    fn handler(&self, method: &Method) -> Option<&Answer> {
        self.methods.iter().find(|(known, _)| known == method).map(|(_, answer)| answer)
    }

    /// Gives the request the parameters of its path, for `web::Path`.
    fn note_parameters(&self, request: &mut ServiceRequest) {
        let path = request.match_info().as_str();
        let found: Vec<_> = parameters(self.pattern.0, path)
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        for (name, value) in found {
            request.match_info_mut().add_static(name, value);
        }
    }

    /// The `Allow` header.
    fn allowed(&self) -> HeaderValue {
        let names = self.methods.iter().map(|(method, _)| match *method {
            Method::GET => "GET, HEAD",
            ref other => other.as_str(),
        });
        HeaderValue::from_str(&names.collect::<Vec<_>>().join(", "))
            .unwrap_or(HeaderValue::from_static(""))
    }
}

/// Answers a request for a route, and gives others to actix.
pub async fn answer(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(routes) = request.app_data::<web::Data<Served>>().cloned() else {
        return Ok(request.error_response(Error::internal("no routes")));
    };
    let path = request.match_info().as_str();
    let (found, needs_key) = (routes.paths.find(path), routes.needs_key(path));
    if let Some(resource) = found {
        request.extensions_mut().insert(resource.pattern);
    }
    if needs_key && let Err(error) = authenticate(&request).await {
        return Ok(request.error_response(error));
    }
    let Some(resource) = found else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let Some(handler) = resource.handler(request.method()) else {
        return Ok(request.error_response(not_allowed(resource.allowed())));
    };
    resource.note_parameters(&mut request);
    Ok(handler(request).await)
}

/// The error for a method that the path does not have. `allow` lists the methods that it has.
pub fn not_allowed(allow: HeaderValue) -> Error {
    let detail = format!(
        "This method is not allowed for this path; use {}.",
        allow.to_str().unwrap_or_default().replace(", ", " or ")
    );
    Error::new(Code::MethodNotAllowed, detail).header(ALLOW, allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::App;
    use actix_web::dev::Service;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, read_body};
    use std::cell::Cell;
    use utoipa::IntoParams;
    use utoipa::openapi::path::{Parameter, ParameterIn};

    thread_local! {
        static DESCRIBED: Cell<u32> = const { Cell::new(0) };
    }

    struct Counted;

    impl IntoParams for Counted {
        fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
            DESCRIBED.set(DESCRIBED.get() + 1);
            Vec::new()
        }
    }

    #[utoipa::path(get, path = "/things/{id}", params(Counted))]
    async fn thing(id: web::Path<String>) -> String {
        format!("thing {id}")
    }

    #[utoipa::path(delete, path = "/things/{id}")]
    async fn remove(id: web::Path<String>) -> String {
        format!("no thing {id}")
    }

    #[utoipa::path(get, path = "/things")]
    async fn things() -> &'static str {
        "things"
    }

    #[utoipa::path(get, path = "/things/{thing}/parts/{part}")]
    async fn part(path: web::Path<(String, u8)>) -> String {
        format!("part {} of {}", path.1, path.0)
    }

    fn routes(routes: &mut Routes) {
        routes.add(thing, __path_thing).add(remove, __path_remove).configure(|routes| {
            routes.add(things, __path_things).add(part, __path_part);
        });
    }

    #[actix_web::test]
    async fn a_server_takes_the_handlers_and_builds_no_description() {
        let served = web::Data::new(Served::new(&[("/v2", routes)], "/v1"));
        let app = App::new().app_data(served.clone()).wrap(from_fn(answer));
        let app = init_service(app.default_service(web::to(async || "another"))).await;
        for (method, path, expected, pattern) in [
            (Method::GET, "/things", "things", "/things"),
            (Method::GET, "/things/a%20b%2Fc", "thing a b/c", "/things/{id}"),
            (Method::DELETE, "/th%69ngs/1", "no thing 1", "/things/{id}"),
            (Method::GET, "/things/1/parts/2", "part 2 of 1", "/things/{thing}/parts/{part}"),
            (Method::GET, "/things/", "another", ""),
        ] {
            let uri = format!("/v2{path}");
            let request = TestRequest::with_uri(&uri).method(method).to_request();
            let response = app.call(request).await.unwrap();
            let noted = response.request().extensions().get().map_or("", |Pattern(noted)| *noted);
            assert_eq!(noted.trim_start_matches("/v2"), pattern, "{path}");
            assert_eq!(read_body(response).await, expected, "{path}");
        }
        let request = TestRequest::post().uri("/v2/things/1").to_request();
        let refused = app.call(request).await.unwrap();
        assert_eq!(refused.status(), 405);
        let allowed = served.paths.find("/v2/things/1").unwrap().allowed();
        assert_eq!(allowed, "GET, HEAD, DELETE");
        assert_eq!(DESCRIBED.get(), 0);
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let served = Served::new(&[], "/v1");
        assert!(["/v1", "/v1/", "/v1/things"].iter().all(|path| served.needs_key(path)));
        assert!(["/", "/v10", "/v", "//v1"].iter().all(|path| !served.needs_key(path)));
    }

    #[test]
    fn the_document_has_the_routes_in_the_order_of_their_declaration() {
        let mut document = OpenApi::default();
        describe(&mut document, "/v1", routes);
        let paths: Vec<_> = document.paths.paths.keys().collect();
        assert_eq!(paths, ["/v1/things/{id}", "/v1/things", "/v1/things/{thing}/parts/{part}"]);
        assert_eq!(DESCRIBED.get(), 1);
    }
}
