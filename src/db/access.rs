//! What the role that prop serves with may do in a PostgreSQL database, when another role owns it.
//!
//! The owner migrates; the application role reads and writes rows. It can't change or delete an
//! event or choose its number, and can't touch a trigger, a function or a table.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use super::Db;
use super::scram;

/// What the application role may do with each table. prop deletes nothing else.
pub const RIGHTS: [(&str, &str); 15] = [
    ("__diesel_schema_migrations", "SELECT"),
    ("approvals", "SELECT, INSERT, UPDATE"),
    ("deliveries", "SELECT, INSERT, UPDATE"),
    ("deployments", "SELECT, INSERT, UPDATE"),
    ("derived_places", "SELECT, UPDATE"),
    ("environments", "SELECT, INSERT, UPDATE"),
    ("events", "SELECT, INSERT"),
    ("freeze_overrides", "SELECT, INSERT, UPDATE"),
    ("freezes", "SELECT, INSERT, UPDATE"),
    ("idempotency_keys", "SELECT, INSERT, DELETE"),
    ("incident_deployments", "SELECT, INSERT, DELETE"),
    ("incidents", "SELECT, INSERT, UPDATE"),
    ("keys", "SELECT, INSERT, UPDATE"),
    ("releases", "SELECT, INSERT, UPDATE"),
    ("services", "SELECT, INSERT, UPDATE"),
];

/// By this comment, prop knows a role that it has created. It sets the password of no other.
const COMMENT: &str = "The application role of prop, which sets its password.";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The role that prop serves with.
#[derive(Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its password, if it needs one. It is never shown.
    pub password: Option<String>,
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role {:?}", self.name)
    }
}

#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    rights: String,
}

/// What a role may do with each table of ours; `NUMBER` is to choose what the database numbers.
const HELD: &str = "
    SELECT c.relname::text AS name, concat_ws(', ',
        CASE WHEN has_table_privilege(r.oid, c.oid, 'SELECT') THEN 'SELECT' END,
        CASE WHEN NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid
            AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = ''
            AND NOT has_column_privilege(r.oid, c.oid, a.attnum, 'INSERT')) THEN 'INSERT' END,
        CASE WHEN has_any_column_privilege(r.oid, c.oid, 'UPDATE') THEN 'UPDATE' END,
        CASE WHEN has_table_privilege(r.oid, c.oid, 'DELETE') THEN 'DELETE' END,
        CASE WHEN has_table_privilege(r.oid, c.oid, 'TRUNCATE') THEN 'TRUNCATE' END,
        CASE WHEN has_table_privilege(r.oid, c.oid, 'TRIGGER') THEN 'TRIGGER' END,
        CASE WHEN EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid
            AND a.attidentity <> ''
            AND has_column_privilege(r.oid, c.oid, a.attnum, 'INSERT')) THEN 'NUMBER' END,
        CASE WHEN pg_has_role(r.oid, c.relowner, 'MEMBER') THEN 'OWNER' END) AS rights
    FROM pg_class c, pg_roles r
    WHERE r.rolname = $1 AND c.relkind IN ('r', 'p')
        AND c.relnamespace = current_schema()::regnamespace
        AND has_schema_privilege(r.oid, c.relnamespace, 'USAGE')";

/// Whether the role exists and has exactly the rights that it should have.
///
/// # Errors
/// When the database does not answer.
pub fn is_set(db: &mut Db, role: &Role) -> Result<bool> {
    Ok(deviation(db, role)?.is_none())
}

/// The first table with which the role may do something else than it should, in words.
fn deviation(db: &mut Db, role: &Role) -> QueryResult<Option<String>> {
    // In a transaction, as everything here: a pooler may give each statement another server
    // connection.
    let held: Vec<Held> =
        db.write(|db| diesel::sql_query(HELD).bind::<Text, _>(&role.name).load(db))?;
    let held: BTreeMap<_, _> = held.into_iter().map(|row| (row.name, row.rights)).collect();
    Ok(RIGHTS.iter().find_map(|(table, rights)| {
        let held = held.get(*table).map_or("", String::as_str);
        (held != *rights).then(|| {
            let held = if held.is_empty() { "nothing" } else { held };
            format!("with {table} it may do {held} instead of {rights}")
        })
    }))
}

