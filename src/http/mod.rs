//! What all requests share. This module does not depend on any resource.

pub mod auth; // identifies the caller by its key
pub mod caller; // the caller of a request, and the scopes of its key
pub mod connection; // deadlines of connections, and how many there may be
pub mod context; // `Ctx`: the caller and the access to the database
pub mod docs; // the OpenAPI document and Swagger UI
pub mod etag; // ETag, If-None-Match, If-Match (RFC 9110, section 13)
pub mod exchange; // one request with its answer, as its connection knows them
pub mod extract; // bodies and query parameters, and their errors
pub mod files; // files in the binary, held once, plain and compressed
pub mod health; // /livez, /readyz, /health, /version, /metrics
pub mod idempotency; // Idempotency-Key
pub mod metrics; // counters for Prometheus
pub mod pagination; // pages of a list, and their cursors
pub mod paths; // finds what belongs to the path of a request
pub mod problem; // errors as RFC 9457 problem details
pub mod response; // responses: JSON, conditional, compressed when large
pub mod routes; // the routes: handlers for a server, descriptions for the document
pub mod state; // what all requests of a process share
pub mod telemetry; // request ids, the access log, security headers
