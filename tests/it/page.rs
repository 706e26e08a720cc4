//! The page at `/` of the admin listener, in Chromium.

use std::time::Instant;

use serde_json::Value;

use crate::admin::{http, http_as, page, with_page};
use crate::support::{Browser, PATIENCE, Scene, StubOptions, enable_push, lost, message};

/// Waits until a script returns this value.
async fn until(browser: &Browser, script: &str, expect: Value) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is = browser.run(script).await;
        if is == expect {
            return;
        }
        assert!(Instant::now() < deadline, "{script} is {is}, not {expect}");
    }
}

/// Returns a script that reads the number of a tile.
fn tile(name: &str) -> String {
    format!(
        "return [...document.querySelectorAll('.tile')].find(t => t.querySelector('h3').textContent === '{name}')\
         ?.querySelector('p').firstChild.data"
    )
}

/// Saves a picture in the directory `PUSHWARD_PICTURES`, for review by people.
async fn keep_picture(browser: &Browser, name: &str) {
    let picture = browser.picture().await;
    assert!(picture.starts_with(b"\x89PNG"));
    if let Some(directory) = std::env::var_os("PUSHWARD_PICTURES") {
        std::fs::write(std::path::Path::new(&directory).join(name), picture).unwrap();
    }
}

#[tokio::test]
async fn the_page_shows_the_numbers_as_they_change_and_no_names() {
    let mut scene = Scene::with(StubOptions::default(), with_page).await;
    enable_push(&mut scene.client, "n").await;
    let address = page(&scene.pushward).await;
    let browser = Browser::start(1280, 900).await;
    browser.open(&format!("http://{address}/")).await;
    until(&browser, &tile("Live sessions"), "1".into()).await;
    until(&browser, "return document.getElementById('state').textContent", "Running".into()).await;
    let host = "return [...document.querySelectorAll('#hosts tr')].map(row => row.innerText.split(/\\s+/).join(' '))";
    assert_eq!(browser.run(host).await, serde_json::json!(["localhost 1 0 0"]));
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(message("wake up"));
    until(&browser, &tile("Dark sessions (held)"), "1".into()).await;
    until(&browser, &tile("Live sessions"), "0".into()).await;
    let verdicts = "return document.getElementById('verdicts').innerText.includes('push')";
    until(&browser, verdicts, true.into()).await;
    let text = browser.run("return document.documentElement.outerHTML").await;
    for somebody in ["alice", "bob", "push.localhost"] {
        assert!(!text.as_str().unwrap().contains(somebody), "{somebody}");
    }
    keep_picture(&browser, "wide.png").await;
    scene.pushward.kill();
    until(&browser, "return document.getElementById('state').dataset.state", "lost".into()).await;
    browser.close().await;
}

#[tokio::test]
async fn the_page_fits_a_phone_and_describes_its_plots() {
    let scene = Scene::with(StubOptions::default(), with_page).await;
    let address = page(&scene.pushward).await;
    let browser = Browser::start(390, 844).await;
    browser.open(&format!("http://{address}/")).await;
    until(&browser, &tile("Live sessions"), "1".into()).await;
    assert_eq!(browser.run("return innerWidth").await, 390);
    let widest = browser.run("return document.documentElement.scrollWidth").await;
    assert_eq!(widest, 390, "the page scrolls sideways");
    let cut = "return [...document.querySelectorAll('h3, th, td, .tile p')].filter(e => e.scrollWidth > e.clientWidth + 1)\
        .map(e => e.textContent)";
    assert_eq!(browser.run(cut).await, serde_json::json!([]), "text is cut");
    let silent = "return [...document.querySelectorAll('svg:not([aria-hidden])')].filter(svg => \
        svg.getAttribute('role') !== 'img' || !/now .*highest/.test(svg.getAttribute('aria-label'))).length";
    assert_eq!(browser.run(silent).await, 0);
    assert_eq!(browser.run("return document.querySelectorAll('svg[role=img]').length").await, 8);
    keep_picture(&browser, "phone.png").await;
    browser.close().await;
}

#[tokio::test]
async fn only_the_pages_own_script_runs_in_it() {
    let scene = Scene::with(StubOptions::default(), with_page).await;
    let address = page(&scene.pushward).await;
    let (_, header, _) = http(address, "GET", "/").await;
    assert!(header.contains("content-security-policy: default-src 'none'; script-src 'sha256-"), "{header}");
    for unsafe_word in ["unsafe-inline", "unsafe-eval", "http:", "https:", "*"] {
        let policy = header.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
        assert!(!policy.contains(unsafe_word), "{policy}");
    }
    let browser = Browser::start(1280, 900).await;
    browser.open(&format!("http://{address}/")).await;
    until(&browser, &tile("Live sessions"), "1".into()).await;
    // The page itself violated no rule. The markup inserted next violates one and has no effect.
    browser
        .run(
            "window.broken = []; new ReportingObserver(reports => broken.push(...reports.map(r => r.body.effectiveDirective)), \
             { types: ['csp-violation'], buffered: true }).observe()",
        )
        .await;
    browser
        .run(
            "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.acted = true' })); \
             const image = new Image(); image.src = 'http://127.0.0.1:9/x'; document.body.append(image)",
        )
        .await;
    until(&browser, "return broken.toSorted()", serde_json::json!(["img-src", "script-src-elem"])).await;
    assert_eq!(browser.run("return window.acted === undefined").await, true);
    browser.close().await;
}

#[tokio::test]
async fn a_website_gets_no_data_by_dns_rebinding() {
    let named = |setup| with_page(setup).set("admin.hosts", "['pushward.internal']");
    let scene = Scene::with(StubOptions::default(), named).await;
    let address = page(&scene.pushward).await;
    for path in ["/", "/metrics", "/status.json", "/grafana.json"] {
        let (status, _, body) = http_as(address, "GET", path, "evil.example").await;
        assert_eq!(status, 421, "{path}: {body}");
        assert!(body.contains("[admin] hosts") && !body.contains("pushward_"), "{path}: {body}");
        for ours in ["pushward.internal:9522", "localhost", "127.0.0.1:1", "[::1]"] {
            assert_eq!(http_as(address, "GET", path, ours).await.0, 200, "{path} as {ours}");
        }
    }
    // Load balancers may use any host name, and get a single word.
    assert_eq!(http_as(address, "GET", "/healthz", "evil.example").await.0, 200);
}
