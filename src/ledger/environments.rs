//! Environments: where services are deployed to, with the rules that the gate applies there.

use actix_web::web;
use diesel::prelude::*;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use utoipa::ToSchema;

use crate::db::schema::environments;
use crate::db::{Db, MultiBackend, locks};
use crate::error::{COMPARED, Code, Error, OnConflict};
use crate::http::caller::Scope;
use crate::http::context::{Actor, Ctx, NewEnvironments, Operate, Read};
use crate::http::extract::Body;
use crate::http::pagination::{Everything, List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::patch::{apply, given, nullable};
use crate::rules::gate::Policy;
use crate::types::time::Timestamp;
use crate::types::values::{BoundedInt, ShortText, Slug};
use crate::{each_backend, filtered, text_enum};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(list, __path_list)
        .add(create, __path_create)
        .add(show, __path_show)
        .add(change, __path_change);
}

text_enum! {
    /// The purpose of an environment.
    Tier {
        /// For the work of developers.
        Development = "development",
        /// For automated and manual tests.
        Testing = "testing",
        /// A copy of production without its users.
        Staging = "staging",
        /// For the real users. Releases need an image digest here.
        Production = "production",
    }
}

impl Tier {
    /// Guesses the tier of an environment from its slug, when nothing else is known about it.
    fn guess(slug: &str) -> Self {
        let named = |words: &[&str]| slug.split('-').any(|part| words.contains(&part));
        match slug {
            _ if named(&["production", "prod", "prd", "live"]) => Tier::Production,
            _ if named(&["staging", "stage", "stg", "preprod", "uat"]) => Tier::Staging,
            _ if named(&["testing", "test", "qa", "ci"]) => Tier::Testing,
            _ => Tier::Development,
        }
    }
}

/// An environment: where services run, with the rules for deployments to it.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(
    table_name = environments, primary_key(slug), treat_none_as_default_value = false,
    treat_none_as_null = true
)]
#[schema(example = json!({
    "slug": "production", "name": "Production", "tier": "production", "required_approvals": 1,
    "allow_self_approval": false,
    "approval_ttl_hours": 72, "require_scan": true, "predecessor": "staging", "soak_minutes": 60,
    "rollback_needs_approval": false,
    "ignore_github_deployments": false,
    "created_at": "2026-02-03T04:05:06.000000Z", "updated_at": "2026-02-03T04:05:06.000000Z",
    "revision": 1
}))]
pub struct Environment {
    /// The name of the environment in URLs. It is unique and never changes.
    pub slug: Slug,
    /// The name of the environment for people.
    pub name: ShortText,
    /// The purpose of the environment.
    pub tier: Tier,
    /// How many people must approve a release before its deployment may start here, 0 to 10.
    pub required_approvals: i32,
    /// Whether the approval of the person who requested the deployment counts.
    pub allow_self_approval: bool,
    /// For how many hours an approval is valid, and a deployment may wait for approvals or for its
    /// start.
    pub approval_ttl_hours: i32,
    /// Whether a release must have passed a scan.
    pub require_scan: bool,
    /// The slug of the environment where a release must have succeeded first. `null` when there is
    /// no such condition.
    pub predecessor: Option<Slug>,
    /// How many minutes must have passed since the release succeeded in `predecessor`.
    pub soak_minutes: i32,
    /// Whether rollbacks need approvals too.
    pub rollback_needs_approval: bool,
    /// Whether deployments to it that GitHub webhooks report are ignored, because the jobs there
    /// use its secrets and deploy nothing.
    pub ignore_github_deployments: bool,
    /// When the environment was recorded in prop.
    pub created_at: Timestamp,
    /// When the environment was last changed in prop.
    pub updated_at: Timestamp,
    /// The number of the current version, which each change increases. It is also the `ETag`.
    pub revision: i32,
}

