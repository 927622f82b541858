//! Parses the payloads of GitHub webhooks into facts, and derives the status of a deployment from
//! all facts about it.
//!
//! GitHub does not guarantee an order and may repeat a delivery. So the status of a deployment is
//! derived from the set of all reports, ordered by GitHub's own times. The order of arrival does
//! not matter.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::rules::lifecycle::State;
use crate::types::invisible;
use crate::types::name::Name;

/// The fact that a delivery reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Nothing that the ledger records, with the reason in a sentence.
    Nothing(&'static str),
    /// A deployment was created, or its status has changed.
    Deployment(Box<Deployment>),
    /// Somebody approved or rejected the deployments of a run.
    Review(Box<Review>),
    /// A workflow run has ended.
    RunEnded(RunEnded),
}

/// A repository on GitHub.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Repository {
    /// The name without the owner, such as `checkout`.
    pub name: String,
    /// The name with the owner, such as `shop/checkout`.
    pub full_name: String,
    /// The URL of its web page.
    pub html_url: String,
}

/// A deployment on GitHub, with its status if the delivery has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The repository that is deployed.
    pub repository: Repository,
    /// The number of the deployment on GitHub.
    pub id: u64,
    /// The name of the environment on GitHub.
    pub environment: String,
    /// The branch, tag or commit that was requested.
    pub reference: String,
    /// The commit of the reference.
    pub sha: String,
    /// The service, if the deployment's own payload names one (`{"service": "checkout"}`).
    pub service: Option<String>,
    /// The login of the person who started the workflow run, if known.
    pub started_by: Option<String>,
    /// The login of the creator, which is often a bot.
    pub creator: Option<String>,
    /// When the deployment was created on GitHub.
    pub created_at: Timestamp,
    /// The URL of the workflow run that performs the deployment, if known.
    pub run_url: Option<String>,
    /// The status of the deployment, if the delivery has one.
    pub status: Option<Status>,
}

/// A status of a deployment on GitHub.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The number of the status on GitHub. Later statuses have larger numbers.
    pub id: u64,
    /// The state as GitHub names it. GitHub may add more states.
    pub state: String,
    /// When the status was created on GitHub.
    pub at: Timestamp,
    /// The description of the status, if any.
    pub description: Option<String>,
}

/// The approval or rejection of the deployments of a workflow run.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The repository of the run.
    pub repository: Repository,
    /// Whether it is an approval; else it is a rejection.
    pub is_approved: bool,
    /// The login of the approver.
    pub approver: Name,
    /// The comment of the approver, if any.
    pub comment: Option<String>,
    /// The names of the environments on GitHub.
    pub environments: Vec<String>,
    /// The branch or tag of the run.
    pub reference: String,
    /// The commit of the run.
    pub sha: String,
    /// The URL of the run.
    pub run_url: String,
    /// The number of the run's attempt. Each attempt is reviewed again.
    pub attempt: u32,
    /// When the review was requested, as GitHub writes it.
    pub since: Option<String>,
    /// When it was given: the last change of the run, which a review changes.
    pub at: Timestamp,
}

/// A workflow run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnded {
    /// The URL of the run.
    pub run_url: String,
    /// The state that a deployment gets if it is still running. `None` when the run has succeeded.
    pub leaves: Option<State>,
    /// The conclusion as GitHub names it.
    pub conclusion: String,
    /// When the run ended.
    pub at: Timestamp,
}

