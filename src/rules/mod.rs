//! Pure decisions. The rules do no I/O, do not read the clock, and import nothing of prop except
//! the types on the ground floor.

pub mod dora; // what the five DORA measures count, and their figures
pub mod gate; // whether a release may be deployed now, and the reasons against it
pub mod github; // parses GitHub webhooks, and derives the status of a deployment from them
pub mod lifecycle; // the states of a deployment, and the changes between them
pub mod scan; // counts the findings of a scanner's report, and decides whether they pass
pub mod schedule; // when a freeze applies
pub mod timeline; // derives a place from the facts of its deployments, in order of time
