//! The pages of deployments, whose rows PostgreSQL's connection writes as JSON by itself.

use crate::harness::{TestApp, brief, with};
use diesel::prelude::*;
use prop::db::rows::{Listed, LoadListed};
use prop::db::schema::deployments;
use prop::each_backend;
use prop::ledger::deployments::Deployment;
use prop::types::time::Timestamp;
use serde_json::{Value, json};

crate::on_both_databases! {
    a_page_is_what_the_structs_are
    a_page_has_what_is_read_one_by_one
}

const STRANGE: [&str; 6] = [
    "",
    "plain",
    "\"quoted\" and \\ back",
    "\u{1}\t\r\n\u{8}\u{c}\u{1f}\u{7f}",
    "é \u{2028} \u{feff} 😀 </script>",
    "a/b",
];

const TIMES: [&str; 4] = [
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "2024-02-29T12:34:56.000001Z",
    "9999-12-30T21:59:59.1Z",
];

/// Deployments with and without a value in each column that may have none, and with texts of all
/// kinds.
fn record(app: &TestApp) {
    for version in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        app.go_live("checkout", "production", version);
    }
    app.deploy("checkout", "production", "9", false);
    let bare = json!({"service": "checkout", "environment": "staging", "version": "bare",
        "create_missing": true, "git_sha": "0".repeat(40)});
    app.post("/v1/deployments", bare.clone()).expect(201);
    let full = json!({"external_id": "it's \"7\"", "source": "script", "unplanned": true,
        "requested_by": "Zoë", "run_url": "https://ci.example.org/a?b=%22"});
    app.post("/v1/deployments", with(bare, full)).expect(201);
    let mut db = app.db();
    let all: Vec<Deployment> =
        deployments::table.select(Deployment::as_select()).load(&mut db).unwrap();
    for (n, Deployment { id, .. }) in all.into_iter().enumerate() {
        let at: Timestamp = TIMES[n % TIMES.len()].parse().unwrap();
        let changed = (
            deployments::reason.eq((n % 3 > 0).then_some(STRANGE[n % STRANGE.len()])),
            deployments::recorded_by.eq(STRANGE[(n + 3) % STRANGE.len()]),
            deployments::voided_at.eq((n % 2 > 0).then_some(at)),
            deployments::retired_at.eq(Some(at)),
            deployments::ungated.eq(n % 2 > 0),
            deployments::before_commit.eq(n % 3 > 0),
            deployments::revision.eq([0, 1, -1, i32::MAX, i32::MIN][n % 5]),
        );
        diesel::update(deployments::table.find(id)).set(changed).execute(&mut db).unwrap();
    }
}

fn a_page_is_what_the_structs_are(app: &TestApp) {
    let mut db = app.db();
    let mut listed = |most: usize| -> Listed<Deployment> {
        each_backend!(&mut db, |c| {
            let all = deployments::table.select(Deployment::as_select()).order(deployments::id);
            c.load_listed(all, most, "expires_at").unwrap()
        })
    };
    let none = listed(1);
    assert_eq!((&*none.json, none.more, none.rows.len()), (&b"[]"[..], false, 0));
    record(app);
    let mut db = app.db();
    let all: Vec<Deployment> = deployments::table
        .select(Deployment::as_select())
        .order(deployments::id)
        .load(&mut db)
        .unwrap();
    for most in [1, 5, all.len(), 100] {
        let page = &all[..most.min(all.len())];
        let found = listed(most);
        assert_eq!(String::from_utf8(found.json).unwrap(), serde_json::to_string(page).unwrap());
        assert_eq!(found.more, most < all.len());
        assert_eq!(found.rows.last(), page.last());
        let expiring = page.iter().filter(|row| row.expires_at.is_some());
        assert!(expiring.clone().all(|row| found.rows.contains(row)), "{:?}", found.rows);
    }
    assert!(all.iter().any(|row| row.expires_at.is_some()));
}

fn a_page_has_what_is_read_one_by_one(app: &TestApp) {
    record(app);
    let read = |item: &Value| {
        let path = format!("/v1/deployments/{}", item["id"].as_str().unwrap());
        brief(&app.get(&path).expect(200))
    };
    let all = app.all("/v1/deployments");
    assert_eq!(all.len(), 11);
    for item in &all {
        assert_eq!(item, &read(item));
    }
    // By pages of three, which `next` connects.
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let answer = app.get(&format!("/v1/deployments?limit=3{next}"));
        let page = answer.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(answer.text.starts_with(r#"{"items":[{"id":""#), "{}", answer.text);
        paged.extend(items.iter().cloned());
        let Some(cursor) = page["next"].as_str() else { break };
        assert!(answer.header("link").contains(cursor), "{answer:?}");
        assert_eq!(items.len(), 3);
        next = format!("&cursor={cursor}");
    }
    assert_eq!(paged, all);
    assert_eq!(
        app.get("/v1/deployments?service=none").text,
        "{\"items\":[],\"next\":null}\n",
        "an empty page"
    );
}
