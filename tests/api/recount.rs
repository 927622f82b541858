//! The DORA measures of random histories, against a recount of all that the API lists. It follows
//! `docs/dora.md` deployment by deployment, without any regard to the cost.

use crate::harness::{TestApp, image, with};
use crate::sequences::Dice;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

crate::on_both_databases! {
    measures_are_what_a_recount_gives
}

const SERVICES: [&str; 2] = ["checkout", "billing"];
const ENVIRONMENTS: [&str; 2] = ["eu", "us"];
const VERSIONS: usize = 8;
const DEPLOYMENTS: usize = 120;

fn hour(n: i64) -> Timestamp {
    "2025-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(n)
}

fn sha(n: usize) -> String {
    format!("{n:040x}")
}

/// What was recorded of the releases, and what the API lists.
struct Ledger {
    releases: HashMap<(String, String), Value>,
    deployments: Vec<Value>,
    incidents: Vec<Value>,
}

fn record(app: &TestApp, dice: &mut Dice) -> Ledger {
    for slug in ENVIRONMENTS {
        app.post("/v1/environments", json!({"slug": slug, "tier": "production"})).expect(201);
    }
    let mut releases = HashMap::new();
    for (service, version) in SERVICES.iter().flat_map(|it| (0..VERSIONS).map(move |n| (it, n))) {
        let release = release(dice, service, version);
        app.post("/v1/releases", release.clone()).expect(201);
        releases.insert(((*service).to_owned(), version.to_string()), release);
    }
    let mut incidents = Vec::new();
    let mut recent: Vec<Value> = Vec::new();
    let mut now = -900;
    for n in 0..DEPLOYMENTS {
        // At the same time as the one before, now and then.
        now += *dice.pick(&[0, 1, 2, 5, 40]);
        // Newer and newer releases, and back.
        let version =
            (n * VERSIONS / DEPLOYMENTS + dice.roll(3)).saturating_sub(1).min(VERSIONS - 1);
        let mut body = json!({"service": dice.pick(&SERVICES), "version": version.to_string(),
            "environment": dice.pick(&ENVIRONMENTS), "observed": true, "at": hour(now - 1),
            "unplanned": dice.roll(6) == 0});
        let is_here = |it: &&Value| ["service", "environment"].iter().all(|at| it[at] == body[at]);
        let here: Vec<Value> = incidents.iter().filter(is_here).cloned().collect();
        let fixed = dice.any(&here).filter(|_| dice.roll(3) == 0);
        if let Some(incident) = &fixed {
            body = with(body, json!({"fixes": incident["id"]}));
        }
        let running = app.post("/v1/deployments", body).expect(201);
        let path = format!("/v1/deployments/{}", running["id"].as_str().unwrap());
        let to = dice.pick(&["succeeded", "succeeded", "succeeded", "succeeded", "failed"]);
        let end = json!({"to": to, "observed": true, "at": hour(now)});
        app.post(&format!("{path}/transitions"), end).expect(200);
        if fixed.is_none() && dice.roll(20) == 0 {
            app.post(&format!("{path}/void"), json!({"reason": "by mistake"})).expect(200);
            continue;
        }
        recent.push(running["id"].clone());
        if dice.roll(12) == 0 {
            let causes: Vec<_> = recent.iter().rev().take(dice.roll(3)).collect();
            let incident = json!({"service": running["service"],
                "environment": running["environment"], "title": "Cards fail", "severity": "major",
                "detected_at": hour(now), "caused_by": causes});
            incidents.push(app.post("/v1/incidents", incident).expect(201));
        }
    }
    for incident in &mut incidents {
        let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
        if dice.roll(3) > 0 {
            let after = SignedDuration::from_hours(dice.roll(200) as i64);
            let resolved_at = time(incident, "detected_at").unwrap() + after;
            app.patch(&path, json!({"resolved_at": resolved_at}), &[]).expect(200);
        }
        *incident = app.get(&path).expect(200);
    }
    let mut deployments = app.all("/v1/deployments");
    deployments.retain(|it| it["voided_at"].is_null() && !it["finished_at"].is_null());
    deployments.sort_by_key(|it| ["finished_at", "started_at", "id"].map(|at| text(it, at)));
    Ledger { releases, deployments, incidents }
}

