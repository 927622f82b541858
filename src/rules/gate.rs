//! May this release go there now; and if not, why not.
//!
//! One rule for the question, for the creation of a deployment and for its start. It is given everything it needs to know
//! and the time; it reports every reason at once, in the order of [`Code`].

use jiff::tz::TimeZone;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize, Serializer};

use crate::rules::calendar::{Schedule, Until};
use crate::text_enum;

text_enum! {
    /// Why a deployment is kept back.
    Code {
        /// A freeze covers the service and the environment now.
        Frozen = "frozen",
        /// The environment requires a scan, and there is none.
        ScanMissing = "scan_missing",
        /// The environment requires a scan, and it failed.
        ScanFailed = "scan_failed",
        /// The environment is of the production tier, and the release names no image.
        DigestMissing = "digest_missing",
        /// The release has not succeeded in the environment that comes before.
        NotInPredecessor = "not_in_predecessor",
        /// It has, but not long enough ago.
        Soaking = "soaking",
        /// Another deployment runs in the same place.
        DeploymentRunning = "deployment_running",
        /// Something is wrong there, and this does not mend it.
        OpenIncident = "open_incident",
        /// Approvals are missing. Keeps back the start only.
        ApprovalMissing = "approval_missing",
        /// Somebody said no after everybody who said yes. Keeps back the start only.
        ApprovalRejected = "approval_rejected",
        /// There were enough approvals, but they ran out. Keeps back the start only.
        ApprovalExpired = "approval_expired",
    }
}

/// Which step asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A deployment is recorded: missing approvals keep nothing back yet.
    Create,
    /// A deployment starts.
    Start,
}

/// What an environment asks of a release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// Its name.
    pub environment: String,
    /// It has users.
    pub is_production: bool,
    /// How many people must approve.
    pub required_approvals: i32,
    /// Whether who asks for a deployment may approve it too.
    pub allow_self_approval: bool,
    /// Whether a release must have been scanned, and passed.
    pub require_scan: bool,
    /// The environment where a release must have succeeded before.
    pub predecessor: Option<String>,
    /// How many minutes ago at least.
    pub soak_minutes: i32,
    /// Whether going back needs approval too.
    pub rollback_needs_approval: bool,
}

/// What is known of the release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its version.
    pub version: String,
    /// Whether it names an image.
    pub has_digest: bool,
    /// Whether it was scanned, and passed; `None` when it was not.
    pub scan_passed: Option<bool>,
    /// When it first succeeded in the predecessor.
    pub succeeded_before_at: Option<Timestamp>,
}

/// A freeze of this service and environment, holding or not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Freeze {
    /// Its identifier.
    pub id: String,
    /// Why it is there.
    pub reason: String,
    /// When it holds.
    pub schedule: Schedule,
    /// Whether it lets a rollback through.
    pub allow_rollback: bool,
    /// Somebody let this very deployment through.
    pub is_overridden: bool,
}

/// What somebody said about this image in this environment, and nothing has used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opinion {
    /// Its identifier.
    pub id: String,
    /// Who.
    pub approver: String,
    /// Yes or no.
    pub approved: bool,
    /// When.
    pub at: Timestamp,
    /// No longer from then on.
    pub expires_at: Timestamp,
}

/// Something that is wrong in the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// Its identifier.
    pub id: String,
    /// What is wrong.
    pub title: String,
    /// Whether this deployment is its fix.
    pub is_fixed_by_this: bool,
}

/// Everything the rule needs to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Which step asks.
    pub step: Step,
    /// Who asks for the deployment.
    pub requested_by: String,
    /// Who told prop of it: naming somebody else gives nobody a second pair of eyes.
    pub recorded_by: Option<String>,
    /// The release was live there before and is not now.
    pub is_rollback: bool,
    /// What the environment asks.
    pub policy: Policy,
    /// What is known of the release.
    pub release: Candidate,
    /// The deployment that runs there.
    pub running: Option<String>,
    /// The freezes that cover the place, holding or not.
    pub freezes: Vec<Freeze>,
    /// The open incidents of the place.
    pub incidents: Vec<Incident>,
    /// What was said about this image there.
    pub opinions: Vec<Opinion>,
}

