//! Pure decisions: no I/O, no clock of their own, nothing of ours imported but their vocabulary.

pub mod lifecycle;
