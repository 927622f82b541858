//! The API over real HTTP: each test runs on SQLite and on PostgreSQL.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking"
)]

mod harness;

mod append_only;
mod approvals;
mod backfill;
mod bad_input;
mod batches;
mod clock;
mod conventions;
mod deployments;
mod document;
mod dora;
mod events;
mod expiry;
mod freezes;
mod gate;
mod growth;
mod idempotency;
mod incidents;
mod keys;
mod loopholes;
mod metrics;
mod migrations;
mod mistakes;
mod orders;
mod pages;
mod places;
mod prepared;
mod public_read;
mod recount;
mod releases;
mod repeats;
mod reported;
mod revisions;
mod rights;
mod rows;
mod sequences;
mod statements;
mod status;
mod times;
mod together;
mod void;
mod walkthrough;
mod webhooks;
mod writer;

/// Makes two tests of each function that takes a [`harness::TestApp`]: `sqlite::name` and
/// `postgres::name`.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident)+) => {
        mod sqlite {
            $(#[test] fn $test() { super::$test(&$crate::harness::TestApp::on_sqlite()); })+
        }
        mod postgres {
            $(#[test] fn $test() {
                if let Some(app) = $crate::harness::TestApp::on_postgres() {
                    super::$test(&app);
                }
            })+
        }
    };
}
