//! Long random sequences of everything that can happen, and what holds after every step of them.

use crate::gate::{in_minutes, path, person, production, release, sql};
use crate::harness::{Answer, TestApp};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

crate::on_both_databases! {
    the_gate_keeps_its_promises_in_every_order
}

/// Each seed is one sequence, the same each time.
const SEEDS: [u64; 3] = [1, 20_260_203, 0x9e37_79b9_7f4a_7c15];
const STEPS: usize = 200;
/// After so many steps there are new releases, and nothing stands in their way: else everything
/// ends in a freeze.
const CHAPTER: usize = 25;

/// Numbers that look random: a xorshift generator.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.roll(choices.len())]
    }

    /// One of what there is, if there is any.
    pub fn any(&mut self, choices: &[Value]) -> Option<Value> {
        (!choices.is_empty()).then(|| self.pick(choices).clone())
    }
}

/// What a sequence has covered: a sequence in which nothing happens proves nothing.
#[derive(Default)]
struct Coverage {
    consumed: HashMap<String, Value>,
    gated: BTreeSet<String>,
    ungated: BTreeSet<String>,
    blocked: BTreeSet<String>,
}

fn the_gate_keeps_its_promises_in_every_order(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    production(app, json!({"required_approvals": 1, "rollback_needs_approval": true}));
    let people = ["alice", "bob", "carol"].map(|name| person(app, name));
    let mut coverage = Coverage::default();
    for seed in SEEDS {
        let mut dice = Dice(seed);
        let mut releases = Vec::new();
        for step in 0..STEPS {
            if step % CHAPTER == 0 {
                clear(app);
                releases.extend((0..2).map(|n| release(app, &format!("{seed}.{step}.{n}"))));
            }
            let latest = &releases[releases.len().saturating_sub(3)..];
            let Some(answer) = act(app, &mut dice, &people, latest) else { continue };
            assert!(
                matches!(answer.status, 200 | 201 | 403 | 409 | 422),
                "seed {seed}, step {step}: {}",
                answer.text
            );
            if answer.status == 409 && answer.json()["code"] == "gate_blocked" {
                coverage
                    .blocked
                    .extend(crate::gate::codes(&answer.json()).iter().map(ToString::to_string));
            }
            check(app, &mut coverage, &format!("seed {seed}, step {step}"));
        }
    }
    assert!(
        coverage.gated.len() >= 20 && coverage.ungated.len() >= 5 && coverage.consumed.len() >= 8,
        "{} {} {}",
        coverage.gated.len(),
        coverage.ungated.len(),
        coverage.consumed.len()
    );
    let usual = [
        "approval_expired",
        "approval_missing",
        "approval_rejected",
        "deployment_running",
        "frozen",
        "open_incident",
        "scan_missing",
    ];
    assert!(usual.iter().all(|code| coverage.blocked.contains(*code)), "{:?}", coverage.blocked);
}

/// Ends what keeps deployments back.
fn clear(app: &TestApp) {
    for freeze in app.all("/v1/freezes?open=true") {
        app.patch(
            &format!("/v1/freezes/{}", freeze["id"].as_str().unwrap()),
            json!({"ended": true}),
            &[],
        )
        .expect(200);
    }
    for incident in app.all("/v1/incidents?open=true") {
        app.patch(
            &format!("/v1/incidents/{}", incident["id"].as_str().unwrap()),
            json!({"resolved": true}),
            &[],
        )
        .expect(200);
    }
    for running in app.all("/v1/deployments?state=running") {
        app.transition(&running, "succeeded").expect(200);
    }
    app.patch(
        "/v1/environments/production",
        json!({"require_scan": false, "predecessor": null, "rollback_needs_approval": true}),
        &[],
    )
    .expect(200);
}

