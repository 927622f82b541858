//! What happened without passing the gate gives no rights later. Random stories in which somebody
//! who may deploy and attest, and nothing else, does whatever these keys allow, beside people who
//! approve some images: no start of an image that nobody approved passes a gate that asks for
//! approval, and nothing is seasoned before its time.

use crate::gate::{in_minutes, path, with};
use crate::harness::{Answer, TestApp, digest};
use crate::sequences::Dice;
use serde_json::{Value, json};
use std::collections::BTreeSet;

crate::on_both_databases! {
    what_was_never_approved_never_passes_the_gate
}

/// `RIGHTS_STORIES=500` runs as many.
fn stories() -> u64 {
    std::env::var("RIGHTS_STORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}
const STEPS: usize = 50;

/// The images that the approver finds good. Of the others there are as many.
const GOOD: [u8; 2] = [1, 2];
const EVIL: [u8; 2] = [8, 9];

/// The environments that ask for something, each with what it asks for. Nothing is asked in
/// staging, so everything may get seasoned there, which takes longer than this test.
fn environments() -> [Value; 4] {
    [
        json!({"slug": "staging", "tier": "staging"}),
        json!({"slug": "production", "tier": "production", "required_approvals": 1}),
        json!({"slug": "canary", "tier": "staging", "required_approvals": 1}),
        json!({"slug": "vault", "tier": "production", "predecessor": "staging",
            "soak_minutes": 60}),
    ]
}

/// Whose keys these are.
struct Keys {
    deployer: String,
    attester: String,
    approver: String,
}

/// What the stories have covered: stories in which nothing happens prove nothing.
#[derive(Default, Debug)]
struct Coverage {
    gated: usize,
    ungated: usize,
    exempt: usize,
    refused: BTreeSet<String>,
}

fn what_was_never_approved_never_passes_the_gate(app: &TestApp) {
    for environment in environments() {
        app.post("/v1/environments", environment).expect(201);
    }
    let keys = Keys {
        deployer: app.key("deployer", &["read", "deploy"]),
        attester: app.key("attester", &["read", "attest"]),
        approver: app.key("approver", &["read", "approve"]),
    };
    let mut coverage = Coverage::default();
    for seed in 1..=stories() {
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let service = format!("service-{seed}");
        let mut story = Story { app, keys: &keys, dice, service, ..Story::new(app, &keys) };
        for step in 0..STEPS {
            let Some(answer) = story.act() else { continue };
            let at = format!("story {seed}, step {step}");
            assert!(
                matches!(answer.status, 200 | 201 | 403 | 404 | 409 | 422),
                "{at}: {}",
                answer.text
            );
            if answer.status >= 400 {
                coverage.refused.insert(answer.json()["code"].as_str().unwrap().to_owned());
            }
            story.check(&mut coverage, &at);
        }
    }
    let created = app.all("/v1/environments");
    let is_production = |one: &&Value| one["tier"] == "production";
    assert_eq!(created.iter().filter(is_production).count(), 2, "{created:?}");
    println!("{coverage:?}");
    // For each story: a start that the gate allowed, and one that it did not.
    let least = usize::try_from(stories()).unwrap();
    assert!(coverage.gated >= least && coverage.ungated >= least, "{coverage:?}");
    assert!(coverage.exempt >= least / 10, "{coverage:?}");
    for code in ["gate_blocked", "missing_scope", "release_conflict", "invalid_transition"] {
        assert!(coverage.refused.contains(code), "{coverage:?}");
    }
}

/// One service with its own history.
struct Story<'a> {
    app: &'a TestApp,
    keys: &'a Keys,
    dice: Dice,
    service: String,
    /// The deployments of the service, the newest first.
    deployments: Vec<Value>,
    /// Which start of which deployment was checked.
    checked: BTreeSet<(String, String)>,
    /// What was approved: an environment and an image, or none.
    approved: BTreeSet<(String, Option<String>)>,
}

impl<'a> Story<'a> {
    fn new(app: &'a TestApp, keys: &'a Keys) -> Self {
        Self {
            app,
            keys,
            dice: Dice(1),
            service: String::new(),
            deployments: Vec::new(),
            checked: BTreeSet::new(),
            approved: BTreeSet::new(),
        }
    }

    fn send(&self, key: &str, method: &str, path: &str, body: Value) -> Option<Answer> {
        Some(self.app.call(method, path, key, Some(&body), &[]))
    }

    fn version(&mut self) -> Value {
        json!(format!("1.{}", self.dice.roll(4)))
    }

    fn environment(&mut self) -> Value {
        let names = ["production", "production", "canary", "vault", "staging", "staging"];
        match self.dice.roll(30) {
            0 => json!(*self.dice.pick(&["eu-prod", "anna"])),
            _ => json!(*self.dice.pick(&names)),
        }
    }

    /// An image, good or evil, or none.
    fn image(&mut self) -> Value {
        let images = [GOOD, EVIL].concat();
        match self.dice.roll(3) {
            0 => Value::Null,
            _ => json!(digest(*self.dice.pick(&images))),
        }
    }

    /// When something happened, if that is said.
    fn time(&mut self) -> Value {
        match self.dice.roll(6) {
            0 => json!("2026-01-01T00:00:00Z"),
            1 => json!(in_minutes(-90)),
            2 => json!(in_minutes(-1)),
            _ => Value::Null,
        }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.dice.roll(n) == 0
    }

    /// The open incidents and freezes of the service.
    fn open(&self, what: &str) -> Vec<Value> {
        let all = self.app.all(&format!("/v1/{what}?open=true"));
        all.into_iter().filter(|one| one["service"] == *self.service).collect()
    }

    /// Does something; `None` where there is nothing to do it to.
    fn act(&mut self) -> Option<Answer> {
        match self.dice.roll(24) {
            0..=4 => self.observe(),
            5..=9 => self.ask(),
            10..=13 => self.transition(),
            14 => self.record_release(),
            15 => self.scan(),
            16 => self.approve("production"),
            17 => self.approve("canary"),
            18..=22 => self.go_live(),
            _ => self.operate(),
        }
    }

    /// A deployment of anything to anywhere, as both kinds of request have it.
    fn deployment(&mut self) -> Value {
        let mut body = json!({"service": self.service, "environment": self.environment(),
            "version": self.version(), "image_digest": null, "rollback": self.one_in(4),
            "create_missing": !self.one_in(8)});
        if self.one_in(3) {
            body["image_digest"] = self.image();
        }
        if self.one_in(6) {
            body["external_id"] = json!(format!("{} {}", self.service, self.dice.roll(3)));
        }
        if self.one_in(6) {
            body["requested_by"] = json!(*self.dice.pick(&["approver", "dana"]));
        }
        if self.one_in(4) {
            let incidents = self.open("incidents");
            body["fixes"] = self.dice.any(&incidents).map_or(Value::Null, |one| one["id"].clone());
        }
        body
    }

    fn observe(&mut self) -> Option<Answer> {
        let state = *self.dice.pick(&["succeeded", "succeeded", "succeeded", "running", "failed"]);
        let at = self.time();
        let finished_at = if state == "running" { Value::Null } else { self.time() };
        let more = json!({"state": state, "at": at, "finished_at": finished_at});
        let body = with(self.deployment(), more);
        self.send(&self.keys.deployer, "POST", "/v1/deployments", body)
    }

    fn ask(&mut self) -> Option<Answer> {
        let mut body = with(self.deployment(), json!({"start": !self.one_in(4)}));
        if self.one_in(2) {
            // Back to something that was live.
            let live: Vec<_> = self.deployments.iter().filter(|one| is_former(one)).collect();
            if let Some(former) = live.get(self.dice.roll(live.len().max(1))) {
                let names = json!({"version": former["version"], "rollback": true,
                    "environment": former["environment"]});
                body = with(body, names);
            }
        } else if self.one_in(6) {
            body = with(body, json!({"version": null, "rollback": true}));
        }
        self.send(&self.keys.deployer, "POST", "/v1/deployments", body)
    }

    fn transition(&mut self) -> Option<Answer> {
        let open = |one: &&Value| one["finished_at"].is_null();
        let open: Vec<_> = self.deployments.iter().filter(open).cloned().collect();
        let deployment = match self.one_in(8) {
            true => self.dice.any(&self.deployments)?,
            false => self.dice.any(&open)?,
        };
        let to = *self.dice.pick(&["running", "succeeded", "succeeded", "failed", "cancelled"]);
        let mut body = json!({"to": to, "observed": self.one_in(3)});
        if body["observed"] == true {
            body["at"] = self.time();
        }
        let path = format!("{}/transitions", path(&deployment));
        self.send(&self.keys.deployer, "POST", &path, body)
    }

    fn record_release(&mut self) -> Option<Answer> {
        let body = json!({"service": self.service, "version": self.version(),
            "image_digest": self.image(), "create_missing": true});
        self.send(&self.keys.deployer, "POST", "/v1/releases", body)
    }

    fn releases(&self) -> Vec<Value> {
        self.app.all(&format!("/v1/releases?service={}", self.service))
    }

    fn scan(&mut self) -> Option<Answer> {
        let release = self.dice.any(&self.releases())?;
        let body = json!({"tool": "none", "status": "passed", "at": self.time()});
        let path = format!("/v1/releases/{}/scan", release["id"].as_str()?);
        self.send(&self.keys.attester, "PUT", &path, body)
    }

    /// The approver looks at the image. Where none is needed, it may be missing.
    fn approve(&mut self, environment: &str) -> Option<Answer> {
        let is_good = |release: &&Value| match release["image_digest"].as_str() {
            Some(image) => GOOD.map(digest).contains(&image.to_owned()),
            None => environment == "canary",
        };
        let good: Vec<_> = self.releases().iter().filter(is_good).cloned().collect();
        let release = self.dice.any(&good)?;
        let body = json!({"service": self.service, "environment": environment,
            "version": release["version"], "decision": "approved"});
        let answer = self.send(&self.keys.approver, "POST", "/v1/approvals", body)?;
        if answer.status == 201 {
            let image = answer.json()["image_digest"].as_str().map(str::to_owned);
            self.approved.insert((environment.to_owned(), image));
        }
        Some(answer)
    }

    /// A deployment as it should be: approved, started and reported.
    fn go_live(&mut self) -> Option<Answer> {
        let environment = *self.dice.pick(&["production", "canary"]);
        for running in self.deployments.iter().filter(|one| one["state"] == "running") {
            self.report(running, "failed")?;
        }
        let approval = self.approve(environment)?;
        if approval.status != 201 {
            return Some(approval);
        }
        let approval = approval.json();
        let releases = self.releases();
        let release = releases.iter().find(|one| one["id"] == approval["release_id"])?;
        let body = json!({"service": self.service, "environment": environment,
            "version": release["version"], "start": true});
        let started = self.send(&self.keys.deployer, "POST", "/v1/deployments", body)?;
        if started.status == 201 {
            self.report(&started.json(), "succeeded")
        } else {
            Some(started)
        }
    }

    /// Reports how a deployment ended.
    fn report(&self, deployment: &Value, to: &str) -> Option<Answer> {
        let path = format!("{}/transitions", path(deployment));
        self.send(&self.keys.deployer, "POST", &path, json!({"to": to}))
    }

    /// Freezes and incidents, and their ends, by somebody who may.
    fn operate(&mut self) -> Option<Answer> {
        for (what, end) in [("freezes", "ended"), ("incidents", "resolved")] {
            if let Some(one) = self.open(what).first() {
                let path = format!("/v1/{what}/{}", one["id"].as_str()?);
                return Some(self.app.patch(&path, json!({end: true}), &[]));
            }
        }
        let what = *self.dice.pick(&["freezes", "incidents"]);
        let body = match what {
            "freezes" => json!({"service": self.service, "reason": "Quarter end"}),
            _ => json!({"service": self.service, "environment": "production", "title": "Down",
                "severity": "major"}),
        };
        Some(self.app.post(&format!("/v1/{what}"), body))
    }

    /// Whatever was done: what has started without being flagged was allowed to.
    fn check(&mut self, coverage: &mut Coverage, at: &str) {
        self.deployments = self.app.all(&format!("/v1/deployments?service={}", self.service));
        for one in self.deployments.iter().filter(|one| !one["started_at"].is_null()) {
            let id = one["id"].as_str().unwrap().to_owned();
            if !self.checked.insert((id, one["started_at"].as_str().unwrap().to_owned())) {
                continue;
            }
            let environment = one["environment"].as_str().unwrap();
            if one["ungated"] == true {
                coverage.ungated += 1;
                continue;
            }
            assert_ne!(environment, "vault", "{at}: nothing has soaked: {one}");
            if !["production", "canary"].contains(&environment) {
                continue;
            }
            coverage.gated += 1;
            let decision = &self.app.get(&path(one)).expect(200)["decision"];
            let needed_none = |exemption: &Value| exemption["code"] == "approval_missing";
            let exemptions = decision["exemptions"].as_array().unwrap();
            coverage.exempt += usize::from(exemptions.iter().any(needed_none));
            let image = &decision["facts"]["release"]["image_digest"];
            let started = (environment.to_owned(), image.as_str().map(str::to_owned));
            assert!(
                self.approved.contains(&started),
                "{at}: {image} was never approved for {environment}, and passed: {one} {decision}"
            );
        }
    }
}

/// Whether this was live, and is not.
fn is_former(deployment: &Value) -> bool {
    ["superseded", "rolled_back"].contains(&deployment["state"].as_str().unwrap_or_default())
}
