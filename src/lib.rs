//! prop: a deployment ledger. It answers, for every service and environment: what is running, since when, which image,
//! who asked for it, and may this release go there now.
//!
//! A request's way, in one direction: route -> [`http::context::Ctx`] (key checked, scope) -> handler -> `ctx.read` or
//! `ctx.write` -> query functions taking `&mut Db` -> a pure rule where something is decided -> the answer.

pub mod app; // wires everything: migrate, bind, serve, stop
pub mod config; // settings: defaults, then prop.toml, then the environment
pub mod db; // PostgreSQL and SQLite behind one connection type; knows no HTTP
pub mod error; // the one error type, and the table code -> status, title
pub mod http; // what every request passes through; knows no resource
pub mod ledger; // one file per resource: rows, queries, request and response types, handlers, routes
pub mod logging; // log lines as text or JSON, written by a thread of their own
pub mod rules; // pure decisions: no I/O, no clock, nothing of ours imported
pub mod suggest; // "did you mean ...?", for settings, fields, parameters and names
