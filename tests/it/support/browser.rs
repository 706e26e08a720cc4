//! Chromium without a window, driven through chromedriver.

use std::process::Command;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, Process, eventually};

const INSTALL: &str = "apt-get install --yes --no-install-recommends chromium chromium-driver";

/// A browser with one page. Dropping it ends the browser and its driver.
pub(crate) struct Browser {
    client: Client,
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose pages are this many CSS pixels wide and high.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        let driver = Process::spawn("chromedriver", INSTALL, Command::new("chromedriver").arg("--port=0"));
        let log = driver.log().clone();
        let port = || {
            let started =
                |line: &String| line.split_once("started successfully on port ").map(|(_, port)| port.to_owned());
            let port = log.lines().iter().find_map(started)?;
            port.trim_end_matches('.').parse::<u16>().ok()
        };
        let port = eventually(PATIENCE, || format!("chromedriver; install it with: {INSTALL}"), port).await;
        let profile = tempfile::tempdir().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &data,
        ];
        // A window has a minimum width; an emulated device has exactly the given width.
        let device =
            json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0, "touch": false } });
        let options = json!({ "args": arguments, "mobileEmulation": device });
        let capabilities = json!({ "goog:chromeOptions": options });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        Self { client, _driver: driver, _profile: profile }
    }

    /// Opens a page.
    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Runs a function body in the page and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Returns the page as a PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        self.client.screenshot().await.unwrap()
    }

    /// Ends the browser, which would outlive its driver.
    pub(crate) async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}