/// A release with or without commits. Several releases list the same ones.
fn release(dice: &mut Dice, service: &str, version: usize) -> Value {
    let at = -1000 + 150 * version as i64 + dice.roll(400) as i64;
    let mut body = json!({"service": service, "version": version.to_string(),
        "image_digest": image(&format!("{service}{version}")), "create_missing": true});
    if dice.roll(3) == 0 {
        body = with(body, json!({"committed_at": hour(at), "git_sha": sha(version)}));
    }
    if dice.roll(3) > 0 {
        let commit = |_| {
            let committed_at = hour(at - dice.roll(60) as i64);
            let sha = sha(version * 3 + dice.roll(6));
            json!({"sha": sha, "committed_at": committed_at, "is_merge": dice.roll(6) == 0})
        };
        let mut commits: Vec<Value> = (0..3).map(commit).collect();
        let mut listed = HashSet::new();
        commits.retain(|commit| listed.insert(text(commit, "sha")));
        body = with(body, json!({"commits": commits}));
    }
    body
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value, field: &str) -> Option<Timestamp> {
    value[field].as_str().map(|at| at.parse().unwrap())
}

fn end(deployment: &Value) -> Timestamp {
    time(deployment, "finished_at").unwrap()
}

fn is_live(deployment: &Value) -> bool {
    ["succeeded", "superseded", "rolled_back"].contains(&deployment["state"].as_str().unwrap())
}

fn is_change(deployment: &Value) -> bool {
    is_live(deployment) && ["normal", "hotfix"].contains(&deployment["kind"].as_str().unwrap())
}

fn lists(incident: &Value, role: &str, deployment: &Value) -> bool {
    incident[role].as_array().unwrap().contains(&deployment["id"])
}

/// The nearest rank.
fn percentile(values: &[i64], percent: usize) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    (1..=sorted.len())
        .find(|rank| rank * 100 >= percent * sorted.len())
        .map(|rank| sorted[rank - 1])
}

/// What is measured: the deployments of the question, with those around the window.
struct Question<'a> {
    ledger: &'a Ledger,
    all: Vec<&'a Value>,
    since: Timestamp,
    until: Timestamp,
}