impl Environment {
    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Environment,
            id: &self.slug,
            service: None,
            environment: Some(&self.slug),
        }
    }

    /// An environment of which only the slug is known. It has the tier that its slug names, and the
    /// default rules of that tier.
    ///
    /// # Errors
    /// `missing_scope` when the tier is `production` and the actor may not create such.
    pub fn missing(slug: &Slug, actor: &Actor) -> Result<Self, Error> {
        let tier = Tier::guess(slug);
        let NewEnvironments { rules, may_be_production } = actor
            .environments
            .ok_or_else(|| Error::internal(format!("{} creates no environment", actor.name)))?;
        if tier == Tier::Production && !may_be_production {
            let detail = format!(
                "The environment {slug} does not exist, and its name says production. Only a key \
                    with the scope `operate` may create it: with POST /v1/environments and its \
                    rules, or by this request."
            );
            return Err(Error::new(Code::MissingScope, detail).with("scopes", [Scope::Operate]));
        }
        let rules = match tier {
            Tier::Development => rules.development,
            Tier::Testing => rules.testing,
            Tier::Staging => rules.staging,
            Tier::Production => rules.production,
        };
        Ok(Self {
            slug: slug.clone(),
            name: slug.clone().into(),
            tier,
            required_approvals: rules.required_approvals,
            allow_self_approval: rules.allow_self_approval,
            approval_ttl_hours: rules.approval_ttl_hours,
            require_scan: rules.require_scan,
            predecessor: None,
            soak_minutes: 0,
            rollback_needs_approval: rules.rollback_needs_approval,
            ignore_github_deployments: false,
            created_at: actor.now,
            updated_at: actor.now,
            revision: 1,
        })
    }

    fn new(new: NewEnvironment, now: Timestamp) -> Self {
        Self {
            name: new.name.unwrap_or_else(|| new.slug.clone().into()),
            slug: new.slug,
            tier: new.tier,
            required_approvals: new.required_approvals.map_or(0, |n| n.0),
            allow_self_approval: new.allow_self_approval,
            approval_ttl_hours: new.approval_ttl_hours.map_or(DEFAULT_TTL_HOURS, |n| n.0),
            require_scan: new.require_scan,
            predecessor: new.predecessor,
            soak_minutes: new.soak_minutes.map_or(0, |n| n.0),
            rollback_needs_approval: new.rollback_needs_approval,
            ignore_github_deployments: new.ignore_github_deployments,
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }

    /// How long an approval is valid, and how long a deployment may wait.
    pub fn approval_ttl(&self) -> SignedDuration {
        SignedDuration::from_hours(self.approval_ttl_hours.into())
    }

    /// The rules of the environment for the gate.
    pub fn policy(&self) -> Policy {
        Policy {
            environment: self.slug.clone(),
            is_production: self.tier == Tier::Production,
            required_approvals: self.required_approvals,
            allow_self_approval: self.allow_self_approval,
            require_scan: self.require_scan,
            predecessor: self.predecessor.clone(),
            soak_minutes: self.soak_minutes,
            rollback_needs_approval: self.rollback_needs_approval,
        }
    }

    fn path(&self) -> String {
        format!("/v1/environments/{}", self.slug)
    }
}

/// The default of `approval_ttl_hours`: three days, so that an approval survives a weekend.
const DEFAULT_TTL_HOURS: i32 = 72;

/// An environment that is to be created.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"slug": "production", "tier": "production", "required_approvals": 1,
    "require_scan": true, "predecessor": "staging", "soak_minutes": 60}))]
pub struct NewEnvironment {
    /// The name of the environment in URLs. It must be unique and cannot be changed later.
    slug: Slug,
    /// The name of the environment for people. The slug, if absent or `null`.
    name: Option<ShortText>,
    /// The purpose of the environment.
    tier: Tier,
    /// How many people must approve a release before its deployment may start here. 0, if absent or
    /// `null`.
    #[schema(inline)]
    required_approvals: Option<BoundedInt<0, 10>>,
    /// Whether the approval of the person who requested the deployment counts. It does not, if
    /// absent.
    #[serde(default)]
    allow_self_approval: bool,
    /// For how many hours an approval is valid, and a deployment may wait for approvals or for its
    /// start. 72, if absent or `null`.
    #[schema(inline)]
    approval_ttl_hours: Option<BoundedInt<1, 8760>>,
    /// Whether a release must have passed a scan. It need not, if absent.
    #[serde(default)]
    require_scan: bool,
    /// The slug of the environment where a release must have succeeded first. No such condition, if
    /// absent or `null`.
    predecessor: Option<Slug>,
    /// How many minutes must have passed since the release succeeded in `predecessor`. 0, if absent
    /// or `null`.
    #[schema(inline)]
    soak_minutes: Option<BoundedInt<0, 43200>>,
    /// Whether rollbacks need approvals too. They do not, if absent.
    #[serde(default)]
    rollback_needs_approval: bool,
    /// Whether to ignore deployments to it that GitHub webhooks report, because the jobs there use
    /// its secrets and deploy nothing. They are not ignored, if absent.
    #[serde(default)]
    ignore_github_deployments: bool,
}

