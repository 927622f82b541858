//! What GitHub's webhooks say: each payload as the fact that it tells, and where a deployment stands when everything that
//! was told of it is put in order.
//!
//! GitHub promises no order and may send anything again. So a deployment's standing is a function of the set of what was
//! told, ordered by GitHub's own times, and never of the order of arrival.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::rules::lifecycle::State;

/// What a delivery tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Nothing that the ledger keeps; why.
    Nothing(&'static str),
    /// That there is a deployment, or how it goes.
    Deployment(Box<Deployment>),
    /// What somebody said about the deployments of a run.
    Review(Box<Review>),
    /// That a workflow's run has come to an end.
    RunEnded(RunEnded),
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Repository {
    /// Its name, without its owner.
    pub name: String,
    /// Its name, with its owner.
    pub full_name: String,
    /// Where people look at it.
    pub html_url: String,
}

/// A deployment on GitHub, with its status if the delivery tells one.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Of what.
    pub repository: Repository,
    /// GitHub's number of it.
    pub id: u64,
    /// Where to, in GitHub's words.
    pub environment: String,
    /// The branch, tag or commit that was asked for.
    pub reference: String,
    /// The commit that this is.
    pub sha: String,
    /// The service, where the payload that its maker gave it names one (`{"service": "checkout"}`).
    pub service: Option<String>,
    /// Who started the run that does it.
    pub started_by: Option<String>,
    /// Who made it: often a bot, on behalf of the run.
    pub creator: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// The workflow's run that does it.
    pub run_url: Option<String>,
    /// How it goes.
    pub status: Option<Status>,
}

/// How a deployment goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// GitHub's number of it: later ones have larger ones.
    pub id: u64,
    /// In GitHub's words: more may come.
    pub state: String,
    /// Since when.
    pub at: Timestamp,
    /// What was said to it.
    pub description: Option<String>,
}

/// What somebody said about the deployments of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// Of what.
    pub repository: Repository,
    /// Yes or no.
    pub is_approved: bool,
    /// Who said it.
    pub approver: String,
    /// What else they said.
    pub comment: Option<String>,
    /// Where to, in GitHub's words.
    pub environments: Vec<String>,
    /// The branch or tag of the run.
    pub reference: String,
    /// Its commit.
    pub sha: String,
    /// The run.
    pub run_url: String,
    /// Which attempt of it: each is reviewed anew.
    pub attempt: u32,
    /// Since when it was asked for.
    pub since: Option<String>,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnded {
    /// The run.
    pub run_url: String,
    /// What becomes of a deployment that still runs then; nothing, when the run went well.
    pub leaves: Option<State>,
    /// In GitHub's words.
    pub conclusion: String,
    /// When.
    pub at: Timestamp,
}

/// What every payload may have.
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
    /// An object, or any text.
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
    workflow_run: Run,
}

/// What every delivery is listed with: its action, and the repository that it is about.
pub fn heading(payload: &Value) -> (Option<String>, Option<String>) {
    match Payload::deserialize(payload) {
        Ok(heading) => (heading.action, heading.repository.map(|repository| repository.full_name)),
        Err(_) => (None, None),
    }
}

/// Whether events of this kind may say something to the ledger.
pub fn is_of_use(event: &str) -> bool {
    matches!(
        event,
        "ping" | "deployment" | "deployment_status" | "deployment_review" | "workflow_run"
    )
}

/// Reads a delivery.
///
/// # Errors
/// What its payload lacks, for an event that should have it.
pub fn read(event: &str, payload: &Value) -> Result<Fact, String> {
    let action = payload["action"].as_str().unwrap_or_default();
    Ok(match (event, action) {
        ("ping", _) => Fact::Nothing("GitHub asks whether prop is there: it is."),
        ("deployment" | "deployment_status", _) => {
            Fact::Deployment(Box::new(deployment(of(payload)?)))
        }
        ("deployment_review", "approved" | "rejected") => {
            Fact::Review(Box::new(review(of(payload)?, action == "approved")))
        }
        ("deployment_review", _) => {
            Fact::Nothing("A review was asked for; what comes of it will be told.")
        }
        ("workflow_run", "completed") => {
            Fact::RunEnded(run_ended(of::<RunPayload>(payload)?.workflow_run))
        }
        ("workflow_run", _) => {
            Fact::Nothing("A run is on its way; only its end says something of deployments.")
        }
        _ => Fact::Nothing("prop has no use for events of this kind."),
    })
}