impl Question<'_> {
    fn inside(&self) -> impl DoubleEndedIterator<Item = &Value> {
        let inside = |it: &&Value| self.since <= end(it) && end(it) < self.until;
        self.all.iter().copied().filter(inside)
    }

    /// What went live in a place, in order.
    fn place(&self, of: &Value) -> Vec<&Value> {
        let is_there = |it: &&Value| {
            is_live(it) && ["service", "environment"].iter().all(|at| it[at] == of[at])
        };
        self.all.iter().copied().filter(is_there).collect()
    }

    /// The first rollback past a deployment, and the hotfix that came next.
    fn fixes(&self, failed: &Value) -> Vec<&Value> {
        let place = self.place(failed);
        let Some(i) = place.iter().position(|it| it["id"] == failed["id"]) else { return vec![] };
        let goes_past = |r: &usize| {
            let before = &place[..*r];
            let back = before.iter().rposition(|it| it["version"] == place[*r]["version"]);
            place[*r]["kind"] == "rollback" && back.is_none_or(|back| back < i)
        };
        let rollback = (i + 1..place.len()).find(goes_past).map(|r| place[r]);
        let next = place[i + 1..].iter().find(|it| it["kind"] != "redeploy").copied();
        let fixes_another = |fix: &Value| {
            let incidents = self.ledger.incidents.iter();
            let mut linked = incidents.filter(|it| lists(it, "fixed_by", fix));
            linked.any(|it| it["caused_by"] != json!([]))
        };
        let hotfix = next.filter(|it| it["kind"] == "hotfix" && !fixes_another(it));
        rollback.into_iter().chain(hotfix.filter(|_| is_change(failed))).collect()
    }

    fn caused_by(&self, deployment: &Value) -> Vec<&Value> {
        let incidents = self.ledger.incidents.iter();
        incidents.filter(|it| lists(it, "caused_by", deployment)).collect()
    }

    /// The failures with the seconds until their recovery. `None`: open, or not known.
    fn failures(&self) -> Vec<(&Value, Option<i64>)> {
        let mut failures = Vec::new();
        for it in self.inside() {
            let (incidents, fixes) = (self.caused_by(it), self.fixes(it));
            let can_fail = is_change(it) || !incidents.is_empty();
            let is_undone = it["state"] == "rolled_back" || !fixes.is_empty();
            if can_fail && (is_undone || !incidents.is_empty()) {
                let recovered_at = self.recovery(it, &incidents, &fixes);
                let seconds = recovered_at.map(|at| at.duration_since(end(it)).as_secs());
                failures.push((it, seconds.filter(|seconds| *seconds >= 0)));
            }
        }
        failures
    }

    fn recovery(
        &self,
        failed: &Value,
        incidents: &[&Value],
        fixes: &[&Value],
    ) -> Option<Timestamp> {
        if incidents.is_empty() {
            return fixes.iter().map(|fix| end(fix)).min();
        }
        let mut ends = Vec::new();
        for incident in incidents {
            let resolved_at = time(incident, "resolved_at")?;
            let all = &self.ledger.deployments;
            let linked = all.iter().filter(|it| is_live(it) && lists(incident, "fixed_by", it));
            let times = linked.chain(fixes.iter().copied()).map(end);
            let last = times.filter(|at| end(failed) <= *at && *at <= resolved_at).max();
            ends.push(last.unwrap_or(resolved_at));
        }
        ends.into_iter().max()
    }

    /// The commits of a release, with their times and whether they are merges.
    fn commits(&self, service: &str, version: &str) -> Vec<(String, Timestamp, bool)> {
        let release = &self.ledger.releases[&(service.to_owned(), version.to_owned())];
        match release["commits"].as_array() {
            Some(commits) => {
                let of = |it: &Value| {
                    let at = time(it, "committed_at").unwrap();
                    (text(it, "sha"), at, it["is_merge"] == true)
                };
                commits.iter().map(of).collect()
            }
            None => {
                let own =
                    time(release, "committed_at").map(|at| (text(release, "git_sha"), at, false));
                own.into_iter().collect()
            }
        }
    }

    /// The time that orders a release.
    fn order(&self, service: &str, version: &str) -> Option<Timestamp> {
        let release = &self.ledger.releases[&(service.to_owned(), version.to_owned())];
        let newest = self.commits(service, version).into_iter().map(|(_, at, _)| at).max();
        time(release, "committed_at").or(newest)
    }

    /// The lead times of the commits, and what does not count of the others by reason.
    fn lead_times(&self) -> (Vec<i64>, BTreeMap<&str, usize>) {
        let (mut times, mut left_out) = (Vec::new(), BTreeMap::new());
        let mut delivered = HashSet::new();
        let until = self.until;
        for change in self.all.iter().filter(|it| is_change(it) && end(it) < until) {
            let (service, version) = (text(change, "service"), text(change, "version"));
            let counts = self.since <= end(change);
            let mut omit = |reason| *left_out.entry(reason).or_default() += usize::from(counts);
            let skipped = self.skipped(change);
            let mut versions = skipped.clone().unwrap_or_default();
            versions.retain(|it| *it != version);
            versions.push(version.clone());
            let mut listed = HashSet::new();
            for (sha, at, is_merge) in versions.iter().flat_map(|it| self.commits(&service, it)) {
                if !listed.insert(sha.clone()) {
                    continue;
                }
                let is_first = delivered.insert((service.clone(), sha));
                match (is_merge, is_first, at <= end(change)) {
                    (true, ..) => omit("merge_commit"),
                    (_, false, _) => omit("delivered_before"),
                    (.., false) => omit("committed_after"),
                    _ if counts => times.push(end(change).duration_since(at).as_secs()),
                    _ => {}
                }
            }
            if self.commits(&service, &version).is_empty() {
                omit("no_commit_time");
            } else if skipped.is_none() {
                omit("order_unknown");
            }
        }
        left_out.retain(|_, n| *n > 0);
        (times, left_out)
    }

    /// The versions that went live with a change besides its own. `None` if the order is unknown.
    fn skipped(&self, change: &Value) -> Option<Vec<String>> {
        let service = text(change, "service");
        let all = &self.ledger.deployments;
        let Some(previous) = all.iter().find(|it| it["id"] == change["previous_id"]) else {
            return Some(vec![]);
        };
        let after = self.order(&service, &text(previous, "version"))?;
        let until = self.order(&service, &text(change, "version"))?;
        let mut between: Vec<_> = (0..VERSIONS)
            .map(|n| n.to_string())
            .filter_map(|version| Some((self.order(&service, &version)?, version)))
            .filter(|(at, _)| after < *at && *at <= until)
            .collect();
        between.sort();
        Some(between.into_iter().map(|(_, version)| version).collect())
    }

    /// The figures in the form of the API.
    fn figures(&self) -> Value {
        let newest =
            |of: Vec<&Value>| of.iter().rev().map(|it| it["id"].clone()).collect::<Vec<_>>();
        let changes: Vec<_> = self.inside().filter(|it| is_change(it)).collect();
        let live: Vec<_> = self.inside().filter(|it| is_live(it)).collect();
        let rework = |it: &&Value| it["kind"] == "hotfix" || it["kind"] == "rollback";
        let rework: Vec<_> = live.iter().copied().filter(rework).collect();
        let judged = |it: &&Value| is_change(it) || !self.caused_by(it).is_empty();
        let judged = self.inside().filter(judged).count();
        let failures = self.failures();
        let recoveries: Vec<i64> = failures.iter().filter_map(|(_, seconds)| *seconds).collect();
        let (lead_times, left_out) = self.lead_times();
        json!({
            "deployment_frequency": {"n": changes.len(), "deployments": newest(changes)},
            "change_lead_time": {"n": lead_times.len(), "left_out": left_out,
                "p50_seconds": percentile(&lead_times, 50),
                "p90_seconds": percentile(&lead_times, 90)},
            "change_fail_rate": {"n": judged, "failed": failures.len(),
                "deployments": newest(failures.iter().map(|(failed, _)| *failed).collect())},
            "failed_deployment_recovery_time": {"n": recoveries.len(),
                "p50_seconds": percentile(&recoveries, 50),
                "p90_seconds": percentile(&recoveries, 90)},
            "deployment_rework_rate": {"n": live.len(), "deployments": newest(rework)},
        })
    }
}

