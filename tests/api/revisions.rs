//! Every change of a resource has its revision and its event: a client that sends `If-None-Match`
//! misses nothing, and neither does a reader of the history.

use crate::harness::{Answer, TestApp, count, digest, new_deployment, sha, with};
use serde_json::{Value, json};
use std::collections::BTreeMap;

crate::on_both_databases! {
    what_a_release_adds_changes_its_deployments
    what_a_start_uses_up_is_in_the_history
    a_known_tag_is_a_known_body_after_every_step
}

fn path(deployment: &Value) -> String {
    format!("/v1/deployments/{}", deployment["id"].as_str().unwrap())
}

/// The events of a deployment with this action, the oldest first.
fn events(app: &TestApp, deployment: &Value, action: &str) -> Vec<Value> {
    let mut found = app.all(&format!("{}/events", path(deployment)));
    found.reverse();
    found.retain(|event| event["action"] == action);
    found
}

fn unchanged(app: &TestApp, path: &str, tag: &str) -> bool {
    let answer = app.call("GET", path, crate::harness::ADMIN, None, &[("If-None-Match", tag)]);
    assert!(matches!(answer.status, 200 | 304), "{}", answer.text);
    answer.status == 304
}

fn what_a_release_adds_changes_its_deployments(app: &TestApp) {
    let place = json!({"service": "shop", "environment": "staging", "version": "1", "create_missing": true});
    let deployment = app.post("/v1/deployments", place).expect(201);
    let path = path(&deployment);
    assert!(unchanged(app, &path, "\"1\""));
    let add = |more: Value| {
        app.post("/v1/releases", with(json!({"service": "shop", "version": "1"}), more))
            .expect(200);
    };
    add(json!({"image_digest": digest(1)}));
    assert!(!unchanged(app, &path, "\"1\""));
    let now = app.get(&path);
    assert_eq!((now.header("etag"), &now.json()["image_digest"]), ("\"2\"", &digest(1).into()));
    // What changes nothing has neither.
    add(json!({"image_digest": digest(1)}));
    add(json!({"source_url": "https://example.org/1"}));
    assert!(unchanged(app, &path, "\"2\""));
    add(json!({"git_sha": sha(2)}));
    let now = app.get(&path);
    assert_eq!((now.header("etag"), &now.json()["git_sha"]), ("\"3\"", &sha(2).into()));
    let completed: Vec<_> = events(app, &deployment, "deployment.completed")
        .into_iter()
        .map(|event| event["payload"].clone())
        .collect();
    let expected = [
        json!({"git_sha": null, "image_digest": digest(1), "before_commit": false}),
        json!({"git_sha": sha(2), "image_digest": digest(1), "before_commit": false}),
    ];
    assert_eq!(completed, expected);
}

fn what_a_start_uses_up_is_in_the_history(app: &TestApp) {
    let policy = json!({"slug": "production", "tier": "production", "required_approvals": 1,
        "allow_self_approval": true});
    app.post("/v1/environments", policy).expect(201);
    let deployment =
        app.post("/v1/deployments", new_deployment("shop", "production", "1")).expect(201);
    let place = json!({"service": "shop", "environment": "production", "version": "1"});
    let review = with(place.clone(), json!({"decision": "approved"}));
    let approval = app.post("/v1/approvals", review).expect(201);
    let freeze =
        json!({"environment": "production", "reason": "Sale", "starts_at": "2026-01-01T00:00:00Z"});
    let freeze = app.post("/v1/freezes", freeze).expect(201);
    let overridden = app
        .post(
            &format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap()),
            with(place, json!({"reason": "Urgent"})),
        )
        .expect(201);
    app.transition(&deployment, "running").expect(200);
    let used = json!({"approvals": [approval["id"]], "overrides": [overridden["id"]]});
    let consumed = events(app, &deployment, "deployment.consumed");
    assert_eq!((consumed.len(), &consumed[0]["payload"]), (1, &used));
    let started = events(app, &deployment, "deployment.started");
    let decision = &started[0]["payload"]["decision"];
    assert_eq!((&decision["allowed"], decision.get("facts")), (&json!(true), None), "{decision}");

    app.transition(&deployment, "failed").expect(200);
    app.post(&format!("{}/void", path(&deployment)), json!({"reason": "Nothing ran"})).expect(200);
    let reverted = events(app, &deployment, "deployment.consumption_reverted");
    assert_eq!((reverted.len(), &reverted[0]["payload"]), (1, &used));
    // One that used up nothing has no such event.
    let other = app.go_live("shop", "staging", "1");
    app.post(&format!("{}/void", path(&other)), json!({"reason": "Nothing ran"})).expect(200);
    for action in ["deployment.consumed", "deployment.consumption_reverted"] {
        assert_eq!(events(app, &other, action), [Value::Null; 0]);
    }
}

/// Numbers that look random: a xorshift generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.roll(choices.len())]
    }
}

const STEPS: usize = 160;

/// What is known of a resource: its tag, its body, and how many events are about it.
type Known = BTreeMap<String, (String, String, i64)>;

