//! Read-only views over several resources.

mod delivered; // the releases that deployments delivered, for the measures
pub mod dora; // the five DORA measures
mod finished; // the deployments that finished in a stretch of time, for the measures
pub mod place; // everything about one service in one environment
pub mod status; // what is live everywhere
