//! The gate: whether a release may be deployed to a place now, and every reason against it.
//!
//! The same rule answers a question, and decides on the request and the start of a deployment. Its
//! input is all facts and the time. It reports all reasons at once, in the order of [`Code`], and
//! the exemptions that let the deployment pass others.

use jiff::tz::TimeZone;
use jiff::{RoundMode, SignedDuration, Unit, ZonedRound};
use serde::{Deserialize, Serialize, Serializer};

use crate::rules::schedule::{Schedule, Until};
use crate::text_enum;
use crate::types::ids::{ApprovalId, DeploymentId, FreezeId, IncidentId, OverrideId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, Slug, Version};

text_enum! {
    /// Why the gate blocks a deployment.
    Code {
        /// A freeze of the service or the environment applies now.
        Frozen = "frozen",
        /// The environment requires a scan, and the release was not scanned.
        ScanMissing = "scan_missing",
        /// The environment requires a scan, and the scan of the release failed.
        ScanFailed = "scan_failed",
        /// The environment has the tier `production`, and the release has no image digest.
        DigestMissing = "digest_missing",
        /// The release has not succeeded in the preceding environment.
        NotInPredecessor = "not_in_predecessor",
        /// The release has not been in the preceding environment for long enough.
        Soaking = "soaking",
        /// Another deployment is running in the same place.
        DeploymentRunning = "deployment_running",
        /// The place has an open incident, and the deployment is neither a rollback nor its fix.
        OpenIncident = "open_incident",
        /// Approvals are missing. Blocks only the start, not the request.
        ApprovalMissing = "approval_missing",
        /// Somebody rejected the release after the last approval. Blocks only the start, not the
        /// request.
        ApprovalRejected = "approval_rejected",
        /// There were enough approvals, but they have expired. Blocks only the start, not the
        /// request.
        ApprovalExpired = "approval_expired",
    }
}

text_enum! {
    /// Why a deployment passes what blocks others.
    Exempt {
        /// It was asked for as a rollback, and the gate accepts it as one.
        Rollback = "rollback",
        /// Somebody has overridden the freeze for this deployment.
        Override = "override",
        /// It is the fix of the incident.
        Fix = "fix",
    }
}

/// The step of a deployment that the gate decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The request of a deployment. Missing approvals do not block it.
    Create,
    /// The start of a deployment.
    Start,
}

/// The rules of an environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// The slug of the environment.
    pub environment: Slug,
    /// Whether the environment has the tier `production`.
    pub is_production: bool,
    /// How many people must approve.
    pub required_approvals: i32,
    /// Whether the approval of the person who requested the deployment counts.
    pub allow_self_approval: bool,
    /// Whether a release must have passed a scan.
    pub require_scan: bool,
    /// The slug of the environment where a release must have succeeded first, if any.
    pub predecessor: Option<Slug>,
    /// How many minutes must have passed since the release succeeded in the predecessor.
    pub soak_minutes: i32,
    /// Whether rollbacks need approvals too.
    pub rollback_needs_approval: bool,
}

/// The facts about the release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The version of the release.
    pub version: Version,
    /// Its image digest. `None` while it is unknown.
    pub image_digest: Option<Digest>,
    /// Whether it passed its scan. `None` when it was not scanned.
    pub scan_passed: Option<bool>,
    /// From when its first success in the predecessor counts: the later of when it happened and
    /// when it was recorded. What started against the gate, or with another image, does not count.
    /// `None` when there is none.
    pub succeeded_before_at: Option<Timestamp>,
}

/// A freeze that covers the place, whether it applies now or not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Freeze {
    /// The identifier of the freeze.
    pub id: FreezeId,
    /// Why deployments are blocked.
    pub reason: String,
    /// When the freeze applies.
    pub schedule: Schedule,
    /// Whether rollbacks pass the freeze.
    pub allow_rollback: bool,
    /// The override that lets this deployment pass the freeze, if any.
    pub overridden_by: Option<OverrideId>,
}

impl Freeze {
    /// Why this deployment passes the freeze. A rollback uses up no override.
    fn exempts(&self, facts: &Facts) -> Option<Exempt> {
        match self.overridden_by {
            _ if facts.is_rollback && self.allow_rollback => Some(Exempt::Rollback),
            by => by.map(|_| Exempt::Override),
        }
    }
}

/// An unused approval or rejection of this image in this environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Review {
    /// The identifier of the approval.
    pub id: ApprovalId,
    /// The name of the person who decided.
    pub approver: Name,
    /// Whether it is an approval; else it is a rejection.
    pub approved: bool,
    /// When it was given or, if that is unknown, recorded.
    pub at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// An open incident of the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// The identifier of the incident.
    pub id: IncidentId,
    /// What is wrong, in one line.
    pub title: String,
    /// Whether this deployment fixes the incident.
    pub is_fixed_by_this: bool,
}

