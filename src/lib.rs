//! prop is a deployment ledger. For every service in every environment it answers: what is running,
//! since when, which image, who requested it, and whether a release may be deployed there now.
//!
//! A *place* is one service in one environment.
//!
//! A request passes through: route -> [`http::context::Ctx`] (checks key and scope) -> handler ->
//! `ctx.read` or `ctx.write` -> query functions that take `&mut Db` -> a pure rule where a decision
//! is needed -> response.
//!
//! Imports go one way: [`types`] <- [`db`], [`rules`] <- [`http`] <- [`ledger`], [`web`] <-
//! [`app`]. [`error`], [`suggest`], [`logging`] and [`config`] lie beside [`db`].

pub mod app; // startup, server and shutdown
pub mod config; // settings: defaults, then prop.toml, then the environment
pub mod db; // PostgreSQL and SQLite behind one connection type; no HTTP
pub mod error; // the error type, and the table of codes with status and title
pub mod http; // what all requests share; no resource
pub mod ledger; // a file per resource: rows, queries, request and response types, handlers, routes
pub mod logging; // log lines as text or JSON, written by their own thread
pub mod rules; // pure decisions: no I/O, no clock
pub mod suggest; // "did you mean ...?", for settings, fields, parameters and names
pub mod types; // values that all other parts use; imports nothing of ours
pub mod web; // the pages: HTML, CSS and ES modules