/// Does something; `None` where there is nothing to do it to.
fn act(app: &TestApp, dice: &mut Dice, people: &[String; 3], releases: &[Value]) -> Option<Answer> {
    let key = dice.pick(people).clone();
    let environment = *dice.pick(&["production", "production", "staging"]);
    let release = dice.pick(releases).clone();
    let version = release["version"].clone();
    let place = json!({"service": "checkout", "environment": environment});
    let send = |path: &str, body: Value| app.call("POST", path, &key, Some(&body), &[]);
    let with = |more: Value| crate::gate::with(place.clone(), more);
    let deployments = |state: &str| app.all(&format!("/v1/deployments?state={state}"));
    let transition = |deployment: Value, body: Value| {
        Some(send(&format!("{}/transitions", path(&deployment)), body))
    };
    let patch = |path: String, body: Value| Some(app.patch(&path, body, &[]));
    match dice.roll(24) {
        0 | 1 => Some(send("/v1/deployments", with(json!({"version": version})))),
        2 | 3 => Some(send("/v1/deployments", with(json!({"version": version, "start": true})))),
        4 => Some(send(
            "/v1/deployments",
            with(json!({"version": version, "observed": dice.roll(2) == 0})),
        )),
        5 => Some(send("/v1/deployments", with(json!({"rollback": true, "start": true})))),
        6 | 7 => {
            let waiting = [deployments("approved"), deployments("awaiting_approval")].concat();
            transition(dice.any(&waiting)?, json!({"to": "running", "observed": dice.roll(8) == 0}))
        }
        8..=10 | 22 => transition(
            dice.any(&deployments("running"))?,
            json!({"to": dice.pick(&["succeeded", "succeeded", "failed", "cancelled"])}),
        ),
        11..=14 => {
            let waiting = dice.any(&deployments("awaiting_approval")).filter(|_| dice.roll(2) == 0);
            let version = waiting.map_or(version, |waiting| waiting["version"].clone());
            let approval =
                json!({"environment": "production", "version": version, "decision": "approved"});
            Some(send("/v1/approvals", with(approval)))
        }
        15 if dice.roll(2) == 0 => {
            Some(send("/v1/approvals", with(json!({"version": version, "decision": "rejected"}))))
        }
        15 if dice.roll(2) == 0 => None,
        15 => {
            sql(
                app,
                &format!(
                    "UPDATE approvals SET expires_at = '{}' WHERE consumed_by IS NULL",
                    in_minutes(-1)
                ),
            );
            None
        }
        16 if dice.roll(4) == 0 => {
            Some(app.post(
                "/v1/freezes",
                json!({"reason": "Night", "allow_rollback": dice.roll(2) == 0}),
            ))
        }
        16 | 17 => {
            let freeze = dice.any(&app.all("/v1/freezes?open=true"))?;
            patch(format!("/v1/freezes/{}", freeze["id"].as_str()?), json!({"ended": true}))
        }
        18 => {
            let freeze = dice.any(&app.all("/v1/freezes?open=true"))?;
            let path = format!("/v1/freezes/{}/overrides", freeze["id"].as_str()?);
            Some(app.post(&path, with(json!({"version": version, "reason": "Payments are down."}))))
        }
        19 => match dice.any(&app.all("/v1/incidents?open=true")) {
            Some(incident) if dice.roll(4) == 0 => {
                let fix = json!({"version": version, "fixes": incident["id"], "start": true});
                Some(send("/v1/deployments", with(fix)))
            }
            Some(incident) => patch(
                format!("/v1/incidents/{}", incident["id"].as_str()?),
                json!({"resolved": true}),
            ),
            None if dice.roll(3) > 0 => None,
            None => Some(app.post(
                "/v1/incidents",
                with(json!({"title": "Payments are down", "severity": "major"})),
            )),
        },
        20 | 21 => {
            let scan = json!({"tool": "trivy 0.66", "summary": {"high": dice.roll(4) / 3}});
            Some(app.put(&format!("/v1/releases/{}/scan", release["id"].as_str()?), scan))
        }
        _ => {
            let policy = match dice.roll(5) {
                0 => json!({"required_approvals": 1 + dice.roll(2)}),
                1 => json!({"allow_self_approval": dice.roll(3) == 0}),
                2 => {
                    json!({"predecessor": dice.pick(&[json!(null), json!(null), json!(null),
                        json!("staging")])})
                }
                3 => json!({"require_scan": dice.roll(2) == 0}),
                _ => json!({"rollback_needs_approval": dice.roll(3) > 0}),
            };
            Some(app.patch("/v1/environments/production", policy, &[]))
        }
    }
}

/// What holds whatever was done.
fn check(app: &TestApp, coverage: &mut Coverage, at: &str) {
    let approvals = app.all("/v1/approvals");
    for approval in approvals.iter().filter(|approval| !approval["consumed_by"].is_null()) {
        let by = coverage
            .consumed
            .entry(approval["id"].as_str().unwrap().into())
            .or_insert_with(|| approval["consumed_by"].clone());
        assert_eq!(*by, approval["consumed_by"], "{at}: an approval is used up once");
    }
    let running = app.all("/v1/deployments?state=running");
    let places: BTreeSet<_> =
        running.iter().map(|deployment| deployment["environment"].as_str().unwrap()).collect();
    assert_eq!(places.len(), running.len(), "{at}: one runs in a place");
    for deployment in running.iter().chain(&app.all("/v1/deployments?state=succeeded")) {
        let deployment = app.get(&path(deployment)).expect(200);
        let id = deployment["id"].as_str().unwrap().to_owned();
        let (decision, is_ungated) = (&deployment["decision"], deployment["ungated"] == true);
        assert_eq!(decision["allowed"], !is_ungated, "{at}: {deployment}");
        assert_eq!(decision["facts"]["step"], "start", "{at}: {deployment}");
        if is_ungated {
            coverage.ungated.insert(id);
            continue;
        }
        coverage.gated.insert(id);
        let policy = &decision["facts"]["policy"];
        let is_free =
            decision["facts"]["is_rollback"] == true && policy["rollback_needs_approval"] == false;
        assert!(
            decision["facts"]["is_rollback"] == false
                || deployment["kind"] == "rollback" && deployment["rollback"] == true,
            "{at}: {deployment}"
        );
        let approvers: BTreeSet<_> = approvals
            .iter()
            .filter(|approval| {
                approval["consumed_by"] == deployment["id"] && approval["decision"] == "approved"
            })
            .map(|approval| approval["approver"].as_str().unwrap())
            .filter(|approver| {
                policy["allow_self_approval"] == true || *approver != deployment["requested_by"]
            })
            .collect();
        let required = if is_free { 0 } else { policy["required_approvals"].as_u64().unwrap() };
        assert!(
            approvers.len() as u64 >= required,
            "{at}: {approvers:?} of {required} for {deployment}"
        );
    }
}
