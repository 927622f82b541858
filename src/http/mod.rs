//! What all requests share. This module does not depend on any resource.

pub mod auth; // keys, scopes, and the caller of a request
pub mod conditional; // ETag, If-None-Match, If-Match (RFC 9110, section 13)
pub mod context; // `Ctx`: the caller and the access to the database
pub mod docs; // the OpenAPI document and Swagger UI
pub mod extract; // bodies and query parameters, and their errors
pub mod health; // /livez, /readyz, /health, /version, /metrics
pub mod idempotency; // Idempotency-Key
pub mod metrics; // counters for Prometheus
pub mod page; // pages of a list, and their cursors
pub mod pages; // the HTML pages: the board and the others
pub mod problem; // errors as RFC 9457 problem details
pub mod reply; // responses: JSON, conditional, compressed when large
pub mod telemetry; // request ids, the access log, security headers
pub mod webhook; // the body of a webhook, with its signature checked