/// All facts that the rule needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// The step to decide on.
    pub step: Step,
    /// The name of the person or pipeline that requests the deployment.
    pub requested_by: Name,
    /// The name of the key that records the deployment. Its holder's approval does not count
    /// either, so nobody can approve their own deployment by naming another requester.
    pub recorded_by: Option<Name>,
    /// Whether the caller asked for a rollback to a release that went live in the place before,
    /// through the gate and with the same image, and was not rolled back itself.
    pub is_rollback: bool,
    /// The rules of the environment.
    pub policy: Policy,
    /// The facts about the release.
    pub release: Candidate,
    /// The identifier of another deployment that is running in the place, if any.
    pub running: Option<DeploymentId>,
    /// The freezes that cover the place, whether they apply now or not.
    pub freezes: Vec<Freeze>,
    /// The open incidents of the place.
    pub incidents: Vec<Incident>,
    /// The unused approvals and rejections of this image in this environment.
    pub reviews: Vec<Review>,
}

/// The decision of the gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Decision, example = json!({
    "allowed": false, "is_rollback": false, "evaluated_at": "2026-02-03T04:05:06.000000Z",
    "exemptions": [
        {"code": "open_incident", "by": "fix",
            "detail": "Open incident: Card payments fail. Only a rollback or the fix is allowed.",
            "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46"}
    ],
    "reasons": [
        {"code": "frozen", "detail": "Frozen until 5 Feb 00:00 UTC: Quarter end.",
            "until": "2026-02-05T00:00:00.000000Z",
            "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44"},
        {"code": "approval_missing", "detail": "Needs 1 approval (0 of 1).", "missing": 1}
    ]
}))]
pub struct Decision {
    /// Whether the release may be deployed.
    pub allowed: bool,
    /// All reasons that block the deployment. Empty when it is allowed.
    pub reasons: Vec<Reason>,
    /// What would have blocked the deployment, and the exemption by which it does not. Empty when
    /// it needs no exemption.
    #[serde(default)]
    pub exemptions: Vec<Exemption>,
    /// Whether the gate exempts it as a rollback: it was asked for as one, and its release went
    /// live in the place before, through the gate and with the same image, and was not rolled back
    /// itself.
    #[serde(default)]
    pub is_rollback: bool,
    /// The time for which the decision was made.
    pub evaluated_at: Timestamp,
}

/// One reason why the gate blocks a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Reason)]
pub struct Reason {
    /// The kind of reason, as a stable word for programs.
    pub code: Code,
    /// The reason in a sentence for people.
    pub detail: String,
    /// When the reason ends by itself. Absent, never `null`, when it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// The identifier of the freeze, deployment, incident or rejection that the reason is about.
    /// Absent, never `null`, when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// How many approvals are missing. Absent, never `null`, when the reason is not about
    /// approvals.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing: Option<i32>,
}

/// A reason that would have blocked a deployment, and why it does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Exemption)]
pub struct Exemption {
    /// The kind of reason that does not block it.
    pub code: Code,
    /// Why the reason does not block this deployment.
    pub by: Exempt,
    /// The reason in a sentence for people, as it would have blocked the deployment.
    pub detail: String,
    /// The identifier of the freeze, incident or rejection that the reason is about. Absent, never
    /// `null`, when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
}