/// A change of an environment. Fields that are absent stay as they are.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"required_approvals": 2, "predecessor": null}))]
pub struct EnvironmentPatch {
    /// The new name for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    name: Option<ShortText>,
    /// The new purpose of the environment.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    tier: Option<Tier>,
    /// How many people must approve a release before its deployment may start here.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = i32, required = false, minimum = 0, maximum = 10)]
    required_approvals: Option<BoundedInt<0, 10>>,
    /// Whether the approval of the person who requested the deployment counts.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    allow_self_approval: Option<bool>,
    /// For how many hours an approval is valid, and a deployment may wait for approvals or for its
    /// start. Existing approvals and deployments keep their times.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = i32, required = false, minimum = 1, maximum = 8760)]
    approval_ttl_hours: Option<BoundedInt<1, 8760>>,
    /// Whether a release must have passed a scan.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    require_scan: Option<bool>,
    /// The slug of the environment where a release must have succeeded first; `null` removes the
    /// condition.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Slug>)]
    predecessor: Option<Option<Slug>>,
    /// How many minutes must have passed since the release succeeded in `predecessor`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = i32, required = false, minimum = 0, maximum = 43200)]
    soak_minutes: Option<BoundedInt<0, 43200>>,
    /// Whether rollbacks need approvals too.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    rollback_needs_approval: Option<bool>,
    /// Whether to ignore deployments to it that GitHub webhooks report.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    ignore_github_deployments: Option<bool>,
}

/// List environments
///
/// Answers a page of all environments, in the order of their slugs.
#[utoipa::path(get, path = "/environments",
    tag = "environments", operation_id = "list_environments",
    security(("key" = ["read"])), params(Paging),
    responses((status = 200, description = "One page of the environments.",
        body = Page<Environment>)))]
async fn list(ctx: Ctx<Read>, params: List<Everything, Slug>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Create an environment
///
/// Records an environment with its rules and answers it. Fails with 409 (`already_exists`) when the
/// slug is taken, and with 422 when `predecessor` does not exist or would close a cycle.
#[utoipa::path(post, path = "/environments",
    tag = "environments", operation_id = "create_environment",
    security(("key" = ["operate"])), request_body = NewEnvironment,
    responses(
        (status = 201, description = "The environment that was created.", body = Environment,
            headers(("Location" = String), ("ETag" = String))),
        (status = 422, description = "The body is malformed, `predecessor` does not exist \
            (`invalid_value`), or it is the environment itself (`predecessor_circle`).")))]
async fn create(ctx: Ctx<Operate>, body: Body<NewEnvironment>) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let actor = author.now(db)?;
        let environment = insert(db, &actor, body.0.clone())?;
        Ok(Reply::created(environment.path(), &environment)?.at_revision(environment.revision))
    })
    .await
}

/// Read an environment
///
/// Answers the environment with this slug and its rules.
#[utoipa::path(get, path = "/environments/{slug}",
    tag = "environments", operation_id = "get_environment", security(("key" = ["read"])),
    params(("slug" = Slug, Path, description = "The slug of the environment.")),
    responses((status = 200, description = "The environment with this slug.", body = Environment,
        headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, slug: web::Path<Slug>) -> Result<Reply, Error> {
    ctx.read(move |db| {
        let environment = find(db, &slug)?;
        Ok(Reply::ok(&environment)?.at_revision(environment.revision))
    })
    .await
}

/// Change an environment
///
/// Sets the fields in the body and answers the environment. The gate uses the new rules at once. A
/// repeat sets the same values again. With `If-Match`, it fails with 412 when somebody else has
/// changed the environment since you read it.
#[utoipa::path(patch, path = "/environments/{slug}",
    tag = "environments", operation_id = "update_environment",
    security(("key" = ["operate"])), request_body = EnvironmentPatch,
    params(("slug" = Slug, Path, description = "The slug of the environment.")),
    responses(
        (status = 200, description = "The environment after the change.", body = Environment,
            headers(("ETag" = String))),
        (status = 422, description = "The body is malformed, `predecessor` does not exist \
            (`invalid_value`), or the environment would come before itself \
            (`predecessor_circle`).")))]
async fn change(
    ctx: Ctx<Operate>,
    slug: web::Path<Slug>,
    body: Body<EnvironmentPatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, author| {
        let before = find_locked(db, &slug)?;
        if_match.check(before.revision)?;
        let actor = author.now(db)?;
        let environment = update(db, &actor, before, body.0.clone())?;
        Ok(Reply::ok(&environment)?.at_revision(environment.revision))
    })
    .await
}

fn find_all(db: &mut Db, params: &List<Everything, Slug>) -> Result<Page<Environment>, Error> {
    let all = environments::table.select(Environment::as_select()).into_boxed::<MultiBackend>();
    let query = filtered!(all; &params.after => |slug| environments::slug.gt(slug));
    let rows = query.order(environments::slug).limit(params.limit.and_one()).load(db)?;
    Ok(Page::of(rows, params.limit, |row: &Environment| row.slug.clone()))
}

/// The environment with this slug, or 404.
pub fn find(db: &mut Db, slug: &str) -> Result<Environment, Error> {
    let found =
        environments::table.find(slug).select(Environment::as_select()).first(db).optional()?;
    match found {
        Some(environment) => Ok(environment),
        None => Err(unknown(db, slug)?),
    }
}