/// Gives the role its rights, and takes all others that it was given on these tables.
///
/// # Errors
/// When the database refuses, or the role has more rights by other ways: it is a superuser, owns
/// the tables, or belongs to a role that does.
pub fn set(db: &mut Db, role: &Role) -> Result<()> {
    let name = identifier(&role.name);
    db.write(|db| {
        let statements: Vec<Statement> = diesel::sql_query(GRANTS)
            .bind::<Text, _>(RIGHTS.map(|(table, rights)| format!("{table}: {rights}")).join(";"))
            .bind::<Text, _>(&name)
            .load(db)?;
        for Statement { sql } in statements {
            db.batch_execute(&sql)?;
        }
        QueryResult::Ok(())
    })?;
    match deviation(db, role)? {
        None => {
            log::info!("gave the role {name} what it needs to serve");
            Ok(())
        }
        Some(deviation) => Err(format!(
            "the role {name} of database.url can't be limited to what prop needs: {deviation}. \
             Is it a superuser, the owner of the tables, or a member of such a role?"
        )
        .into()),
    }
}

#[derive(QueryableByName)]
struct Statement {
    #[diesel(sql_type = Text)]
    sql: String,
}

/// The statements that give a role (`$2`, quoted) its rights (`$1`), in their order. `INSERT` is
/// for the columns that the database does not number. Before PostgreSQL 15 everybody could create
/// functions in the schema, which the owner would then call.
const GRANTS: &str = "
    WITH wanted AS (
        SELECT to_regclass(split_part(entry, ': ', 1)) AS t, split_part(entry, ': ', 2) AS rights
        FROM unnest(string_to_array($1, ';')) AS entry),
    columns AS (
        SELECT attrelid, string_agg(quote_ident(attname), ', ')
                FILTER (WHERE attidentity = '') AS plain,
            max(attname::text) FILTER (WHERE attidentity <> '') AS numbered
        FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped GROUP BY attrelid)
    SELECT sql FROM (
        SELECT 0 AS n, format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', nspname) AS sql
        FROM pg_namespace WHERE nspname = current_schema() AND EXISTS (
            SELECT 1 FROM aclexplode(nspacl) WHERE grantee = 0 AND privilege_type = 'CREATE')
        UNION ALL
        SELECT 1, format('GRANT USAGE ON SCHEMA %I TO %s', current_schema(), $2)
        UNION ALL
        SELECT 2, format('REVOKE ALL ON %s FROM %s', t, $2) FROM wanted WHERE t IS NOT NULL
        UNION ALL
        SELECT 3, format('GRANT %s ON %s TO %s',
            CASE WHEN numbered IS NULL THEN rights
                ELSE replace(rights, 'INSERT', 'INSERT (' || plain || ')') END, t, $2)
        FROM wanted JOIN columns ON attrelid = t
        UNION ALL
        SELECT 4, format('GRANT SELECT ON SEQUENCE %s TO %s',
            pg_get_serial_sequence(t::text, numbered), $2)
        FROM wanted JOIN columns ON attrelid = t WHERE numbered IS NOT NULL) AS statements
    ORDER BY n";

#[derive(QueryableByName)]
struct Known {
    #[diesel(sql_type = Bool)]
    is_there: bool,
    #[diesel(sql_type = Nullable<Text>)]
    comment: Option<String>,
}

/// Lets the role log in with its password: creates it, or sets the password of one that prop has
/// created. Another role is left as it is. The server sees a verifier, never the password.
///
/// # Errors
/// When the owner may not create roles, or the password is one that prop can't hash.
pub fn admit(db: &mut Db, role: &Role) -> Result<()> {
    let known: Known = db.write(|db| {
        diesel::sql_query(
            "SELECT count(oid) > 0 AS is_there, max(shobj_description(oid, 'pg_authid')) AS comment
             FROM pg_roles WHERE rolname = $1",
        )
        .bind::<Text, _>(&role.name)
        .get_result(db)
    })?;
    let name = identifier(&role.name);
    let password = match &role.password {
        Some(password) => format!(" PASSWORD '{}'", scram::verifier(password)?),
        None => String::new(),
    };
    if !known.is_there {
        let sql =
            format!("CREATE ROLE {name} LOGIN{password}; COMMENT ON ROLE {name} IS '{COMMENT}'");
        db.write(|db| db.batch_execute(&sql))
            .map_err(|error| format!("the role {name} can't be created: {error}"))?;
        log::info!("created the role {name}, which prop serves with");
    } else if known.comment.as_deref() == Some(COMMENT) && role.password.is_some() {
        let sql = format!("ALTER ROLE {name} LOGIN{password}");
        db.write(|db| db.batch_execute(&sql))
            .map_err(|error| format!("the password of {name} can't be set: {error}"))?;
        log::info!("set the password of the role {name}, because it had another one");
    }
    Ok(())
}

/// A name as SQL quotes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
