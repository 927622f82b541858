//! Pure decisions: no I/O, no clock of their own, nothing of ours imported but how enums are written.

pub mod calendar; // when a freeze holds
pub mod dora; // what DORA's five measures count, and the figures
pub mod gate; // may this release go there now, and if not, why not
pub mod github; // what its webhooks tell, and where a deployment stands by it
pub mod lifecycle; // the states of a deployment, and the moves between them
pub mod scan; // what a scanner's report says, and whether it passes
