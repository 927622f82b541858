//! The pages as files: their addresses, caching and security headers. `tests/browser/` tests how
//! they look and behave.

use crate::harness::{ADMIN, Answer, TestApp};
use std::collections::BTreeSet;

crate::on_both_databases! {
    every_page_is_served_without_a_key
    a_page_describes_itself_to_browsers_and_link_previews
    a_page_may_do_nothing_but_run_its_own_scripts
    assets_are_kept_for_good_and_pages_are_not
    only_what_is_linked_is_served_and_all_of_it
    a_page_has_get_only
    an_unknown_address_is_a_page_for_browsers
    browsers_and_crawlers_find_what_they_ask_for
}

const PAGES: [&str; 4] = [
    "/",
    "/deployments/019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42",
    "/services/checkout/environments/production",
    "/dora",
];

fn open(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(app.request("GET", path), |request, (name, value)| request.header(*name, *value));
    app.send(request.body(Vec::new()).unwrap())
}

/// The paths of the assets that a page names.
fn assets(page: &str) -> Vec<String> {
    let paths: BTreeSet<_> =
        page.split('"').filter(|part| part.starts_with("/assets/")).map(str::to_owned).collect();
    assert!(paths.len() > 5, "{page}");
    paths.into_iter().collect()
}

fn every_page_is_served_without_a_key(app: &TestApp) {
    for path in PAGES {
        let page = open(app, path, &[]);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, "text/html; charset=utf-8"),
            "{path}"
        );
        assert_eq!(
            open(app, &format!("{path}?q=checkout"), &[]).text,
            page.text,
            "what is shown is for the scripts"
        );
    }
    for path in [
        "/deployments",
        "/deployments/",
        "/deployments/1",
        "/services/checkout",
        "/services/A/environments/b",
        "/dora/",
        "/index.html",
    ] {
        open(app, path, &[]).expect_problem(404, "not_found");
    }
}

fn a_page_describes_itself_to_browsers_and_link_previews(app: &TestApp) {
    let page = open(app, "/", &[]).text;
    assert!(page.contains(r#"<meta name="description" content="Which version "#), "{page}");
    let style_path = assets(&page).into_iter().find(|path| path.ends_with("style.css")).unwrap();
    let style = open(app, &style_path, &[]).text;
    let colors: Vec<_> = page
        .split(r#"<meta name="theme-color" content=""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(colors.len(), 2, "light and dark");
    for color in colors {
        assert!(
            style.contains(&format!("--sheet: {color};")),
            "the header has this color: {color}"
        );
    }
}

fn a_page_may_do_nothing_but_run_its_own_scripts(app: &TestApp) {
    let page = open(app, "/", &[]);
    let policy: Vec<_> = page.header("content-security-policy").split("; ").collect();
    let wanted = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ];
    for directive in wanted.into_iter().chain([
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]) {
        assert!(policy.contains(&directive), "{directive}: {policy:?}");
    }
    assert!(!page.header("content-security-policy").contains("unsafe"));
    for inline in
        ["<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://"]
    {
        assert!(!page.text.contains(inline), "{inline}");
    }
    assert_eq!(
        page.text.matches("<script").count(),
        page.text.matches("<script type=\"module\" src=").count()
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), value);
    }
}