/// The fields that all payloads may have.
#[derive(Deserialize)]
struct Payload {
    action: Option<String>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Run {
    html_url: String,
    head_branch: Option<String>,
    head_sha: String,
    conclusion: Option<String>,
    updated_at: Timestamp,
    #[serde(default)]
    run_attempt: u32,
}

#[derive(Deserialize)]
struct RunReference {
    html_url: String,
    triggering_actor: Option<User>,
    actor: Option<User>,
}

#[derive(Deserialize)]
struct DeploymentPayload {
    repository: Repository,
    deployment: RawDeployment,
    deployment_status: Option<RawStatus>,
    workflow_run: Option<RunReference>,
}

#[derive(Deserialize)]
struct RawDeployment {
    id: u64,
    environment: String,
    #[serde(rename = "ref")]
    reference: String,
    sha: String,
    /// An object, or a text with any content.
    payload: Option<Value>,
    creator: Option<User>,
    created_at: Timestamp,
}

#[derive(Deserialize)]
struct RawStatus {
    id: u64,
    state: String,
    created_at: Timestamp,
    description: Option<String>,
    target_url: Option<String>,
    log_url: Option<String>,
}

#[derive(Deserialize)]
struct ReviewPayload {
    repository: Repository,
    workflow_run: Run,
    workflow_job_run: Option<JobRun>,
    #[serde(default)]
    workflow_job_runs: Vec<JobRun>,
    approver: User,
    comment: Option<String>,
    since: Option<String>,
}

#[derive(Deserialize)]
struct JobRun {
    environment: String,
}

#[derive(Deserialize)]
struct RunPayload {
    repository: Repository,
    workflow_run: Run,
}

/// The action of a delivery and the full name of its repository, if it has them.
pub fn heading(payload: &Value) -> (Option<String>, Option<String>) {
    match Payload::deserialize(payload) {
        Ok(heading) => (heading.action, heading.repository.map(|repository| repository.full_name)),
        Err(_) => (None, None),
    }
}

/// Parses the body of a delivery. All text that the ledger takes from it comes from here: what no
/// text may contain, such as U+0000, is replaced by U+FFFD, so that the delivery is recorded
/// whatever its sender wrote.
///
/// # Errors
/// When the body is not JSON.
pub fn parse(body: &str) -> serde_json::Result<Value> {
    let mut payload = serde_json::from_str(body)?;
    clean(&mut payload);
    Ok(payload)
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(cleaned) = invisible::cleaned(text) {
                *text = cleaned;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        // Names of fields are not stored.
        Value::Object(fields) => fields.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The URL of a repository in a normal form for comparison.
pub fn normalized_url(url: &str) -> String {
    url.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase()
}

/// The full name of the repository (`acme/shop`) that a payload is about, or the login of the
/// organization where it is about no repository. `None` where the payload does not say it, or where
/// the URL of the repository, by which its service is found, is that of another one.
pub fn signed_for(payload: &Value) -> Option<String> {
    let repository = &payload["repository"];
    if repository.is_null() {
        return payload["organization"]["login"].as_str().map(str::to_owned);
    }
    let name = repository["full_name"].as_str()?;
    let url = normalized_url(repository["html_url"].as_str()?);
    let (_, path) = url.split_once("://")?.1.split_once('/')?;
    (path == name.to_lowercase()).then(|| name.to_owned())
}

/// Whether prop uses events of this kind.
pub fn is_of_use(event: &str) -> bool {
    matches!(
        event,
        "ping" | "deployment" | "deployment_status" | "deployment_review" | "workflow_run"
    )
}

/// Parses a delivery into a fact.
///
/// # Errors
/// A sentence that names the field of the payload that is missing or malformed.
pub fn read(event: &str, payload: &Value) -> Result<Fact, String> {
    let action = payload["action"].as_str().unwrap_or_default();
    Ok(match (event, action) {
        ("ping", _) => Fact::Nothing("GitHub checked that the webhook works."),
        ("deployment" | "deployment_status", _) => {
            Fact::Deployment(Box::new(deployment(of(payload)?)))
        }
        ("deployment_review", "approved" | "rejected") => {
            Fact::Review(Box::new(review(of(payload)?, action == "approved")?))
        }
        ("deployment_review", _) => {
            Fact::Nothing("A review was requested. GitHub reports its result later.")
        }
        ("workflow_run", "completed") => Fact::RunEnded(run_ended(of(payload)?)?),
        ("workflow_run", _) => {
            Fact::Nothing("The run has not ended. Only the end of a run affects deployments.")
        }
        _ => Fact::Nothing("prop does not use events of this kind."),
    })
}

fn of<T: DeserializeOwned>(payload: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        format!("The payload does not have the form that GitHub documents: {error}.")
    })
}

fn deployment(report: DeploymentPayload) -> Deployment {
    let DeploymentPayload { repository, deployment, deployment_status, workflow_run } = report;
    let status = deployment_status.as_ref();
    let linked =
        status.into_iter().flat_map(|status| [&status.log_url, &status.target_url]).flatten();
    let (of_run, actors) = match workflow_run {
        Some(run) => (Some(run.html_url), [run.triggering_actor, run.actor]),
        None => (None, [None, None]),
    };
    let run_url =
        of_run.or_else(|| linked.map(|url| run_of(url)).find_map(|run| run.map(str::to_owned)));
    // In the older form of GitHub, the payload is a text that contains the object.
    let given = match deployment.payload {
        Some(Value::String(text)) => parse(&text).unwrap_or(Value::Null),
        other => other.unwrap_or(Value::Null),
    };
    Deployment {
        repository,
        id: deployment.id,
        environment: deployment.environment,
        reference: deployment.reference,
        sha: deployment.sha,
        service: given["service"].as_str().map(str::to_owned),
        started_by: actors
            .into_iter()
            .flatten()
            .map(|user| user.login)
            .find(|login| !is_bot(login)),
        creator: deployment.creator.map(|user| user.login),
        created_at: deployment.created_at,
        run_url,
        status: deployment_status.map(|status| Status {
            id: status.id,
            state: status.state,
            at: status.created_at,
            description: status.description.filter(|text| !text.is_empty()),
        }),
    }
}

/// Checks that a run is one of the repository that reports it: the webhook of one repository says
/// nothing about the runs of another.
fn check_run(run_url: &str, repository: &Repository) -> Result<(), String> {
    let owner = run_url.split_once("/actions/runs/").map(|(owner, _)| normalized_url(owner));
    let ours = normalized_url(&repository.html_url);
    if owner.as_deref() == Some(&*ours) {
        return Ok(());
    }
    Err(format!("The run {run_url} is not one of the repository {ours}."))
}

fn review(report: ReviewPayload, is_approved: bool) -> Result<Review, String> {
    check_run(&report.workflow_run.html_url, &report.repository)?;
    let mut environments: Vec<_> = report
        .workflow_job_runs
        .into_iter()
        .chain(report.workflow_job_run)
        .map(|job| job.environment)
        .collect();
    environments.sort();
    environments.dedup();
    let since = report.since.as_deref().and_then(|since| since.parse().ok());
    let since = since.unwrap_or(report.workflow_run.updated_at);
    Ok(Review {
        repository: report.repository,
        is_approved,
        approver: report.approver.login.into(),
        comment: report.comment.filter(|text| !text.is_empty()),
        environments,
        reference: report.workflow_run.head_branch.unwrap_or_default(),
        sha: report.workflow_run.head_sha,
        run_url: report.workflow_run.html_url,
        attempt: report.workflow_run.run_attempt,
        since: report.since,
        at: report.workflow_run.updated_at.max(since),
    })
}

fn run_ended(RunPayload { repository, workflow_run: run }: RunPayload) -> Result<RunEnded, String> {
    check_run(&run.html_url, &repository)?;
    let conclusion = run.conclusion.unwrap_or_default();
    let leaves = match conclusion.as_str() {
        "failure" | "timed_out" | "startup_failure" => Some(State::Failed),
        "cancelled" | "skipped" | "stale" => Some(State::Cancelled),
        _ => None,
    };
    Ok(RunEnded { run_url: run.html_url, leaves, conclusion, at: run.updated_at })
}

/// The status of a deployment, derived from all reports about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeploymentStatus {
    /// `running` or a later state. `None` when the deployment has not started.
    pub state: Option<State>,
    /// When it started, if it has: its first `in_progress`, or, if that was not reported, its
    /// creation.
    pub started_at: Option<Timestamp>,
    /// When it last started: its latest `in_progress` before it was live.
    pub restarted_at: Option<Timestamp>,
    /// Whether the start was reported. Else it only follows from the end.
    pub was_running: bool,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// When GitHub reported that it is no longer live (`inactive` after a success), if it has.
    pub retired_at: Option<Timestamp>,
    /// What was recorded_in to what it is now.
    pub reason: Option<String>,
    /// The URL of the workflow run that performs the deployment, if known.
    pub run_url: Option<String>,
    /// The login of the requester: a person if one is known, else a bot.
    pub requested_by: Option<String>,
}