fn of<T: DeserializeOwned>(payload: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(payload)
        .map_err(|error| format!("The payload is not GitHub's: {error}."))
}

fn deployment(told: DeploymentPayload) -> Deployment {
    let DeploymentPayload { repository, deployment, deployment_status, workflow_run } = told;
    let status = deployment_status.as_ref();
    let linked =
        status.into_iter().flat_map(|status| [&status.log_url, &status.target_url]).flatten();
    let (of_run, actors) = match workflow_run {
        Some(run) => (Some(run.html_url), [run.triggering_actor, run.actor]),
        None => (None, [None, None]),
    };
    let run_url =
        of_run.or_else(|| linked.map(|url| run_of(url)).find_map(|run| run.map(str::to_owned)));
    // A text that holds the object is GitHub's older form.
    let given = match deployment.payload {
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::Null),
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

fn review(told: ReviewPayload, is_approved: bool) -> Review {
    let mut environments: Vec<_> = told
        .workflow_job_runs
        .into_iter()
        .chain(told.workflow_job_run)
        .map(|job| job.environment)
        .collect();
    environments.sort();
    environments.dedup();
    Review {
        repository: told.repository,
        is_approved,
        approver: told.approver.login,
        comment: told.comment.filter(|text| !text.is_empty()),
        environments,
        reference: told.workflow_run.head_branch.unwrap_or_default(),
        sha: told.workflow_run.head_sha,
        run_url: told.workflow_run.html_url,
        attempt: told.workflow_run.run_attempt,
        since: told.since,
    }
}

fn run_ended(run: Run) -> RunEnded {
    let conclusion = run.conclusion.unwrap_or_default();
    let leaves = match conclusion.as_str() {
        "failure" | "timed_out" | "startup_failure" => Some(State::Failed),
        "cancelled" | "skipped" | "stale" => Some(State::Cancelled),
        _ => None,
    };
    RunEnded { run_url: run.html_url, leaves, conclusion, at: run.updated_at }
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// `running` or what comes after; `None`: it has not started.
    pub state: Option<State>,
    /// When it started, if it has: its first `in_progress`, or its making where none was told.
    pub started_at: Option<Timestamp>,
    /// When it last started: its latest `in_progress` while it was not live.
    pub restarted_at: Option<Timestamp>,
    /// Whether its start was told, and not only concluded from its end.
    pub was_seen_running: bool,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// What was said to what it is now.
    pub reason: Option<String>,
    /// The run that does it.
    pub run_url: Option<String>,
    /// Who asked for it: a person, if any is known.
    pub requested_by: Option<String>,
}

/// Whether a login is an app's.
pub fn is_bot(login: &str) -> bool {
    login.ends_with("[bot]")
}

/// Puts everything that was told of one deployment in order. The latest status says how it goes, with these rules:
/// `waiting`, `queued` and `pending` are before the start; one that went well does not start again; `inactive` is the end of
/// one that was live (another one is, or nothing any more), and gives one up that never got there.
pub fn standing(told: &[Deployment]) -> Standing {
    let mut statuses: Vec<_> = told.iter().filter_map(|told| told.status.as_ref()).collect();
    statuses.sort_by_key(|status| (status.at, status.id));
    let mut runs: Vec<_> = told.iter().filter_map(|told| told.run_url.as_ref()).collect();
    runs.sort();
    let people = told.iter().filter_map(|told| told.started_by.as_ref()).min();
    let requested_by = people.or_else(|| {
        told.iter()
            .filter_map(|told| told.creator.as_ref())
            .min_by_key(|login| (is_bot(login), *login))
    });
    let mut now = Standing {
        run_url: runs.first().map(|url| (*url).clone()),
        requested_by: requested_by.cloned(),
        ..Standing::default()
    };
    for status in &statuses {
        let to = match (now.state, status.state.as_str()) {
            (Some(State::Superseded), _) => continue,
            (_, "success") => State::Succeeded,
            (_, "failure" | "error") => State::Failed,
            (Some(State::Succeeded), "inactive") => State::Superseded,
            (None | Some(State::Running), "inactive") => State::Cancelled,
            (None | Some(State::Running | State::Failed | State::Cancelled), "in_progress") => {
                State::Running
            }
            _ => continue,
        };
        if status.state == "in_progress" {
            now.restarted_at = Some(status.at);
        }
        if now.state != Some(to) && to != State::Superseded {
            now.finished_at = (to != State::Running).then_some(status.at);
            now.reason = status.description.clone();
        }
        now.state = Some(to);
    }
    let first_start =
        statuses.iter().find(|status| status.state == "in_progress").map(|status| status.at);
    now.was_seen_running = first_start.is_some();
    let must_have_started = !matches!(now.state, None | Some(State::Cancelled));
    let made_at = told.iter().map(|told| told.created_at).min().filter(|_| must_have_started);
    // A status may be older than the first start that was told: what has ended had started.
    now.started_at =
        first_start.or(made_at).map(|start| now.finished_at.map_or(start, |end| start.min(end)));
    now
}

/// The same, when something is known of the ends of its run: the first that came after its last start ends it, unless its
/// own statuses do.
pub fn ended_with_run(mut now: Standing, ends: &[RunEnded]) -> Standing {
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

/// The run that a link into GitHub Actions leads to, without the job or the attempt.
pub fn run_of(url: &str) -> Option<&str> {
    let (repository, rest) = url.split_once("/actions/runs/")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| &url[..repository.len() + "/actions/runs/".len() + digits])
}

/// The slug that a name of GitHub's makes: `Hello-World` is `hello-world`, `pr 12/preview` is `pr-12-preview`.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' => slug.push(letter),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(63);
    slug.trim_end_matches('-').to_owned()
}