/// What the rule says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Decision, example = json!({
    "allowed": false, "evaluated_at": "2026-02-03T04:05:06.000000Z", "reasons": [
        {"code": "frozen", "detail": "Frozen until 5 Feb 00:00 UTC: Quarter end.", "until": "2026-02-05T00:00:00.000000Z",
            "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44"},
        {"code": "approval_missing", "detail": "production requires 1 approval; release 1.4.2 lacks 1.", "missing": 1}
    ]
}))]
pub struct Decision {
    /// Whether it may go.
    pub allowed: bool,
    /// Why not; none when it may.
    pub reasons: Vec<Reason>,
    /// When this was so.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub evaluated_at: Timestamp,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Reason)]
pub struct Reason {
    /// Which.
    pub code: Code,
    /// A sentence for people.
    pub detail: String,
    /// When time cures it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "micros_if_any", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// What it is about: a freeze, a deployment, an incident.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// How many approvals are missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing: Option<i32>,
}

/// An instant as every answer writes it: with six decimals.
pub(super) fn micros<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

/// The same, where there may be none.
pub(super) fn micros_if_any<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => micros(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Decides.
pub fn decide(facts: &Facts, now: Timestamp) -> Decision {
    let mut reasons = Vec::new();
    frozen(facts, now, &mut reasons);
    scanned(facts, &mut reasons);
    if facts.policy.is_production && !facts.release.has_digest {
        reasons.push(Reason::new(
            Code::DigestMissing,
            format!(
                "{} runs images by digest, and release {} names none.",
                facts.policy.environment, facts.release.version
            ),
        ));
    }
    seasoned(facts, now, &mut reasons);
    if let Some(running) = &facts.running {
        reasons.push(
            Reason::new(Code::DeploymentRunning, "Another deployment is running there.".into())
                .about(running),
        );
    }
    for incident in
        facts.incidents.iter().filter(|incident| !incident.is_fixed_by_this && !facts.is_rollback)
    {
        let detail =
            format!("There is an open incident: {}. A rollback or its fix may go.", incident.title);
        reasons.push(Reason::new(Code::OpenIncident, detail).about(&incident.id));
    }
    if facts.step == Step::Start {
        approved(facts, now, &mut reasons);
    }
    Decision { allowed: reasons.is_empty(), reasons, evaluated_at: now }
}

impl Reason {
    fn new(code: Code, detail: String) -> Self {
        Self { code, detail, until: None, id: None, missing: None }
    }

    fn until(self, until: Timestamp) -> Self {
        Self { until: Some(until), ..self }
    }

    fn about(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }
}

fn frozen(facts: &Facts, now: Timestamp, reasons: &mut Vec<Reason>) {
    for freeze in &facts.freezes {
        let passes = freeze.is_overridden || facts.is_rollback && freeze.allow_rollback;
        let Some(until) = freeze.schedule.holds(now).filter(|_| !passes) else { continue };
        let why = freeze.reason.trim_end_matches('.');
        let reason = |is: String| Reason::new(Code::Frozen, is).about(&freeze.id);
        reasons.push(match until {
            Until::At(end) => {
                reason(format!("Frozen until {}: {why}.", minute(end, now))).until(end)
            }
            Until::Ended => reason(format!("Frozen until somebody ends the freeze: {why}.")),
        });
    }
}

/// An instant for people, in UTC, to the minute: rounded up, so that it is over by then. The year is
/// there when it is another one than now.
fn minute(at: Timestamp, now: Timestamp) -> String {
    let up = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Ceil);
    let at = at.round(up).unwrap_or(at).to_zoned(TimeZone::UTC);
    let is_this_year = at.year() == now.to_zoned(TimeZone::UTC).year();
    let form = if is_this_year { "%-d %b %H:%M UTC" } else { "%-d %b %Y %H:%M UTC" };
    at.strftime(form).to_string()
}

fn scanned(facts: &Facts, reasons: &mut Vec<Reason>) {
    let (version, environment) = (&facts.release.version, &facts.policy.environment);
    match facts.release.scan_passed {
        _ if !facts.policy.require_scan => {}
        None => reasons.push(Reason::new(
            Code::ScanMissing,
            format!("{environment} requires a scan, and release {version} was not scanned."),
        )),
        Some(false) => reasons.push(Reason::new(
            Code::ScanFailed,
            format!("{environment} requires a scan, and that of release {version} failed."),
        )),
        Some(true) => {}
    }
}

/// A rollback goes to what has run there before: it need not pass through the predecessor again.
fn seasoned(facts: &Facts, now: Timestamp, reasons: &mut Vec<Reason>) {
    let Some(predecessor) = facts.policy.predecessor.as_deref().filter(|_| !facts.is_rollback)
    else {
        return;
    };
    let version = &facts.release.version;
    let Some(succeeded_at) = facts.release.succeeded_before_at else {
        reasons.push(Reason::new(
            Code::NotInPredecessor,
            format!("Release {version} has not succeeded in {predecessor} yet."),
        ));
        return;
    };
    let soak = SignedDuration::from_mins(facts.policy.soak_minutes.into());
    let soaked_at = succeeded_at.saturating_add(soak).unwrap_or(Timestamp::MAX);
    if now < soaked_at {
        let minutes = facts.policy.soak_minutes;
        let detail =
            format!("Release {version} must have been in {predecessor} for {minutes} minutes.");
        reasons.push(Reason::new(Code::Soaking, detail).until(soaked_at));
    }
}

/// Whether an opinion may count here: one's own approval does not, unless the environment says so. Logins are compared as
/// GitHub does it, in any case.
fn counts(facts: &Facts, opinion: &Opinion) -> bool {
    let mut own = [Some(&facts.requested_by), facts.recorded_by.as_ref()].into_iter().flatten();
    !opinion.approved
        || facts.policy.allow_self_approval
        || !own.any(|name| name.eq_ignore_ascii_case(&opinion.approver))
}

/// What each person last said, as far as it counts here.
fn latest(facts: &Facts, now: Timestamp) -> impl Iterator<Item = &Opinion> + Clone {
    let is_last = |opinion: &Opinion| {
        !facts.opinions.iter().any(|other| {
            other.approver == opinion.approver && (other.at, &other.id) > (opinion.at, &opinion.id)
        })
    };
    facts
        .opinions
        .iter()
        .filter(move |opinion| opinion.at <= now && is_last(opinion) && counts(facts, opinion))
}

/// The approvals that a start now is carried by: each person once, what is required or more; none where none is needed.
pub fn carried_by(facts: &Facts, now: Timestamp) -> Vec<&Opinion> {
    if needed(facts) == 0 {
        Vec::new()
    } else {
        latest(facts, now).filter(|opinion| opinion.approved && now < opinion.expires_at).collect()
    }
}

/// What a start settles: everything that was said until then and counts, if it needed somebody's approval. What was said
/// before it says nothing of the next one.
pub fn settled_by_start(facts: &Facts) -> Vec<&Opinion> {
    if needed(facts) == 0 {
        Vec::new()
    } else {
        facts.opinions.iter().filter(|opinion| counts(facts, opinion)).collect()
    }
}

/// How many approvals a start needs.
fn needed(facts: &Facts) -> i32 {
    if facts.is_rollback && !facts.policy.rollback_needs_approval {
        0
    } else {
        facts.policy.required_approvals
    }
}

/// Whether a start would lack no approval.
pub fn is_approved(facts: &Facts, now: Timestamp) -> bool {
    let mut reasons = Vec::new();
    approved(facts, now, &mut reasons);
    reasons.is_empty()
}

fn approved(facts: &Facts, now: Timestamp, reasons: &mut Vec<Reason>) {
    let needed = needed(facts);
    if needed == 0 {
        return;
    }
    let (version, environment) = (&facts.release.version, &facts.policy.environment);
    let latest = latest(facts, now);
    let approvals = latest.clone().filter(|opinion| opinion.approved);
    let valid = i32::try_from(carried_by(facts, now).len()).unwrap_or(i32::MAX);
    let last_yes = approvals.clone().map(|opinion| opinion.at).max();
    let rejection = latest
        .filter(|opinion| !opinion.approved && last_yes.is_none_or(|yes| opinion.at >= yes))
        .max_by_key(|opinion| opinion.at);
    if let Some(no) = rejection {
        reasons.push(
            Reason::new(
                Code::ApprovalRejected,
                format!("{} rejected release {version} for {environment}.", no.approver),
            )
            .about(&no.id),
        );
    } else if valid < needed && approvals.count() as i32 >= needed {
        let detail = format!("The approvals of release {version} for {environment} have run out.");
        reasons.push(Reason {
            missing: Some(needed - valid),
            ..Reason::new(Code::ApprovalExpired, detail)
        });
    } else if valid < needed {
        let missing = needed - valid;
        let detail = format!(
            "{environment} requires {needed} approval{}; release {version} lacks {missing}.",
            if needed == 1 { "" } else { "s" }
        );
        reasons
            .push(Reason { missing: Some(missing), ..Reason::new(Code::ApprovalMissing, detail) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::calendar::Day;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-03-02T12:00:00Z";

    /// A start that nothing keeps back, in an environment that asks for everything.
    fn free() -> Facts {
        Facts {
            step: Step::Start,
            requested_by: "alice".into(),
            recorded_by: Some("pipeline".into()),
            is_rollback: false,
            policy: Policy {
                environment: "production".into(),
                is_production: true,
                required_approvals: 1,
                allow_self_approval: false,
                require_scan: true,
                predecessor: Some("staging".into()),
                soak_minutes: 60,
                rollback_needs_approval: false,
            },
            release: Candidate {
                version: "1.4.2".into(),
                has_digest: true,
                scan_passed: Some(true),
                succeeded_before_at: Some(at("2026-03-02T10:00:00Z")),
            },
            running: None,
            freezes: Vec::new(),
            incidents: Vec::new(),
            opinions: vec![opinion("bob", true, "2026-03-02T11:00:00Z")],
        }
    }

    fn opinion(approver: &str, approved: bool, said_at: &str) -> Opinion {
        let expires_at = at(said_at) + SignedDuration::from_hours(24);
        Opinion {
            id: format!("{approver} {said_at}"),
            approver: approver.into(),
            approved,
            at: at(said_at),
            expires_at,
        }
    }

    fn freeze(ends_at: Option<&str>) -> Freeze {
        let schedule = Schedule {
            starts_at: at("2026-03-02T00:00:00Z"),
            ends_at: ends_at.map(at),
            weekly: None,
        };
        Freeze {
            id: "f".into(),
            reason: "Quarter end.".into(),
            schedule,
            allow_rollback: true,
            is_overridden: false,
        }
    }

    fn incident() -> Incident {
        Incident { id: "i".into(), title: "Cards fail".into(), is_fixed_by_this: false }
    }

    fn codes(facts: &Facts) -> Vec<Code> {
        let decision = decide(facts, at(NOW));
        assert_eq!(decision.allowed, decision.reasons.is_empty());
        assert!(decision.reasons.iter().all(|reason| reason.detail.ends_with('.')), "{decision:?}");
        decision.reasons.iter().map(|reason| reason.code).collect()
    }

    type Change = fn(&mut Facts);

    /// What brings each code about, alone.
    const CAUSES: &[(Code, Change)] = &[
        (Code::Frozen, |f| f.freezes.push(freeze(None))),
        (Code::ScanMissing, |f| f.release.scan_passed = None),
        (Code::ScanFailed, |f| f.release.scan_passed = Some(false)),
        (Code::DigestMissing, |f| f.release.has_digest = false),
        (Code::NotInPredecessor, |f| f.release.succeeded_before_at = None),
        (Code::Soaking, |f| f.release.succeeded_before_at = Some(at("2026-03-02T11:30:00Z"))),
        (Code::DeploymentRunning, |f| f.running = Some("d".into())),
        (Code::OpenIncident, |f| f.incidents.push(incident())),
        (Code::ApprovalMissing, |f| f.opinions.clear()),
        (Code::ApprovalRejected, |f| {
            f.opinions.push(opinion("carol", false, "2026-03-02T11:30:00Z"));
        }),
        (Code::ApprovalExpired, |f| {
            f.opinions = vec![opinion("bob", true, "2026-03-01T11:00:00Z")];
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
            has_digest: false,
            scan_passed: Some(false),
            succeeded_before_at: None,
            ..facts.release
        };
        facts.opinions = vec![opinion("carol", false, "2026-03-02T11:30:00Z")];
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
        let mut facts = Facts { is_rollback: true, opinions: Vec::new(), ..free() };
        facts.policy.rollback_needs_approval = true;
        assert_eq!(codes(&facts), [Code::ApprovalMissing]);
        facts.freezes.push(Freeze { allow_rollback: false, ..freeze(None) });
        assert_eq!(codes(&facts), [Code::Frozen, Code::ApprovalMissing]);
    }

    #[test]
    fn an_override_passes_its_own_freeze_and_no_other() {
        let mut facts =
            Facts { freezes: vec![Freeze { is_overridden: true, ..freeze(None) }], ..free() };
        assert_eq!(codes(&facts), []);
        facts.freezes.push(Freeze { id: "g".into(), ..freeze(None) });
        let decision = decide(&facts, at(NOW));
        assert_eq!(decision.reasons.len(), 1);
        assert_eq!(decision.reasons[0].id.as_deref(), Some("g"));
    }

    #[test]
    fn the_fix_of_one_incident_passes_that_one() {
        let mut facts =
            Facts { incidents: vec![Incident { is_fixed_by_this: true, ..incident() }], ..free() };
        assert_eq!(codes(&facts), []);
        facts.incidents.push(incident());
        assert_eq!(codes(&facts), [Code::OpenIncident]);
    }

    /// What is so one microsecond before `turn`, and from `turn` on.
    fn around(facts: &Facts, turn: &str) -> (Vec<Code>, Vec<Code>) {
        let turn = at(turn);
        let codes =
            |now| decide(facts, now).reasons.iter().map(|reason| reason.code).collect::<Vec<_>>();
        (codes(turn - SignedDuration::from_micros(1)), codes(turn))
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
        let weekly = crate::rules::calendar::Weekly {
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
        facts.opinions.push(opinion("bob", true, "2026-03-02T11:10:00Z"));
        assert_eq!(codes(&facts), [Code::ApprovalMissing]);
        assert_eq!(decide(&facts, at(NOW)).reasons[0].missing, Some(1));
        facts.opinions.push(opinion("carol", false, "2026-03-02T11:20:00Z"));
        assert_eq!(codes(&facts), [Code::ApprovalRejected]);
        facts.opinions.push(opinion("carol", true, "2026-03-02T11:30:00Z"));
        assert_eq!(codes(&facts), []);
        assert_eq!(carried_by(&facts, at(NOW)).len(), 2);
    }

    #[test]
    fn a_rejection_counts_until_somebody_approves_after_it() {
        let mut facts = free();
        facts.opinions = vec![
            opinion("carol", false, "2026-03-02T10:30:00Z"),
            opinion("bob", true, "2026-03-02T11:00:00Z"),
        ];
        assert_eq!(codes(&facts), []);
        facts.opinions[0].at = facts.opinions[1].at;
        assert_eq!(
            codes(&facts),
            [Code::ApprovalRejected],
            "at the same moment, no is the stronger word"
        );
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
        assert_eq!(carried_by(&facts, at(NOW)), Vec::<&Opinion>::new());
        facts.policy.allow_self_approval = true;
        assert_eq!(codes(&facts), []);
    }

    #[test]
    fn nothing_is_used_up_where_nothing_is_needed() {
        let mut facts = free();
        facts.opinions.push(opinion("bob", true, "2026-03-02T11:30:00Z"));
        facts.opinions.push(opinion("carol", false, "2026-03-02T10:00:00Z"));
        assert_eq!(carried_by(&facts, at(NOW)).len(), 1);
        assert_eq!(
            settled_by_start(&facts).len(),
            3,
            "what was said before says nothing of the next one"
        );
        facts.is_rollback = true;
        assert!(carried_by(&facts, at(NOW)).is_empty() && settled_by_start(&facts).is_empty());
    }
}
