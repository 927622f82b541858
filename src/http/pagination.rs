//! Lists: their query parameters, their pages and cursors. With keyset paging, page 1,000 costs as
//! much as page 1.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::future::{Ready, ready};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::db::rows::Listed;
use crate::error::{Code, Error};
use crate::http::extract::{malformed, parse_query};
use crate::http::response::Reply;

/// The query parameters of a list: those of its filter `F`, and those of [`Paging`]. `K` is the
/// sort key of the list.
#[derive(Debug, Clone)]
pub struct List<F, K> {
    /// What the list contains.
    pub filter: F,
    /// The largest number of items on a page.
    pub limit: Limit,
    /// The sort key of the last item on the page before. `None` for the first page.
    pub after: Option<K>,
}

/// The filter of a list that has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Everything {}

/// The query parameters that all lists have.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// The largest number of items on a page, from 1 to 100. 50, if absent.
    #[serde(default)]
    #[param(inline)]
    limit: Limit,
    /// `next` of the previous page of the same list, unchanged; anything else is refused with 400
    /// (`invalid_cursor`). The first page, if absent.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

impl<F: DeserializeOwned, K: DeserializeOwned> List<F, K> {
    /// The names of the parameters of [`Paging`].
    const PAGING: [&str; 2] = ["limit", "cursor"];

    /// Parses a query. A parameter is of the filter, unless it is one of [`Paging`].
    ///
    /// # Errors
    /// `invalid_query` and others that name the parameter.
    fn parse(query: &str) -> Result<Self, Error> {
        let part = |is_paging: bool| {
            let pairs = form_urlencoded::parse(query.as_bytes());
            let pairs = pairs.filter(|(name, _)| Self::PAGING.contains(&&**name) == is_paging);
            form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
        };
        let filter = parse_query(&part(false), &Self::PAGING)?;
        let Paging { limit, cursor } = parse_query(&part(true), &[])?;
        let after = cursor.map(|cursor| Cursor::decode(&cursor)).transpose()?;
        Ok(Self { filter, limit, after })
    }
}

impl<F: DeserializeOwned, K: DeserializeOwned> FromRequest for List<F, K> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

/// Adds a condition to a boxed query for each parameter that was given.
#[macro_export]
macro_rules! filtered {
    ($query:expr; $($given:expr => |$value:ident| $condition:expr),+ $(,)?) => {{
        let mut query = $query;
        $(if let Some($value) = $given { query = query.filter($condition); })+
        query
    }};
}

/// The conditions for the parameters that were given, as [`All`](crate::db::pages::All).
#[macro_export]
macro_rules! conditions {
    ($($given:expr => |$value:ident| $condition:expr),+ $(,)?) => {{
        let mut all = $crate::db::pages::All(Vec::new());
        $(if let Some($value) = $given { all.0.push(Box::new($condition)); })+
        all
    }};
}

/// Splits a filter into the part that a page is read along and the rest, which narrows the page.
/// The first part is what stands before a semicolon, and the first given of what stands after it.
#[macro_export]
macro_rules! read_along {
    (@ $parts:expr; $($first:ident),+) => {{
        let (mut along, mut rest) = $parts;
        'first: {
            $(if rest.$first.is_some() {
                along.$first = rest.$first.take();
                break 'first;
            })+
        }
        (along, rest)
    }};
    ($filter:expr;; $($first:ident),+) => {
        $crate::read_along!(@ (Filter::default(), $filter.clone()); $($first),+)
    };
    ($filter:expr; $($always:ident),+) => {{
        let mut rest = $filter.clone();
        (Filter { $($always: rest.$always.take(),)+ ..Filter::default() }, rest)
    }};
    ($filter:expr; $($always:ident),+; $($first:ident),+) => {
        $crate::read_along!(@ $crate::read_along!($filter; $($always),+); $($first),+)
    };
}

