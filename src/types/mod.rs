//! The ground floor: the types that every other part names. Imports nothing of ours but the column
//! types they are stored as.

pub mod ids;