/// Whether a login belongs to a GitHub App.
pub fn is_bot(login: &str) -> bool {
    login.ends_with("[bot]")
}

/// Derives the status of one deployment from all reports about it. The latest GitHub status
/// decides, with these rules:
///
/// - `waiting`, `queued` and `pending` come before the start.
/// - A deployment that has succeeded does not start again.
/// - `inactive` supersedes a live deployment, and cancels one that was never live.
pub fn deployment_status(report: &[Deployment]) -> DeploymentStatus {
    let mut statuses: Vec<_> = report.iter().filter_map(|report| report.status.as_ref()).collect();
    statuses.sort_by_key(|status| (status.at, status.id));
    let mut runs: Vec<_> = report.iter().filter_map(|report| report.run_url.as_ref()).collect();
    runs.sort();
    let people = report.iter().filter_map(|report| report.started_by.as_ref()).min();
    let requested_by = people.or_else(|| {
        report
            .iter()
            .filter_map(|report| report.creator.as_ref())
            .min_by_key(|login| (is_bot(login), *login))
    });
    let mut now = DeploymentStatus {
        run_url: runs.first().map(|url| (*url).clone()),
        requested_by: requested_by.cloned(),
        ..DeploymentStatus::default()
    };
    for status in &statuses {
        let to = match (now.state, status.state.as_str()) {
            _ if now.retired_at.is_some() => continue,
            (_, "success") => State::Succeeded,
            (_, "failure" | "error") => State::Failed,
            (None | Some(State::Running), "inactive") => State::Cancelled,
            (None | Some(State::Running | State::Failed | State::Cancelled), "in_progress") => {
                State::Running
            }
            (Some(State::Succeeded), "inactive") => {
                now.retired_at = Some(status.at);
                continue;
            }
            _ => continue,
        };
        if status.state == "in_progress" {
            now.restarted_at = Some(status.at);
        }
        if now.state != Some(to) {
            now.finished_at = (to != State::Running).then_some(status.at);
            now.reason = status.description.clone();
        }
        now.state = Some(to);
    }
    let first_start =
        statuses.iter().find(|status| status.state == "in_progress").map(|status| status.at);
    now.was_running = first_start.is_some();
    let must_have_started = !matches!(now.state, None | Some(State::Cancelled));
    let made_at = report.iter().map(|report| report.created_at).min().filter(|_| must_have_started);
    // The end may be older than the first reported start. The deployment had then started by its
    // end.
    now.started_at =
        first_start.or(made_at).map(|start| now.finished_at.map_or(start, |end| start.min(end)));
    now
}

