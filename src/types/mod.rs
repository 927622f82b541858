//! The ground floor: the values that all other parts use. Imports nothing of ours; diesel is named
//! only for types that are stored as text. How the others are stored is in `db::columns`.

pub mod counted;
pub mod enums; // `text_enum!`: enums that are one of a few words
pub mod ids; // identifiers of rows
pub mod invisible; // characters that texts may not contain
pub mod malformed; // the error for what is not a value of its type
pub mod name; // names of people and programs
pub mod request; // the id of the request that the running code works for
pub mod time; // instants
pub mod token; // the secret text of a key
pub mod values; // texts and numbers that clients send: slugs, versions, digests, URLs