/// The version that a commit is called by: the tag, where the reference is one or looks like one; else the commit's first
/// twelve digits.
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

    fn told(id: u64, state: &str, second: i64) -> Deployment {
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
            (&["in_progress", "success", "inactive"], Some(Superseded)),
            (&["success", "inactive", "failure"], Some(Superseded)),
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
                .map(|(n, state)| told(n as u64, state, n as i64))
                .collect();
            let in_order = standing(&facts);
            assert_eq!(in_order.state, *expected, "{states:?}");
            for order in orders(&facts) {
                assert_eq!(standing(&order), in_order, "{states:?}");
            }
            assert_eq!(standing(&[facts.clone(), facts].concat()), in_order, "{states:?}, twice");
        }
    }

    #[test]
    fn of_statuses_in_the_same_second_the_later_number_counts() {
        assert_eq!(
            standing(&[told(8, "success", 5), told(7, "in_progress", 5)]).state,
            Some(Succeeded)
        );
        let ended = standing(&[told(8, "success", 5), told(7, "in_progress", 3)]);
        let second = |at: Option<Timestamp>| at.map(|at| at.as_second() - 1_000_000);
        assert_eq!((second(ended.started_at), second(ended.finished_at)), (Some(3), Some(5)));
        assert_eq!(second(standing(&[told(8, "success", 5)]).started_at), Some(0));
    }

    #[test]
    fn names_become_slugs_and_references_versions() {
        for (name, expected) in [
            ("Hello-World", "hello-world"),
            ("pr 12 / preview", "pr-12-preview"),
            ("-_.é", ""),
            ("a--b-", "a-b"),
            ("github-pages", "github-pages"),
        ] {
            assert_eq!(slug(name), expected);
        }
        assert_eq!(slug(&"ab-".repeat(40)).len(), 62);
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