/// Serializes an instant with six decimals, as in all responses.
pub(super) fn micros<S: Serializer>(
    at: &jiff::Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

/// Serializes an optional instant with six decimals, as in all responses.
pub(super) fn micros_if_any<S: Serializer>(
    at: &Option<jiff::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => micros(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// What a rule finds against a deployment: a reason, and perhaps why it does not block this one.
struct Finding {
    reason: Reason,
    exempt: Option<Exempt>,
}

impl From<Reason> for Finding {
    fn from(reason: Reason) -> Self {
        Self { reason, exempt: None }
    }
}

/// Decides whether a deployment is allowed at `now`, and collects all reasons against it.
pub fn decide(facts: &Facts, now: Timestamp) -> Decision {
    let findings = frozen(facts, now)
        .chain(scanned(facts))
        .chain(has_image(facts))
        .chain(seasoned(facts, now))
        .chain(runs_alone(facts))
        .chain(sound(facts))
        .chain(approved(facts, now).filter(|_| facts.step == Step::Start));
    let (mut reasons, mut exemptions) = (Vec::new(), Vec::new());
    for Finding { reason, exempt } in findings {
        match exempt {
            None => reasons.push(reason),
            Some(by) => {
                let Reason { code, detail, id, .. } = reason;
                exemptions.push(Exemption { code, by, detail, id });
            }
        }
    }
    let (allowed, is_rollback) = (reasons.is_empty(), facts.is_rollback);
    Decision { allowed, reasons, exemptions, is_rollback, evaluated_at: now }
}

impl Reason {
    fn new(code: Code, detail: String) -> Self {
        Self { code, detail, until: None, id: None, missing: None }
    }

    fn until(self, until: Timestamp) -> Self {
        Self { until: Some(until), ..self }
    }

    fn about(self, id: impl std::fmt::Display) -> Self {
        Self { id: Some(id.to_string()), ..self }
    }
}

/// The exemption of a rollback from what would keep it from fixing.
fn of_rollback(facts: &Facts) -> Option<Exempt> {
    facts.is_rollback.then_some(Exempt::Rollback)
}

fn frozen(facts: &Facts, now: Timestamp) -> impl Iterator<Item = Finding> {
    facts.freezes.iter().filter_map(move |freeze| {
        let why = freeze.reason.trim_end_matches('.');
        let reason = |is: String| Reason::new(Code::Frozen, is).about(freeze.id);
        let reason = match freeze.schedule.holds(now)? {
            Until::At(end) => {
                reason(format!("Frozen until {}: {why}.", minute(end, now))).until(end)
            }
            Until::Ended => reason(format!("Frozen until somebody ends the freeze: {why}.")),
        };
        Some(Finding { reason, exempt: freeze.exempts(facts) })
    })
}

/// The overrides that the deployment uses up: those of the freezes that apply now and exempt it for
/// no other reason.
pub fn consumed_overrides(facts: &Facts, now: Timestamp) -> Vec<OverrideId> {
    let used = facts.freezes.iter().filter(|freeze| {
        freeze.exempts(facts) == Some(Exempt::Override) && freeze.schedule.holds(now).is_some()
    });
    used.filter_map(|freeze| freeze.overridden_by).collect()
}

/// An instant for people, in UTC, to the minute: rounded up, so that it is over by then. The year
/// is there when it is another one than now.
fn minute(at: Timestamp, now: Timestamp) -> String {
    let up = ZonedRound::new().smallest(Unit::Minute).mode(RoundMode::Ceil);
    let at = at.to_zoned(TimeZone::UTC);
    let at = at.round(up).unwrap_or(at);
    let is_this_year = at.year() == now.to_zoned(TimeZone::UTC).year();
    let form = if is_this_year { "%-d %b %H:%M UTC" } else { "%-d %b %Y %H:%M UTC" };
    at.strftime(form).to_string()
}

fn scanned(facts: &Facts) -> Option<Finding> {
    let (version, environment) = (&facts.release.version, &facts.policy.environment);
    let (code, is) = match facts.release.scan_passed {
        _ if !facts.policy.require_scan => return None,
        None => (Code::ScanMissing, format!("release {version} has not been scanned")),
        Some(false) => (Code::ScanFailed, format!("the scan of release {version} failed")),
        Some(true) => return None,
    };
    Some(Reason::new(code, format!("{environment} requires a scan, and {is}.")).into())
}

fn has_image(facts: &Facts) -> Option<Finding> {
    let Facts { policy, release, .. } = facts;
    if !policy.is_production || release.image_digest.is_some() {
        return None;
    }
    let (environment, version) = (&policy.environment, &release.version);
    let detail = format!("{environment} requires an image digest, and release {version} has none.");
    Some(Reason::new(Code::DigestMissing, detail).into())
}

/// Checks that the release was in the predecessor for long enough. A rollback need not pass through
/// it again.
fn seasoned(facts: &Facts, now: Timestamp) -> Option<Finding> {
    let predecessor = facts.policy.predecessor.as_deref()?;
    let version = &facts.release.version;
    let exempt = of_rollback(facts);
    let Some(succeeded_at) = facts.release.succeeded_before_at else {
        let detail = format!("Release {version} has not succeeded in {predecessor} yet.");
        return Some(Finding { reason: Reason::new(Code::NotInPredecessor, detail), exempt });
    };
    let minutes = facts.policy.soak_minutes;
    let soaked_at = succeeded_at.plus(SignedDuration::from_mins(minutes.into()));
    let detail =
        format!("Release {version} must have been in {predecessor} for {minutes} minutes.");
    let reason = Reason::new(Code::Soaking, detail).until(soaked_at);
    (now < soaked_at).then_some(Finding { reason, exempt })
}

fn runs_alone(facts: &Facts) -> Option<Finding> {
    let detail = "Another deployment is already running.";
    let reason = Reason::new(Code::DeploymentRunning, detail.into()).about(facts.running?);
    Some(reason.into())
}

/// Checks that the place has no open incident, except those that the deployment ends.
fn sound(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.incidents.iter().map(|incident| {
        let detail =
            format!("Open incident: {}. Only a rollback or the fix is allowed.", incident.title);
        let exempt = incident.is_fixed_by_this.then_some(Exempt::Fix).or(of_rollback(facts));
        Finding { reason: Reason::new(Code::OpenIncident, detail).about(incident.id), exempt }
    })
}

/// Whether an approval or rejection counts. The approval of the requester or of the recorder does
/// not, unless the environment allows it.
fn counts(facts: &Facts, review: &Review) -> bool {
    let mut own = [Some(&facts.requested_by), facts.recorded_by.as_ref()].into_iter().flatten();
    !review.approved
        || facts.policy.allow_self_approval
        || !own.any(|name| *name == review.approver)
}

/// The last approval or rejection of each person, as far as it counts.
fn latest(facts: &Facts, now: Timestamp) -> impl Iterator<Item = &Review> + Clone {
    let is_last = |review: &Review| {
        !facts.reviews.iter().any(|other| {
            other.approver == review.approver && (other.at, other.id) > (review.at, review.id)
        })
    };
    facts
        .reviews
        .iter()
        .filter(move |review| review.at <= now && is_last(review) && counts(facts, review))
}

/// The approvals that count and have not expired, one for each person.
fn valid(facts: &Facts, now: Timestamp) -> impl Iterator<Item = &Review> {
    latest(facts, now).filter(move |review| review.approved && now < review.expires_at)
}

/// The valid approvals for a start now, one for each person. Empty when none is required.
pub fn carried_by(facts: &Facts, now: Timestamp) -> Vec<&Review> {
    if needs_approval(facts) { valid(facts, now).collect() } else { Vec::new() }
}

/// The approvals and rejections that a start consumes: all that count, if the start needs
/// approvals. They do not count for the next deployment.
pub fn consumed_by_start(facts: &Facts) -> Vec<&Review> {
    if needs_approval(facts) {
        facts.reviews.iter().filter(|review| counts(facts, review)).collect()
    } else {
        Vec::new()
    }
}

/// Why a deployment needs no approvals where others do.
fn needs_no_approval(facts: &Facts) -> Option<Exempt> {
    of_rollback(facts).filter(|_| !facts.policy.rollback_needs_approval)
}

fn needs_approval(facts: &Facts) -> bool {
    facts.policy.required_approvals > 0 && needs_no_approval(facts).is_none()
}

/// What the reviews of a release come to for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reviewed {
    /// No approval is missing.
    Approved,
    /// Approvals are missing or have expired.
    Missing,
    /// Somebody rejected it after the last approval.
    Rejected,
}

/// Decides what the reviews of a release come to for a start at `now`.
pub fn reviewed(facts: &Facts, now: Timestamp) -> Reviewed {
    match approved(facts, now) {
        Some(Finding { reason, exempt: None }) if reason.code == Code::ApprovalRejected => {
            Reviewed::Rejected
        }
        Some(Finding { exempt: None, .. }) => Reviewed::Missing,
        _ => Reviewed::Approved,
    }
}

/// Checks the reviews of the release for a start.
fn approved(facts: &Facts, now: Timestamp) -> Option<Finding> {
    let needed = facts.policy.required_approvals;
    if needed == 0 {
        return None;
    }
    let (version, environment) = (&facts.release.version, &facts.policy.environment);
    let latest = latest(facts, now);
    let approvals = latest.clone().filter(|review| review.approved);
    let valid = i32::try_from(valid(facts, now).count()).unwrap_or(i32::MAX);
    let last_yes = approvals.clone().map(|review| review.at).max();
    let rejection = latest
        .filter(|review| !review.approved && last_yes.is_none_or(|yes| review.at >= yes))
        .max_by_key(|review| review.at);
    let missing = Some(needed - valid);
    let reason = if let Some(no) = rejection {
        let detail = format!("{} rejected release {version} for {environment}.", no.approver);
        Reason::new(Code::ApprovalRejected, detail).about(no.id)
    } else if valid >= needed {
        return None;
    } else if approvals.count() as i32 >= needed {
        let detail = format!("The approvals of release {version} for {environment} have expired.");
        Reason { missing, ..Reason::new(Code::ApprovalExpired, detail) }
    } else {
        let plural = if needed == 1 { "" } else { "s" };
        let detail = format!("Needs {needed} approval{plural} ({valid} of {needed}).");
        Reason { missing, ..Reason::new(Code::ApprovalMissing, detail) }
    };
    Some(Finding { reason, exempt: needs_no_approval(facts) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::schedule::Day;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-03-02T12:00:00Z";

    /// The facts of a start that nothing blocks, in an environment with all rules.
    fn free() -> Facts {
        Facts {
            step: Step::Start,
            requested_by: "alice".into(),
            recorded_by: Some("pipeline".into()),
            is_rollback: false,
            policy: Policy {
                environment: "production".parse().unwrap(),
                is_production: true,
                required_approvals: 1,
                allow_self_approval: false,
                require_scan: true,
                predecessor: "staging".parse().ok(),
                soak_minutes: 60,
                rollback_needs_approval: false,
            },
            release: Candidate {
                version: "1.4.2".parse().unwrap(),
                image_digest: digest(),
                scan_passed: Some(true),
                succeeded_before_at: Some(at("2026-03-02T10:00:00Z")),
            },
            running: None,
            freezes: Vec::new(),
            incidents: Vec::new(),
            reviews: vec![review("bob", true, "2026-03-02T11:00:00Z")],
        }
    }

    fn review(approver: &str, approved: bool, said_at: &str) -> Review {
        let expires_at = at(said_at).plus(SignedDuration::from_hours(24));
        Review {
            id: ApprovalId::new(),
            approver: approver.into(),
            approved,
            at: at(said_at),
            expires_at,
        }
    }

    fn digest() -> Option<Digest> {
        format!("sha256:{}", "7".repeat(64)).parse().ok()
    }

    fn freeze(ends_at: Option<&str>) -> Freeze {
        let schedule = Schedule {
            starts_at: at("2026-03-02T00:00:00Z"),
            ends_at: ends_at.map(at),
            weekly: None,
        };
        Freeze {
            id: FreezeId::new(),
            reason: "Quarter end.".into(),
            schedule,
            allow_rollback: true,
            overridden_by: None,
        }
    }

    fn incident() -> Incident {
        Incident { id: IncidentId::new(), title: "Cards fail".into(), is_fixed_by_this: false }
    }

    fn codes(facts: &Facts) -> Vec<Code> {
        let decision = decide(facts, at(NOW));
        assert_eq!(decision.allowed, decision.reasons.is_empty());
        assert!(decision.reasons.iter().all(|reason| reason.detail.ends_with('.')), "{decision:?}");
        decision.reasons.iter().map(|reason| reason.code).collect()
    }

    type Change = fn(&mut Facts);

    /// For each code, a change of the facts that causes only this code.
    const CAUSES: &[(Code, Change)] = &[
        (Code::Frozen, |f| f.freezes.push(freeze(None))),
        (Code::ScanMissing, |f| f.release.scan_passed = None),
        (Code::ScanFailed, |f| f.release.scan_passed = Some(false)),
        (Code::DigestMissing, |f| f.release.image_digest = None),
        (Code::NotInPredecessor, |f| f.release.succeeded_before_at = None),
        (Code::Soaking, |f| f.release.succeeded_before_at = Some(at("2026-03-02T11:30:00Z"))),
        (Code::DeploymentRunning, |f| f.running = Some(DeploymentId::new())),
        (Code::OpenIncident, |f| f.incidents.push(incident())),
        (Code::ApprovalMissing, |f| f.reviews.clear()),
        (Code::ApprovalRejected, |f| {
            f.reviews.push(review("carol", false, "2026-03-02T11:30:00Z"));
        }),
        (Code::ApprovalExpired, |f| {
            f.reviews = vec![review("bob", true, "2026-03-01T11:00:00Z")];
        }),
    ];

    #[test]
    fn each_cause_keeps_a_start_back_by_its_own_code() {
        assert_eq!(codes(&free()), []);
        assert_eq!(CAUSES.iter().map(|cause| cause.0).collect::<Vec<_>>(), Code::ALL);
        for (code, change) in CAUSES {
            let mut facts = free();
            change(&mut facts);
            assert_eq!(codes(&facts), [*code]);
        }
    }

    #[test]
    fn two_causes_give_both_codes_unless_one_is_the_stronger_form_of_the_other() {
        let families: [&[Code]; 3] = [
            &[Code::ScanMissing, Code::ScanFailed],
            &[Code::NotInPredecessor, Code::Soaking],
            &[Code::ApprovalMissing, Code::ApprovalRejected, Code::ApprovalExpired],
        ];
        for (one, first) in CAUSES {
            for (other, second) in CAUSES.iter().filter(|(other, _)| {
                one != other && !families.iter().any(|f| f.contains(one) && f.contains(other))
            }) {
                let mut facts = free();
                first(&mut facts);
                second(&mut facts);
                let mut expected = vec![*one, *other];
                expected.sort_by_key(|code| *code as u8);
                assert_eq!(codes(&facts), expected);
            }
        }
    }

    #[test]
    fn everything_at_once_is_reported_at_once() {
        let mut facts = free();
        for (code, change) in CAUSES.iter().filter(|(code, _)| {
            !matches!(
                code,
                Code::ScanFailed | Code::Soaking | Code::ApprovalMissing | Code::ApprovalExpired
            )
        }) {
            change(&mut facts);
            assert!(codes(&facts).contains(code));
        }
        assert_eq!(codes(&facts).len(), 7);
    }

    #[test]
    fn approvals_keep_back_the_start_and_not_the_creation() {
        for (code, change) in CAUSES {
            let mut facts = Facts { step: Step::Create, ..free() };
            change(&mut facts);
            let is_about_approval = matches!(
                code,
                Code::ApprovalMissing | Code::ApprovalRejected | Code::ApprovalExpired
            );
            assert_eq!(codes(&facts).is_empty(), is_about_approval, "{code}");
        }
    }

    #[test]
    fn an_environment_that_asks_nothing_gets_nothing_asked() {
        let mut facts = free();
        facts.policy = Policy {
            is_production: false,
            required_approvals: 0,
            require_scan: false,
            predecessor: None,
            ..facts.policy
        };
        facts.release = Candidate {
            image_digest: None,
            scan_passed: Some(false),
            succeeded_before_at: None,
            ..facts.release
        };
        facts.reviews = vec![review("carol", false, "2026-03-02T11:30:00Z")];
        assert_eq!(codes(&facts), []);
    }

    #[test]
    fn a_rollback_passes_what_would_keep_it_from_mending() {
        let passes = [
            Code::Frozen,
            Code::NotInPredecessor,
            Code::Soaking,
            Code::OpenIncident,
            Code::ApprovalMissing,
            Code::ApprovalRejected,
            Code::ApprovalExpired,
        ];
        for (code, change) in CAUSES {
            let mut facts = Facts { is_rollback: true, ..free() };
            change(&mut facts);
            assert_eq!(codes(&facts).is_empty(), passes.contains(code), "{code}");
        }
        let mut facts = Facts { is_rollback: true, reviews: Vec::new(), ..free() };
        facts.policy.rollback_needs_approval = true;
        assert_eq!(codes(&facts), [Code::ApprovalMissing]);
        facts.freezes.push(Freeze { allow_rollback: false, ..freeze(None) });
        assert_eq!(codes(&facts), [Code::Frozen, Code::ApprovalMissing]);
    }

    #[test]
    fn an_override_passes_its_own_freeze_and_no_other() {
        let given = OverrideId::new();
        let overridden = Freeze { overridden_by: Some(given), ..freeze(None) };
        let mut facts = Facts { freezes: vec![overridden], ..free() };
        assert_eq!(codes(&facts), []);
        assert_eq!(consumed_overrides(&facts, at(NOW)), [given]);
        // Where it is not needed, it is not used up.
        let before = at("2026-03-01T00:00:00Z");
        assert_eq!(consumed_overrides(&facts, before), []);
        let back = Facts { is_rollback: true, ..facts.clone() };
        assert_eq!(consumed_overrides(&back, at(NOW)), []);
        let id = FreezeId::new();
        facts.freezes.push(Freeze { id, ..freeze(None) });
        let decision = decide(&facts, at(NOW));
        assert_eq!(decision.reasons.len(), 1);
        assert_eq!(decision.reasons[0].id, Some(id.to_string()));
    }

    #[test]
    fn the_fix_of_one_incident_passes_that_one() {
        let mut facts =
            Facts { incidents: vec![Incident { is_fixed_by_this: true, ..incident() }], ..free() };
        assert_eq!(codes(&facts), []);
        facts.incidents.push(incident());
        assert_eq!(codes(&facts), [Code::OpenIncident]);
    }

    /// The codes of what an exemption lets pass, with the kind of the exemption.
    fn exemptions(facts: &Facts) -> Vec<(Code, Exempt)> {
        let decision = decide(facts, at(NOW));
        decision.exemptions.iter().map(|exemption| (exemption.code, exemption.by)).collect()
    }

    #[test]
    fn an_exemption_is_a_reason_that_would_have_blocked() {
        assert_eq!(exemptions(&free()), []);
        assert_eq!(exemptions(&Facts { is_rollback: true, ..free() }), [], "nothing to pass");
        let mut facts = free();
        facts.freezes.push(Freeze { overridden_by: Some(OverrideId::new()), ..freeze(None) });
        facts.incidents.push(Incident { is_fixed_by_this: true, ..incident() });
        facts.reviews.clear();
        facts.release.succeeded_before_at = None;
        let by = [(Code::Frozen, Exempt::Override), (Code::OpenIncident, Exempt::Fix)];
        assert_eq!(exemptions(&facts), by);
        assert_eq!(codes(&facts), [Code::NotInPredecessor, Code::ApprovalMissing]);
        let ids = decide(&facts, at(NOW)).exemptions.into_iter().map(|exemption| exemption.id);
        let expected = [facts.freezes[0].id.to_string(), facts.incidents[0].id.to_string()];
        assert_eq!(ids.collect::<Vec<_>>(), expected.map(Some));

        facts.is_rollback = true;
        let by = [
            (Code::Frozen, Exempt::Rollback),
            (Code::NotInPredecessor, Exempt::Rollback),
            (Code::OpenIncident, Exempt::Fix),
            (Code::ApprovalMissing, Exempt::Rollback),
        ];
        assert_eq!(exemptions(&facts), by);
        assert_eq!(codes(&facts), []);
        facts.policy.rollback_needs_approval = true;
        assert_eq!(codes(&facts), [Code::ApprovalMissing]);
        // Every reason blocks or is exempt, never both and never neither.
        for (code, change) in CAUSES {
            for is_rollback in [false, true] {
                let mut facts = Facts { is_rollback, ..free() };
                change(&mut facts);
                let exempt = exemptions(&facts).into_iter().map(|(code, _)| code);
                assert_eq!(codes(&facts).into_iter().chain(exempt).collect::<Vec<_>>(), [*code]);
            }
        }
    }

    #[test]
    fn a_decision_that_was_stored_before_there_were_exemptions_is_read() {
        let mut stored = serde_json::to_value(decide(&free(), at(NOW))).unwrap();
        stored.as_object_mut().unwrap().remove("exemptions").unwrap();
        assert_eq!(serde_json::from_value::<Decision>(stored).unwrap(), decide(&free(), at(NOW)));
    }

    /// The codes one microsecond before `turn`, and at `turn`.
    fn around(facts: &Facts, turn: &str) -> (Vec<Code>, Vec<Code>) {
        let turn = at(turn);
        let codes =
            |now| decide(facts, now).reasons.iter().map(|reason| reason.code).collect::<Vec<_>>();
        (codes(turn.plus(SignedDuration::from_micros(-1))), codes(turn))
    }

    #[test]
    fn time_turns_to_the_microsecond() {
        let soaking = free();
        assert_eq!(
            around(&soaking, "2026-03-02T11:00:00Z").0,
            [Code::Soaking, Code::ApprovalMissing],
            "not said yet, not soaked yet"
        );
        assert_eq!(around(&soaking, "2026-03-02T11:00:00Z").1, []);
        assert_eq!(around(&soaking, "2026-03-03T11:00:00Z"), (vec![], vec![Code::ApprovalExpired]));

        let frozen = Facts { freezes: vec![freeze(Some("2026-03-02T18:00:00Z"))], ..free() };
        assert_eq!(around(&frozen, "2026-03-02T18:00:00Z"), (vec![Code::Frozen], vec![]));
        let mut later = frozen.clone();
        later.freezes[0].schedule.starts_at = at("2026-03-02T15:00:00Z");
        assert_eq!(around(&later, "2026-03-02T15:00:00Z"), (vec![], vec![Code::Frozen]));
    }

    #[test]
    fn until_is_when_time_cures_it() {
        let mut facts = free();
        facts.release.succeeded_before_at = Some(at("2026-03-02T11:30:00Z"));
        facts.freezes.push(freeze(Some("2026-03-02T18:00:00Z")));
        let weekly = crate::rules::schedule::Weekly {
            days: vec![Day::Monday],
            from: "11:00".parse().unwrap(),
            to: "14:00".parse().unwrap(),
            time_zone: "UTC".into(),
        };
        facts.freezes.push(Freeze {
            schedule: Schedule {
                weekly: Some(weekly),
                ends_at: None,
                starts_at: at("2026-01-01T00:00:00Z"),
            },
            ..freeze(None)
        });
        facts.freezes.push(freeze(None));
        let decision = decide(&facts, at(NOW));
        let until: Vec<_> = decision.reasons.iter().map(|reason| reason.until).collect();
        assert_eq!(
            until,
            [
                Some(at("2026-03-02T18:00:00Z")),
                Some(at("2026-03-02T14:00:00Z")),
                None,
                Some(at("2026-03-02T12:30:00Z"))
            ]
        );
        let json = serde_json::to_value(&decision).unwrap();
        assert_eq!(json["evaluated_at"], "2026-03-02T12:00:00.000000Z");
        assert_eq!(json["reasons"][0]["until"], "2026-03-02T18:00:00.000000Z");
        assert!(json["reasons"][2].get("until").is_none());
        assert_eq!(serde_json::from_value::<Decision>(json).unwrap(), decision);
    }

    #[test]
    fn a_person_counts_once_and_by_what_they_said_last() {
        let mut facts = free();
        facts.policy.required_approvals = 2;
        facts.reviews.push(review("bob", true, "2026-03-02T11:10:00Z"));
        assert_eq!(codes(&facts), [Code::ApprovalMissing]);
        assert_eq!(decide(&facts, at(NOW)).reasons[0].missing, Some(1));
        facts.reviews.push(review("carol", false, "2026-03-02T11:20:00Z"));
        assert_eq!(codes(&facts), [Code::ApprovalRejected]);
        facts.reviews.push(review("carol", true, "2026-03-02T11:30:00Z"));
        assert_eq!(codes(&facts), []);
        assert_eq!(carried_by(&facts, at(NOW)).len(), 2);
    }

    #[test]
    fn the_case_of_a_login_makes_no_second_person() {
        let two = |reviews| Facts {
            policy: Policy { required_approvals: 2, ..free().policy },
            reviews,
            ..free()
        };
        let yes = |who, hour| review(who, true, &format!("2026-03-02T{hour}:00:00Z"));
        let no = |who, hour| review(who, false, &format!("2026-03-02T{hour}:00:00Z"));
        let (missing, rejected) = (Code::ApprovalMissing, Code::ApprovalRejected);
        let cases = [
            (vec![yes("bob", "10"), yes("Bob", "11")], vec![missing]),
            (vec![yes("bob", "10"), yes("BOB", "10"), yes("carol", "11")], vec![]),
            (vec![yes("bob", "09"), yes("carol", "10"), no("Carol", "11")], vec![rejected]),
            (vec![no("Bob", "09"), yes("bob", "10"), yes("carol", "08")], vec![]),
        ];
        for (reviews, expected) in cases {
            assert_eq!(codes(&two(reviews.clone())), expected, "{reviews:?}");
        }
    }

    #[test]
    fn a_rejection_counts_until_somebody_approves_after_it() {
        let mut facts = free();
        facts.reviews = vec![
            review("carol", false, "2026-03-02T10:30:00Z"),
            review("bob", true, "2026-03-02T11:00:00Z"),
        ];
        assert_eq!(codes(&facts), []);
        facts.reviews[0].at = facts.reviews[1].at;
        assert_eq!(
            codes(&facts),
            [Code::ApprovalRejected],
            "at the same moment, no is the stronger word"
        );
    }

    #[test]
    fn reviews_come_to_the_same_in_any_order() {
        let early = review("bob", true, "2026-03-02T10:30:00Z");
        let no = review("bob", false, "2026-03-02T11:00:00Z");
        let late = review("bob", true, "2026-03-02T11:30:00Z");
        let stale = Review { expires_at: at(NOW), ..early.clone() };
        let cases = [
            (vec![], Reviewed::Missing),
            (vec![&early], Reviewed::Approved),
            (vec![&stale], Reviewed::Missing),
            (vec![&early, &no], Reviewed::Rejected),
            (vec![&no, &late], Reviewed::Approved),
            (vec![&early, &no, &late], Reviewed::Approved),
        ];
        for (story, expected) in cases {
            let forward: Vec<Review> = story.into_iter().cloned().collect();
            let backward = forward.iter().rev().cloned().collect();
            for reviews in [forward, backward] {
                let facts = Facts { reviews, ..free() };
                assert_eq!(reviewed(&facts, at(NOW)), expected, "{:?}", facts.reviews);
            }
        }
    }

    #[test]
    fn ones_own_approval_counts_only_where_the_environment_says_so() {
        let told_by_bob = Facts { recorded_by: Some("bob".into()), ..free() };
        assert_eq!(
            codes(&told_by_bob),
            [Code::ApprovalMissing],
            "who names another as the requester"
        );
        let mut facts = Facts { requested_by: "Bob".into(), ..free() };
        assert_eq!(codes(&facts), [Code::ApprovalMissing], "logins have no case");
        assert_eq!(carried_by(&facts, at(NOW)), Vec::<&Review>::new());
        facts.policy.allow_self_approval = true;
        assert_eq!(codes(&facts), []);
    }

    #[test]
    fn nothing_is_used_up_where_nothing_is_needed() {
        let mut facts = free();
        facts.reviews.push(review("bob", true, "2026-03-02T11:30:00Z"));
        facts.reviews.push(review("carol", false, "2026-03-02T10:00:00Z"));
        assert_eq!(carried_by(&facts, at(NOW)).len(), 1);
        assert_eq!(
            consumed_by_start(&facts).len(),
            3,
            "what was said before says nothing of the next one"
        );
        facts.is_rollback = true;
        assert!(carried_by(&facts, at(NOW)).is_empty() && consumed_by_start(&facts).is_empty());
    }
}
