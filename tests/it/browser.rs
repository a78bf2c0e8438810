//! A real browser: the demo's page, and the code of the README.
//!
//! Needs Chromium and its driver, which `scripts/setup.sh tests` installs; where the system has none, the test says so
//! and is left out.

use crate::support::eventually;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

fn found(names: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    names
        .iter()
        .flat_map(|n| path.split(':').map(move |d| format!("{d}/{n}")))
        .find(|p| std::path::Path::new(p).exists())
}

/// Reads the child's lines until one contains `what`.
async fn line_with(child: &mut Child, what: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    let wanted = tokio::time::timeout(crate::support::PATIENCE, async {
        loop {
            let line =
                lines.next_line().await.unwrap().unwrap_or_else(|| panic!("ended before it said `{what}`: {seen}"));
            if line.contains(what) {
                return line;
            }
            seen.push_str(&line);
        }
    });
    let line = wanted.await.unwrap_or_else(|_| panic!("never said `{what}`"));
    // the rest must be read, or the child stops at a full pipe
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    line
}

/// A WebDriver session: <https://www.w3.org/TR/webdriver2/>.
struct Browser {
    _driver: Child,
    _profile: tempfile::TempDir,
    http: reqwest::Client,
    session: String,
}

impl Browser {
    async fn open(chromium: &str, driver: &str) -> Browser {
        let mut child = Command::new(driver).arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let line = line_with(&mut child, "started successfully on port").await;
        let port: u16 = line.trim_end_matches('.').rsplit(' ').next().unwrap().parse().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-quic",
            "--no-first-run",
            "--disable-component-update",
            "--disable-sync",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--user-data-dir={}", profile.path().display())])
        .collect::<Vec<_>>();
        let mut browser =
            Browser { _driver: child, _profile: profile, http, session: format!("http://127.0.0.1:{port}/session") };
        let options = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "binary": chromium, "args": args } } } });
        let session = browser.call("", options).await["sessionId"].as_str().unwrap().to_owned();
        browser.session = format!("{}/{session}", browser.session);
        browser
    }

    async fn call(&self, path: &str, body: Value) -> Value {
        let answer = self.http.post(format!("{}{path}", self.session)).body(body.to_string()).send().await.unwrap();
        let (ok, text) = (answer.status().is_success(), answer.text().await.unwrap());
        assert!(ok, "{path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["value"].clone()
    }

    async fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    async fn close(self) {
        self.http.delete(&self.session).send().await.unwrap();
    }
}

/// The JavaScript of the README, for a table of the demo.
fn readme_code() -> String {
    let readme = include_str!("../../README.md");
    let code = readme.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.contains("table=scores&league=eq.nfl"));
    code.replace("table=scores&league=eq.nfl", "table=games")
}

/// The JavaScript of the WebSocket's documentation, for a table of the demo.
fn socket_code() -> String {
    let docs = include_str!("../../docs/http.md");
    let code = docs.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.contains("table: 'scores', where: 'league=eq.nfl'"));
    code.replace("table: 'scores', where: 'league=eq.nfl'", "table: 'games'")
}

#[tokio::test]
async fn the_demo_page_lives_and_the_readme_code_works() {
    let (Some(chromium), Some(driver)) =
        (found(&["chromium", "chromium-browser", "google-chrome"]), found(&["chromedriver"]))
    else {
        eprintln!(
            "LEFT OUT: no chromium with chromedriver on PATH; `scripts/setup.sh tests` installs them where the system has them"
        );
        return;
    };
    let mut demo = Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["demo", "--no-open", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = line_with(&mut demo, "page").await;
    let url = format!(
        "http{}",
        line.split("http").nth(1).unwrap().trim().trim_end_matches('\u{1b}').replace("\u{1b}[0m", "")
    );
    let browser = Browser::open(&chromium, &driver).await;
    let opened = Instant::now();
    browser.call("/url", json!({ "url": url })).await;
    let text = || async { browser.run("return document.body.innerText").await.as_str().unwrap().to_lowercase() };
    eventually("the page is live", || async { text().await.contains("live\n") }).await;
    eprintln!("live after {:?}", opened.elapsed());
    let before = text().await;
    eventually("scores move", || async { text().await != before }).await;

    browser.run(&format!("{}; window.held = rows;", readme_code())).await;
    eventually("the README's code holds rows", || async {
        browser.run("return window.held.size").await.as_i64().unwrap() > 0
    })
    .await;
    let versions = "return Math.max(...[...window.held.values()].map(r => r.version))";
    let first = browser.run(versions).await.as_i64().unwrap();
    eventually("the README's code follows changes", || async { browser.run(versions).await.as_i64().unwrap() > first })
        .await;
    // the same over a WebSocket, with the code of the documentation
    browser.run(&format!("{}; window.told = rows;", socket_code())).await;
    eventually("the documentation's code holds rows", || async {
        browser.run("return window.told.size").await.as_i64().unwrap() > 0
    })
    .await;
    let versions = "return Math.max(...[...window.told.values()].map(r => r.version))";
    let first = browser.run(versions).await.as_i64().unwrap();
    eventually("the documentation's code follows changes", || async {
        browser.run(versions).await.as_i64().unwrap() > first
    })
    .await;
    // the browser's own reader agrees with our frames: the negotiated protocol, and an end with code and reason
    let script = "window.ends = []; const s = new WebSocket(`ws://${location.host}/v1/ws`, ['x', 'rowcast.v1']);
        s.onopen = () => { window.ends.push(s.protocol, s.extensions); s.send('?'); };
        s.onclose = e => window.ends.push(e.code, e.wasClean, e.reason.split(':')[0]);";
    browser.run(script).await;
    eventually("the browser reads how it ended", || async {
        browser.run("return window.ends").await == json!(["rowcast.v1", "", 4400, true, "bad-message"])
    })
    .await;
    browser.close().await;

    // Ctrl-C: ends by itself and says so with its exit code
    let pid = i32::try_from(demo.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(crate::support::PATIENCE, demo.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}