/// Loads the page of a list, the newest first: by a time and, where the times are equal, by the
/// identifier. The fields of the rows are named like the columns.
///
/// With conditions after the query, the page has only rows that meet them. The query must be such
/// that an index finds its rows in the order of the list. The page looks at no more than
/// [`LOOKED_AT`](crate::db::pages::LOOKED_AT) of them: then it ends early, with a cursor. The query
/// is a closure, because its end is another query. The last argument says whether the list is read
/// along the index of everything ([`OfAll`](crate::db::pages::OfAll)).
#[macro_export]
macro_rules! newest_first {
    ($db:expr, $list:expr, $query:expr, $table:ident::{$at:ident, $id:ident}) => {{
        let rows = $crate::in_order!($list, $query, $table::{$at, $id}, false);
        Ok(Page::of(rows.limit($list.limit.and_one()).load($db)?, $list.limit, |row| {
            (row.$at, Clone::clone(&row.$id))
        }))
    }};
    ($db:expr, $list:expr, $row:ty, $query:expr, $conditions:expr,
        $table:ident::{$at:ident, $id:ident} $(, $of_all:expr)?) => {{
        use $crate::db::pages::{LOOKED_AT, Narrowed};
        let (conditions, limit) = ($conditions, $list.limit);
        let of_all = false $(|| $of_all)?;
        let key = |row: &$row| (row.$at, Clone::clone(&row.$id));
        let rows = || $crate::in_order!($list, $query(), $table::{$at, $id}, of_all);
        if conditions.0.is_empty() {
            return Ok(Page::of(rows().limit(limit.and_one()).load($db)?, limit, key));
        }
        let narrowed = Narrowed {
            rows: rows().limit(LOOKED_AT),
            table: stringify!($table),
            conditions,
            order: [stringify!($at), stringify!($id)],
            of_all,
            limit: limit.and_one(),
        };
        let page = Page::of(narrowed.load($db)?, limit, key);
        if page.next.is_some() {
            return Ok(page);
        }
        let last = rows().select(($table::$at, $table::$id)).offset(LOOKED_AT - 1).limit(1);
        Ok(page.up_to(last.get_result($db).optional()?, key))
    }};
}

/// The rows of a query that come after the page before, the newest first. The last argument says
/// whether they are read along the index of everything ([`OfAll`](crate::db::pages::OfAll)).
#[macro_export]
macro_rules! in_order {
    ($list:expr, $query:expr, $table:ident::{$at:ident, $id:ident}, $of_all:expr) => {{
        use diesel::expression::AsExpression;
        use $crate::db::pages::{IsBefore, OfAll};
        let rows = $crate::filtered!($query; $list.after.clone() => |after| IsBefore(
            ($table::$at, $table::$id),
            (
                AsExpression::<diesel::dsl::SqlTypeOf<$table::$at>>::as_expression(after.0),
                AsExpression::<diesel::dsl::SqlTypeOf<$table::$id>>::as_expression(after.1),
            ),
        ));
        if $of_all {
            rows.order((OfAll($table::$at), OfAll($table::$id)))
        } else {
            rows.order(($table::$at.desc(), $table::$id.desc()))
        }
    }};
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page, at most `limit` of them.
    pub items: Vec<T>,
    /// The cursor of the next page, to be sent as `cursor`; `null` on the last page. A page with a
    /// cursor may have fewer items than `limit`, or none.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page from the rows of a query with the limit [`Limit::and_one`]. `key` returns the
    /// columns that the list is ordered by.
    pub fn of<K: Serialize>(mut rows: Vec<T>, limit: Limit, key: impl Fn(&T) -> K) -> Self {
        let more = rows.len() > limit.rows();
        rows.truncate(limit.rows());
        let next = rows.last().filter(|_| more).and_then(|last| Cursor::encode(&key(last)));
        Self { items: rows, next }
    }

    /// The page that has nothing more among the rows that were looked at. When these were not all,
    /// it ends with the last of them. That, or the last item if newer rows came in between.
    pub fn up_to<K: Serialize + Ord>(self, last: Option<K>, key: impl Fn(&T) -> K) -> Self {
        let Some(last) = last else { return self };
        let last = match self.items.last() {
            Some(item) => key(item).min(last),
            None => last,
        };
        Self { next: Cursor::encode(&last), ..self }
    }
}

impl Reply {
    /// A 200 with a page, and a `Link` header to the next page.
    pub fn page<T: Serialize>(page: &Page<T>) -> Result<Self, Error> {
        Ok(Self { next: page.next.clone(), ..Self::ok(page)? })
    }

    /// The same with rows that were loaded as JSON. `key` returns the columns that the list is
    /// ordered by.
    pub fn listed<T, K: Serialize>(
        listed: &Listed<T>,
        key: impl Fn(&T) -> K,
    ) -> Result<Self, Error> {
        let last = listed.rows.last().filter(|_| listed.more);
        let next = last.and_then(|last| Cursor::encode(&key(last)));
        let after = serde_json::to_vec(&next).map_err(Error::internal)?;
        let body = [br#"{"items":"#, &*listed.json, br#","next":"#, &*after, b"}"].concat();
        Ok(Self { next, ..Self::json(body) })
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
            let detail = format!("{text:?} is not a whole number from 1 to {}", Self::LARGEST);
            malformed(Code::InvalidLimit, detail)
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
struct Cursor;

impl Cursor {
    /// The cursor after an item with this sort key.
    fn encode<K: Serialize>(key: &K) -> Option<String> {
        serde_json::to_vec(key).ok().map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
    }

    fn decode<K: DeserializeOwned>(text: &str) -> Result<K, Error> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
            let detail = "the cursor must be the unchanged value of `next` of the previous page";
            Error::field(Code::InvalidCursor, "cursor", detail)
        })
    }
}