fn assets_are_kept_for_good_and_pages_are_not(app: &TestApp) {
    let page = open(app, "/", &[]);
    assert_eq!(page.header("cache-control"), "no-cache");
    let known = open(app, "/", &[("If-None-Match", page.header("etag"))]);
    assert_eq!(
        (known.status, known.text.as_str(), known.header("etag")),
        (304, "", page.header("etag"))
    );
    for path in assets(&page.text) {
        let asset = open(app, &path, &[]);
        assert_eq!(
            (asset.status, asset.header("cache-control")),
            (200, "public, max-age=31536000, immutable"),
            "{path}"
        );
        assert_eq!(
            open(app, &path, &[("If-None-Match", asset.header("etag"))]).status,
            304,
            "{path}"
        );
        // A page of another version may request it. It gets this version's file, uncached.
        let other =
            open(app, &format!("/assets/00000000/{}", path.rsplit('/').next().unwrap()), &[]);
        assert_eq!((other.status, other.header("cache-control")), (200, "no-cache"), "{path}");
        assert_eq!(other.text, asset.text);
        let compressed = app
            .try_send(
                app.request("HEAD", &path)
                    .header("Accept-Encoding", "gzip")
                    .body(Vec::new())
                    .unwrap(),
            )
            .unwrap();
        assert_eq!(
            (compressed.header("content-encoding"), compressed.header("vary")),
            ("gzip", "Accept-Encoding"),
            "{path}"
        );
    }
}

fn only_what_is_linked_is_served_and_all_of_it(app: &TestApp) {
    let linked = assets(&open(app, "/", &[]).text);
    // The page preloads every module, so no import waits for a second round trip.
    for path in &linked {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let text = open(app, path, &[]).text;
        for import in text.split("from './").skip(1).map(|rest| rest.split('\'').next().unwrap()) {
            assert!(linked.contains(&format!("{folder}/{import}")), "{name} imports {import}");
        }
        let rest = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !rest.contains("://") || name == "parts.js" || name == "dom.js",
            "{name} names another site"
        );
    }
    for name in ["page.html", "nothing.js", "%2e%2e%2fpage.html"] {
        open(app, &format!("/assets/00000000/{name}"), &[]).expect_problem(404, "not_found");
    }
}

fn a_page_has_get_only(app: &TestApp) {
    let asset = assets(&open(app, "/", &[]).text).remove(0);
    for path in PAGES.into_iter().chain([asset.as_str()]) {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = app.call(method, path, ADMIN, None, &[]);
            answer.expect_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        }
        let head = app.call("HEAD", path, ADMIN, None, &[]);
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
    }
}

/// What Chromium sends when somebody opens an address.
const BROWSER: [(&str, &str); 1] =
    [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8")];

fn an_unknown_address_is_a_page_for_browsers(app: &TestApp) {
    let known: BTreeSet<_> = assets(&open(app, "/", &[]).text).into_iter().collect();
    for path in ["/nope", "/deployments/xyz", "/services/checkout", "/index.html"] {
        let page = open(app, path, &BROWSER);
        assert_eq!(
            (page.status, page.header("content-type")),
            (404, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(page.text.contains("<h1>Not found</h1>"), "{path}: {}", page.text);
        assert!(page.text.contains("<a href=\"/\">Go to the board</a>"), "{path}");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        for asset in page.text.split('"').filter(|part| part.starts_with("/assets/")) {
            assert!(known.contains(asset), "{asset}");
        }
        // With what is in a browser's memory of it, it is still not found.
        let tag = [BROWSER[0], ("If-None-Match", page.header("etag"))];
        assert_eq!(open(app, path, &tag).status, 404);
        for accept in ["*/*", "application/json", "text/html;q=0, */*"] {
            open(app, path, &[("Accept", accept)]).expect_problem(404, "not_found");
        }
    }
    // The API answers in JSON whoever asks, and what has other methods says so.
    let key = [BROWSER[0], ("Authorization", &format!("Bearer {ADMIN}"))];
    open(app, "/v1/nope", &key).expect_problem(404, "not_found");
    let post = app.call("POST", "/nope", ADMIN, None, &BROWSER);
    post.expect_problem(404, "not_found");
}

fn browsers_and_crawlers_find_what_they_ask_for(app: &TestApp) {
    let icon = open(app, "/favicon.ico", &[]);
    assert_eq!((icon.status, icon.header("content-type")), (200, "image/svg+xml"));
    assert!(icon.text.starts_with("<svg"), "{}", icon.text);
    let robots = open(app, "/robots.txt", &[]);
    assert_eq!((robots.status, robots.text.as_str()), (200, "User-agent: *\nDisallow: /\n"));
}
