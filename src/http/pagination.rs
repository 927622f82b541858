//! Pages of a list and their cursors. With keyset paging, page 1,000 costs as much as page 1.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::error::Code;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page, at most `limit` of them.
    pub items: Vec<T>,
    /// The cursor of the next page, to be sent as `cursor`; `null` on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page from the rows of a query with the limit [`Limit::and_one`]. `key` returns the
    /// columns that the list is ordered by.
    pub fn of<K: Serialize>(mut rows: Vec<T>, limit: Limit, key: impl Fn(&T) -> K) -> Self {
        let more = rows.len() > limit.rows();
        rows.truncate(limit.rows());
        let next = rows.last().filter(|_| more).map(|last| Cursor(key(last)).to_string());
        Self { items: rows, next }
    }
}

/// The largest number of items on a page: 1 to 100, by default 50.
#[derive(Debug, Clone, Copy)]
pub struct Limit(u8);

impl Limit {
    const LARGEST: u8 = 100;

    /// The largest number of items on a page.
    pub fn rows(self) -> usize {
        usize::from(self.0)
    }

    /// The limit for the query: one row more than the page has shows whether there is a next page.
    pub fn and_one(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Plain digits only: `parse` would also accept `+5`, which the document does not allow.
        let limit = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        limit.filter(|n| (1..=Self::LARGEST).contains(n)).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "{}: {text:?} is not a whole number from 1 to {}",
                Code::InvalidLimit.as_str(),
                Self::LARGEST
            ))
        })
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(Self::LARGEST))
            .default(Some(Self::default().0.into()))
            .description(Some("The largest number of items on a page."))
            .build()
            .into()
    }
}
impl ToSchema for Limit {}

/// The start of a page: the sort key of the last item on the page before. For clients it is an
/// opaque string.
#[derive(Debug, Clone)]
pub struct Cursor<K>(pub K);

impl<K: Serialize> std::fmt::Display for Cursor<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(&self.0).map_err(|_| std::fmt::Error)?;
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = BASE64_URL_SAFE_NO_PAD
            .decode(&text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        key.map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "{}: the cursor must be the unchanged value of `next` of the previous page",
                Code::InvalidCursor.as_str()
            ))
        })
    }
}