/// The status with the known ends of the deployment's run. A running deployment ends with the first
/// end of the run after its last start.
pub fn ended_with_run(mut now: DeploymentStatus, ends: &[RunEnded]) -> DeploymentStatus {
    let since = now.restarted_at.filter(|_| now.state == Some(State::Running));
    let ends = ends.iter().filter(|end| since.is_some_and(|since| since <= end.at));
    let first = ends
        .filter_map(|end| Some((end.at, end.leaves?, &end.conclusion)))
        .min_by_key(|(at, ..)| *at);
    if let Some((at, state, conclusion)) = first {
        (now.state, now.finished_at) = (Some(state), Some(at));
        now.reason = Some(format!("its run ended: {conclusion}"));
    }
    now
}

/// The URL of the workflow run in a link to GitHub Actions, without the job or the attempt.
pub fn run_of(url: &str) -> Option<&str> {
    let (repository, rest) = url.split_once("/actions/runs/")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| &url[..repository.len() + "/actions/runs/".len() + digits])
}

/// The version of a commit: the tag if the reference is one or looks like one, else the first
/// twelve digits of the commit id.
pub fn version(reference: &str, sha: &str) -> String {
    let tag = reference.strip_prefix("refs/tags/").unwrap_or(reference);
    let number = tag.strip_prefix('v').unwrap_or(tag);
    let looks_like_one = number.starts_with(|first: char| first.is_ascii_digit())
        && number.contains('.')
        && !number.contains('/');
    if tag.len() < reference.len() || looks_like_one {
        tag.to_owned()
    } else {
        sha.chars().take(12).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    fn report(id: u64, state: &str, second: i64) -> Deployment {
        let at = Timestamp::from_second(1_000_000 + second).unwrap();
        let status =
            (!state.is_empty()).then(|| Status { id, state: state.into(), at, description: None });
        let name = || "shop".to_owned();
        Deployment {
            repository: Repository { name: name(), full_name: name(), html_url: name() },
            id: 1,
            environment: "production".into(),
            reference: "main".into(),
            sha: String::new(),
            service: None,
            started_by: None,
            creator: None,
            created_at: Timestamp::from_second(1_000_000).unwrap(),
            run_url: None,
            status,
        }
    }

    /// Every order of `items`.
    fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
        if items.is_empty() {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for at in 0..items.len() {
            let mut rest = items.to_vec();
            let first = rest.remove(at);
            all.extend(orders(&rest).into_iter().map(|rest| [vec![first.clone()], rest].concat()));
        }
        all
    }

    #[test]
    fn states_are_meant_as_github_means_them() {
        let cases: &[(&[&str], Option<State>)] = &[
            (&[""], None),
            (&["waiting", "queued", "pending"], None),
            (&["waiting", "in_progress"], Some(Running)),
            (&["in_progress", "success"], Some(Succeeded)),
            (&["success"], Some(Succeeded)),
            (&["in_progress", "failure"], Some(Failed)),
            (&["error"], Some(Failed)),
            (&["inactive"], Some(Cancelled)),
            (&["in_progress", "inactive"], Some(Cancelled)),
            (&["in_progress", "success", "inactive"], Some(Succeeded)),
            (&["success", "inactive", "failure"], Some(Succeeded)),
            (&["failure", "inactive"], Some(Failed)),
            (&["failure", "in_progress"], Some(Running)),
            (&["failure", "queued", "in_progress", "success"], Some(Succeeded)),
            (&["success", "in_progress"], Some(Succeeded)),
            (&["success", "failure"], Some(Failed)),
            (&["in_progress", "a_state_to_come"], Some(Running)),
        ];
        for (states, expected) in cases {
            let facts: Vec<_> = states
                .iter()
                .enumerate()
                .map(|(n, state)| report(n as u64, state, n as i64))
                .collect();
            let in_order = deployment_status(&facts);
            assert_eq!(in_order.state, *expected, "{states:?}");
            let is_gone = states.contains(&"success") && states.contains(&"inactive");
            assert_eq!(in_order.retired_at.is_some(), is_gone, "{states:?}");
            for order in orders(&facts) {
                assert_eq!(deployment_status(&order), in_order, "{states:?}");
            }
            assert_eq!(
                deployment_status(&[facts.clone(), facts].concat()),
                in_order,
                "{states:?}, twice"
            );
        }
    }

    #[test]
    fn of_statuses_in_the_same_second_the_later_number_counts() {
        assert_eq!(
            deployment_status(&[report(8, "success", 5), report(7, "in_progress", 5)]).state,
            Some(Succeeded)
        );
        let ended = deployment_status(&[report(8, "success", 5), report(7, "in_progress", 3)]);
        let second = |at: Option<Timestamp>| at.map(|at| at.as_second() - 1_000_000);
        assert_eq!((second(ended.started_at), second(ended.finished_at)), (Some(3), Some(5)));
        assert_eq!(second(deployment_status(&[report(8, "success", 5)]).started_at), Some(0));
    }

    #[test]
    fn references_become_versions_and_urls_runs() {
        let sha = "f95f852bd8fca8fcc58a9a2d6c842781e32a215e";
        for (reference, expected) in [
            ("master", "f95f852bd8fc"),
            ("v1.4.2", "v1.4.2"),
            ("1.4.2-rc.1", "1.4.2-rc.1"),
            ("refs/tags/spring", "spring"),
            ("refs/heads/main", "f95f852bd8fc"),
            ("2.x/fix", "f95f852bd8fc"),
            (sha, "f95f852bd8fc"),
        ] {
            assert_eq!(version(reference, sha), expected, "{reference}");
        }
        let run = "https://github.com/o/r/actions/runs/17";
        for url in [run.to_owned(), format!("{run}/job/4"), format!("{run}/attempts/2")] {
            assert_eq!(run_of(&url), Some(run));
        }
        assert_eq!(run_of("https://github.com/o/r/actions/runs/"), None);
        assert_eq!(run_of("https://ci.example.org/17"), None);
    }
}
