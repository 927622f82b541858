//! Read-only views over several resources.

pub mod dora; // the five DORA measures
pub mod place; // everything about one service in one environment
pub mod status; // what is live everywhere
