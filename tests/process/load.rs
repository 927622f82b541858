//! Clients that record deployments, one after the other, while something happens to prop; and what
//! is kept of them.

use crate::harness::{ADMIN, Answer, TestApp};
use crate::process::wait_for;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients at work, each with a service of its own.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Attempt>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

/// One deployment that a client tried to record.
pub struct Attempt {
    pub body: Value,
    pub sent: Instant,
    pub took: Duration,
    /// `None`: the connection broke before the answer came.
    pub answer: Option<Answer>,
}

impl Attempt {
    /// The name that it gave the deployment, unlike any other.
    pub fn external_id(&self) -> &str {
        self.body["external_id"].as_str().unwrap()
    }

    /// Whether the answer was that it is recorded.
    pub fn is_acknowledged(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.status == 201)
    }
}

impl Load {
    /// Starts clients that spread over these servers, and go on to the next one when theirs is
    /// gone.
    pub fn start(servers: &[&TestApp], clients: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let services: Vec<_> = (0..clients).map(|client| format!("load-{client}")).collect();
        for service in &services {
            // The use of the key is noted beside the first request: a queue of one may be full by
            // that.
            wait_for("a service", || {
                let body = json!({"service": service, "environment": "staging", "version": "1.0.0",
                    "create_missing": true});
                (servers[0].post("/v1/deployments", body).status == 201).then_some(())
            });
        }
        let start = |(client, service): (usize, String)| {
            let servers: Vec<_> = servers.iter().map(|app| app.another()).collect();
            let shared = shared.clone();
            std::thread::spawn(move || shared.work(&servers, client, &service))
        };
        let clients = services.into_iter().enumerate().map(start).collect();
        Self { shared, clients }
    }

    /// Waits until this many more are acknowledged.
    #[track_caller]
    pub fn wait_for_acknowledged(&self, more: usize) {
        let goal = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("acknowledged deployments", || {
            (self.shared.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Waits until this many more are answered with something else, or not at all.
    #[track_caller]
    pub fn wait_for_refused(&self, more: usize) {
        let goal = self.shared.refused.load(Ordering::Relaxed) + more;
        wait_for("refused deployments", || {
            (self.shared.refused.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Lets the clients finish what they have begun.
    pub fn stop(self) -> Vec<Attempt> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

impl Shared {
    fn work(&self, servers: &[TestApp], client: usize, service: &str) -> Vec<Attempt> {
        let (mut attempts, mut at) = (Vec::new(), client);
        while !self.stop.load(Ordering::Relaxed) {
            let external_id = format!("{service}-{}", attempts.len());
            let body = json!({"service": service, "environment": "staging", "version": "1.0.0",
                "external_id": external_id});
            let sent = Instant::now();
            let answer = servers[at % servers.len()]
                .try_call("POST", "/v1/deployments", ADMIN, Some(&body), &[])
                .ok();
            let attempt = Attempt { body, sent, took: sent.elapsed(), answer };
            if attempt.is_acknowledged() {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // Nobody asks again without a pause.
                std::thread::sleep(Duration::from_millis(10));
            }
            if attempt.answer.is_none() {
                at += 1;
            }
            attempts.push(attempt);
        }
        attempts
    }
}

/// Checks that every acknowledged deployment is recorded exactly once, and everything with its
/// event. Returns how often each external id is recorded.
#[track_caller]
pub fn expect_nothing_lost(app: &TestApp, attempts: &[Attempt]) -> HashMap<String, usize> {
    let mut recorded: HashMap<String, usize> = HashMap::new();
    let deployments = all(app, "/v1/deployments?limit=100");
    for deployment in &deployments {
        if let Some(id) = deployment["external_id"].as_str() {
            *recorded.entry(id.to_owned()).or_default() += 1;
        }
    }
    for attempt in attempts.iter().filter(|attempt| attempt.is_acknowledged()) {
        assert_eq!(recorded.get(attempt.external_id()), Some(&1), "{}", attempt.body);
    }
    assert!(recorded.values().all(|count| *count == 1), "{recorded:?}");
    let mut ids: Vec<_> = deployments
        .iter()
        .map(|deployment| deployment["id"].as_str().unwrap().to_owned())
        .collect();
    let events = all(app, "/v1/events?action=deployment.requested&limit=100");
    let mut told: Vec<_> =
        events.iter().map(|event| event["entity_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    told.sort();
    assert_eq!(ids, told, "a deployment without its event, or an event without its deployment");
    recorded
}

/// Every item of a list, page by page.
#[track_caller]
fn all(app: &TestApp, path: &str) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{path}{next}")).expect(200);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => return items,
        }
    }
}