fn a_known_tag_is_a_known_body_after_every_step(app: &TestApp) {
    for environment in ["staging", "production"] {
        let body = json!({"slug": environment, "tier": environment, "allow_self_approval": true,
            "required_approvals": i32::from(environment == "production")});
        app.post("/v1/environments", body).expect(201);
    }
    let (mut dice, mut known) = (Dice(20_260_203), Known::new());
    let (mut db, mut changes) = (app.db(), BTreeMap::<String, usize>::new());
    for step in 0..STEPS {
        let answer = act(app, &mut dice, step);
        assert!(matches!(answer.status, 200 | 201 | 409 | 422), "{step}: {}", answer.text);
        for (path, entity, id) in resources(app) {
            let now = app.get(&path);
            let (tag, text) = (now.header("etag").to_owned(), now.text.clone());
            let events =
                count(&mut db, &format!("events WHERE entity = '{entity}' AND entity_id = '{id}'"));
            let before = known.insert(path.clone(), (tag.clone(), text.clone(), events));
            let Some((old_tag, old_text, old_events)) = before else { continue };
            let context =
                format!("step {step}, {path}:\n{old_text}\n{text}\nafter {}", answer.text);
            assert_eq!(unchanged(app, &path, &old_tag), text == old_text, "{context}");
            assert_eq!(events > old_events, text != old_text, "an event per change: {context}");
            *changes.entry(entity.to_owned()).or_default() += usize::from(text != old_text);
        }
    }
    let least = [("deployment", 15), ("release", 6), ("incident", 3), ("freeze", 3)];
    for (entity, least) in least {
        assert!(changes[entity] >= least, "{changes:?}");
    }
}

/// The newest resources of each kind: path, entity and identifier.
fn resources(app: &TestApp) -> Vec<(String, &'static str, String)> {
    let mut found = Vec::new();
    for (list, entity, key) in [
        ("deployments", "deployment", "id"),
        ("releases", "release", "id"),
        ("freezes", "freeze", "id"),
        ("incidents", "incident", "id"),
        ("environments", "environment", "slug"),
        ("services", "service", "slug"),
    ] {
        let page = app.get(&format!("/v1/{list}?limit=6")).expect(200);
        for item in page["items"].as_array().unwrap() {
            let id = item[key].as_str().unwrap().to_owned();
            found.push((format!("/v1/{list}/{id}"), entity, id));
        }
    }
    found
}

/// Does something that may change several resources at once.
fn act(app: &TestApp, dice: &mut Dice, step: usize) -> Answer {
    let environment = *dice.pick(&["staging", "staging", "production"]);
    let version = format!("{}.{}", step / 40, dice.roll(3));
    let place = json!({"service": "shop", "environment": environment});
    let newest = |list: &str| {
        let page = app.get(&format!("/v1/{list}?limit=5")).expect(200);
        page["items"].as_array().unwrap().clone()
    };
    let any = |dice: &mut Dice, list: &str| {
        let items = newest(list);
        (!items.is_empty()).then(|| dice.pick(&items).clone())
    };
    let minutes = dice.roll(50_000);
    let at =
        format!("2026-{:02}-{:02}T{:02}:00:00Z", 1 + minutes % 2, 1 + minutes % 28, minutes % 24);
    let (releases, deployments) = ("/v1/releases", "/v1/deployments");
    let of_release = json!({"service": "shop", "version": version});
    let roll = dice.roll(16);
    match (roll, any(dice, "deployments")) {
        (0..=3, _) | (_, None) => {
            let more = json!({"version": version, "create_missing": true, "start": roll == 0});
            app.post(deployments, with(place, more))
        }
        (4, _) => {
            let state = *dice.pick(&["running", "succeeded", "failed"]);
            let more =
                json!({"version": version, "state": state, "at": at, "create_missing": true});
            app.post(deployments, with(place, more))
        }
        (5..=7, Some(deployment)) => {
            let to = *dice.pick(&["running", "running", "succeeded", "failed", "cancelled"]);
            app.transition(&deployment, to)
        }
        (8, _) => app.post(releases, with(of_release, json!({"image_digest": digest(1)}))),
        (9, _) => app.post(releases, with(of_release, json!({"git_sha": sha(1)}))),
        (10, _) => app.post(releases, with(of_release, json!({"committed_at": at}))),
        (11, Some(deployment)) => {
            let body = json!({"service": "shop", "environment": deployment["environment"],
                "version": deployment["version"], "decision": dice.pick(&["approved", "rejected"])});
            app.post("/v1/approvals", body)
        }
        (12, Some(deployment)) => {
            let link = if dice.roll(2) == 0 { "caused_by" } else { "fixed_by" };
            match any(dice, "incidents") {
                Some(incident) if dice.roll(3) > 0 => {
                    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
                    let resolved = dice.roll(2) == 0;
                    app.patch(&path, json!({link: [deployment["id"]], "resolved": resolved}), &[])
                }
                _ => app.post(
                    "/v1/incidents",
                    with(
                        place,
                        json!({"title": "Down", "severity": "major", link: [deployment["id"]]}),
                    ),
                ),
            }
        }
        (13, Some(deployment)) if dice.roll(3) == 0 => {
            app.post(&format!("{}/void", path(&deployment)), json!({"reason": "A mistake"}))
        }
        (14, _) => match any(dice, "freezes") {
            Some(freeze) if freeze["ended_at"].is_null() => {
                let path = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
                app.patch(&path, json!({"ended": true}), &[])
            }
            _ => app.post(
                "/v1/freezes",
                json!({"environment": "production", "reason": "Sale", "starts_at": at}),
            ),
        },
        _ => {
            let path = format!("/v1/environments/{environment}");
            app.patch(&path, json!({"soak_minutes": dice.roll(3)}), &[])
        }
    }
}