/// The same fields of what the API answers.
fn same_fields(measures: &Value) -> Value {
    let ids = |measure: &str| {
        let deployments = measures[measure]["deployments"].as_array().unwrap();
        deployments.iter().map(|it| it["id"].clone()).collect::<Vec<_>>()
    };
    let left_out: BTreeMap<_, _> = measures["change_lead_time"]["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|omission| (text(omission, "reason"), omission["n"].clone()))
        .collect();
    let of = |measure: &str, fields: &[&str]| {
        let mut some: serde_json::Map<_, _> = fields
            .iter()
            .map(|field| ((*field).to_owned(), measures[measure][field].clone()))
            .collect();
        match measure {
            "change_lead_time" => some.insert("left_out".into(), json!(left_out)),
            "failed_deployment_recovery_time" => None,
            _ => some.insert("deployments".into(), json!(ids(measure))),
        };
        Value::Object(some)
    };
    json!({
        "deployment_frequency": of("deployment_frequency", &["n"]),
        "change_lead_time": of("change_lead_time", &["n", "p50_seconds", "p90_seconds"]),
        "change_fail_rate": of("change_fail_rate", &["n", "failed"]),
        "failed_deployment_recovery_time":
            of("failed_deployment_recovery_time", &["n", "p50_seconds", "p90_seconds"]),
        "deployment_rework_rate": of("deployment_rework_rate", &["n"]),
    })
}

fn measures_are_what_a_recount_gives(app: &TestApp) {
    let mut dice = Dice(20_260_204);
    let ledger = record(app, &mut dice);
    let around = SignedDuration::from_hours(30 * 24);
    let mut counted = 0;
    for n in 0..40 {
        let from = -1000 + dice.roll(1500) as i64;
        let (since, until) = (hour(from), hour(from + dice.pick(&[100, 800, 3000])));
        let service = (n % 3 == 0).then(|| *dice.pick(&SERVICES));
        let environment = (n % 4 == 0).then(|| *dice.pick(&ENVIRONMENTS));
        let is_asked = |it: &&Value| {
            service.is_none_or(|service| it["service"] == service)
                && environment.is_none_or(|environment| it["environment"] == environment)
                && since - around <= end(it)
                && end(it) < until + around
        };
        let all = ledger.deployments.iter().filter(is_asked).collect();
        let expected = Question { ledger: &ledger, all, since, until }.figures();
        let mut query = format!("since={since}&until={until}&limit=100");
        service.iter().for_each(|service| query += &format!("&service={service}"));
        environment.iter().for_each(|environment| query += &format!("&environment={environment}"));
        let measures = app.get(&format!("/v1/metrics/dora?{query}")).expect(200);
        assert_eq!(same_fields(&measures), expected, "{query}");
        counted += measures["change_lead_time"]["n"].as_u64().unwrap();
        counted += measures["failed_deployment_recovery_time"]["n"].as_u64().unwrap();
    }
    assert!(counted > 100, "a history in which nothing happens: {counted}");
}
