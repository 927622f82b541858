//! What every request passes through. Knows no resource.

pub mod auth; // keys: their form, their scopes, and who a request comes from
pub mod conditional; // ETag, If-None-Match, If-Match (RFC 9110, section 13)
pub mod context; // `Ctx`: who asks, and the way to the database
pub mod docs; // the OpenAPI document and Swagger UI
pub mod extract; // bodies and query parameters, and what is wrong with them
pub mod health; // /livez, /readyz, /health, /version, /metrics
pub mod idempotency; // Idempotency-Key
pub mod metrics; // counters for Prometheus
pub mod page; // pages of a list, and their cursors
pub mod pages; // what people look at: the board and its siblings
pub mod problem; // errors as RFC 9457 problem details
pub mod reply; // answers: JSON, conditional, compressed when large
pub mod telemetry; // request ids, the access log, security headers
pub mod webhook; // what a webhook sends: read, and its signature checked