/// Whether deployments to the environment that GitHub webhooks report are ignored. They are not if
/// it does not exist.
pub fn ignores_github(db: &mut Db, slug: &str) -> QueryResult<bool> {
    let setting = environments::table.find(slug).select(environments::ignore_github_deployments);
    Ok(setting.first(db).optional()?.unwrap_or(false))
}

/// The error for an environment that does not exist. It names some that do.
pub fn unknown(db: &mut Db, slug: &str) -> Result<Error, Error> {
    let slugs = environments::table.select(environments::slug).order(environments::slug);
    let existing: Vec<String> = slugs.limit(COMPARED).load(db)?;
    Ok(Error::unknown_name("environment", slug, &existing))
}

fn find_locked(db: &mut Db, slug: &str) -> Result<Environment, Error> {
    locks::environment(db, slug)?;
    find(db, slug)
}

/// Records an environment that another request named. An environment that another transaction has
/// created in the meantime stays as it is.
pub fn ensure(db: &mut Db, actor: &Actor, environment: &Environment) -> Result<(), Error> {
    let inserted = each_backend!(db, |c| diesel::insert_into(environments::table)
        .values(environment)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 1 {
        events::record(db, actor, &environment.about(), "created", environment)?;
    }
    Ok(())
}

fn insert(db: &mut Db, actor: &Actor, new: NewEnvironment) -> Result<Environment, Error> {
    let environment = Environment::new(new, actor.now);
    check_predecessor(db, &environment.slug, environment.predecessor.as_deref())?;
    let inserted = diesel::insert_into(environments::table).values(&environment).execute(db);
    inserted.on_conflict(|| {
        Error::new(
            Code::AlreadyExists,
            format!("The environment {} already exists.", environment.slug),
        )
    })?;
    events::record(db, actor, &environment.about(), "created", &environment)?;
    Ok(environment)
}

/// Checks that the predecessor of an environment exists, and that the environment is not one of its
/// own predecessors.
fn check_predecessor(db: &mut Db, slug: &str, predecessor: Option<&str>) -> Result<(), Error> {
    let Some(predecessor) = predecessor else { return Ok(()) };
    // Two changes at the same time could close a cycle, although each one alone is valid.
    locks::all_environments(db)?;
    let before: Vec<(String, Option<String>)> =
        environments::table.select((environments::slug, environments::predecessor)).load(db)?;
    let before: HashMap<_, _> = before.into_iter().collect();
    let mut path = vec![slug];
    let mut next = Some(predecessor);
    while let Some(environment) = next {
        if path.contains(&environment) {
            path.push(environment);
            path.reverse();
            return Err(Error::field(
                Code::PredecessorCircle,
                "/predecessor",
                format!("this would make a cycle: {}", path.join(" -> ")),
            ));
        }
        path.push(environment);
        next = match before.get(environment) {
            Some(next) => next.as_deref(),
            None => {
                return Err(Error::field(
                    Code::InvalidValue,
                    "/predecessor",
                    format!("there is no environment {environment}"),
                ));
            }
        };
    }
    Ok(())
}

fn update(
    db: &mut Db,
    actor: &Actor,
    mut environment: Environment,
    patch: EnvironmentPatch,
) -> Result<Environment, Error> {
    if let Some(predecessor) = &patch.predecessor {
        check_predecessor(db, &environment.slug, predecessor.as_deref())?;
    }
    apply(&mut environment.name, patch.name);
    apply(&mut environment.tier, patch.tier);
    apply(&mut environment.required_approvals, patch.required_approvals);
    apply(&mut environment.allow_self_approval, patch.allow_self_approval);
    apply(&mut environment.approval_ttl_hours, patch.approval_ttl_hours);
    apply(&mut environment.require_scan, patch.require_scan);
    apply(&mut environment.predecessor, patch.predecessor);
    apply(&mut environment.soak_minutes, patch.soak_minutes);
    apply(&mut environment.rollback_needs_approval, patch.rollback_needs_approval);
    apply(&mut environment.ignore_github_deployments, patch.ignore_github_deployments);
    environment.updated_at = actor.now;
    environment.revision += 1;
    diesel::update(environments::table.find(&environment.slug)).set(&environment).execute(db)?;
    events::record(db, actor, &environment.about(), "updated", &environment)?;
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::Tier;

    #[test]
    fn a_tier_is_guessed_from_whole_words() {
        let cases = [
            ("production", Tier::Production),
            ("eu-prod", Tier::Production),
            ("staging", Tier::Staging),
            ("qa-2", Tier::Testing),
            ("reproduction", Tier::Development),
            ("anna", Tier::Development),
        ];
        for (slug, tier) in cases {
            assert_eq!(Tier::guess(slug), tier, "{slug}");
        }
    }
}
