//! The routes of the API. Each is declared once, by its handler: a server takes the handlers, and
//! the document their descriptions, which a server does not build.

use actix_web::dev::HttpServiceFactory;
use actix_web::web::ServiceConfig;
use utoipa::openapi::OpenApi;
use utoipa_actix_web::OpenApiFactory;

/// Where most requests go. actix compares a path with one pattern after the other, and one that
/// has a parameter is a regular expression: so the routes below this path come first.
const BUSIEST: &str = "/deployments";

/// A list of routes, in the order of the document.
#[derive(Default)]
pub struct Routes(Vec<Box<dyn Route>>);

impl Routes {
    /// Adds the route of a handler.
    pub fn service(&mut self, handler: impl Route + 'static) -> &mut Self {
        self.0.push(Box::new(handler));
        self
    }

    /// Adds the routes that a function declares.
    pub fn configure(&mut self, declare: impl FnOnce(&mut Self)) -> &mut Self {
        declare(self);
        self
    }

    fn declared_by(declare: impl FnOnce(&mut Self)) -> Vec<Box<dyn Route>> {
        let mut routes = Self::default();
        declare(&mut routes);
        routes.0
    }
}

/// A handler with its method, path and description, as `#[utoipa::path]` and `#[get]` make it.
pub trait Route {
    /// The path, with parameters in braces.
    fn pattern(&self) -> String;

    /// Registers the handler.
    fn serve(self: Box<Self>, config: &mut ServiceConfig);

    /// Adds the description to a document whose paths begin with `prefix`.
    fn describe(&self, prefix: &str, document: &mut OpenApi);
}

impl<T: HttpServiceFactory + OpenApiFactory + utoipa::Path + 'static> Route for T {
    fn pattern(&self) -> String {
        T::path()
    }

    fn serve(self: Box<Self>, config: &mut ServiceConfig) {
        config.service(*self);
    }

    fn describe(&self, prefix: &str, document: &mut OpenApi) {
        let mut paths = self.paths();
        let below = |(path, item)| (format!("{prefix}{path}"), item);
        paths.paths = paths.paths.into_iter().map(below).collect();
        document.paths.merge(paths);
        let mut schemas = Vec::new();
        self.schemas(&mut schemas);
        document.components.get_or_insert_default().schemas.extend(schemas);
    }
}

/// Registers routes with a server.
pub fn serve(declare: fn(&mut Routes)) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        let mut routes = Routes::declared_by(declare);
        routes.sort_by_key(|route| {
            let pattern = route.pattern();
            (!pattern.starts_with(BUSIEST), pattern.contains('{'))
        });
        routes.into_iter().for_each(|route| route.serve(config));
    }
}

/// Adds the descriptions of routes to a document, below `prefix`.
pub fn describe(document: &mut OpenApi, prefix: &str, declare: fn(&mut Routes)) {
    for route in Routes::declared_by(declare) {
        route.describe(prefix, document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::{TestRequest, call_and_read_body, init_service};
    use actix_web::{App, get, web};
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

    #[utoipa::path(params(Counted))]
    #[get("/things/{id}")]
    async fn thing(id: web::Path<String>) -> String {
        format!("thing {id}")
    }

    #[utoipa::path]
    #[get("/things")]
    async fn things() -> &'static str {
        "things"
    }

    #[utoipa::path]
    #[get("/deployments/{id}")]
    async fn deployment(id: web::Path<String>) -> String {
        format!("deployment {id}")
    }

    fn routes(routes: &mut Routes) {
        routes.service(thing).configure(|routes| {
            routes.service(things).service(deployment);
        });
    }

    #[actix_web::test]
    async fn a_server_takes_the_handlers_and_builds_no_description() {
        let app = init_service(App::new().service(web::scope("/v1").configure(serve(routes))));
        let app = app.await;
        for (path, body) in
            [("/things", "things"), ("/things/1", "thing 1"), ("/deployments/2", "deployment 2")]
        {
            let request = TestRequest::get().uri(&format!("/v1{path}")).to_request();
            assert_eq!(call_and_read_body(&app, request).await, body);
        }
        assert_eq!(DESCRIBED.get(), 0);
    }

    #[test]
    fn the_document_has_the_routes_in_the_order_of_their_declaration() {
        let mut document = OpenApi::default();
        describe(&mut document, "/v1", routes);
        let paths: Vec<_> = document.paths.paths.keys().collect();
        assert_eq!(paths, ["/v1/things/{id}", "/v1/things", "/v1/deployments/{id}"]);
        assert_eq!(DESCRIBED.get(), 1);
    }
}
