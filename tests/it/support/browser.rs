//! Chromium without a window, driven over its DevTools protocol. It reaches loopback only, and ends with the test.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Place, command_as, until};

/// A page is there, or has changed, within this time.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// A browser with one page.
pub(crate) struct Browser {
    _process: Child,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// User and password, for when a server asks.
    login: Option<(String, String)>,
    /// How often a server asked.
    pub(crate) asked_for_login: usize,
    /// Errors of scripts and of the page's policy.
    pub(crate) errors: Vec<String>,
}

impl Browser {
    /// Starts it with a profile of its own.
    pub(crate) async fn start(place: &Place, login: Option<(&str, &str)>) -> Browser {
        let folder = place.folder("browser");
        let mut command = command_as("chromium", &folder);
        command.args([
            "--headless=new",
            // It shows pages of this test only, and containers allow no sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            "about:blank",
        ]);
        command.arg(format!("--user-data-dir={}", folder.display()));
        let log = std::fs::File::create(folder.join("log")).expect("our own place is writable");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Command::from(command).kill_on_drop(true).spawn();
        let process = process.expect("chromium starts: see `make setup`");
        let (port, path) = until(PAGE_WITHIN, async || endpoint(&folder)).await.expect("chromium listens");
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("DevTools answers");
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let mut browser = Browser {
            _process: process,
            socket,
            session: None,
            calls: 0,
            login,
            asked_for_login: 0,
            errors: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.call("Fetch.enable", json!({ "handleAuthRequests": true })).await;
        browser
    }

    /// Calls a method, and answers what the page asks meanwhile.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.send(method, parameters).await;
        let answered = async {
            loop {
                let message = self.socket.next().await.expect("chromium lives").expect("a sound connection");
                let Ok(message) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else {
                    continue;
                };
                if message["id"] == id {
                    return message["result"].clone();
                }
                self.hear(&message).await;
            }
        };
        tokio::time::timeout(PAGE_WITHIN, answered)
            .await
            .unwrap_or_else(|_| panic!("{method} is not answered"))
    }

    async fn send(&mut self, method: &str, parameters: Value) -> u64 {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.expect("chromium lives");
        self.calls
    }

    /// An event.
    async fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        let request = &parameters["requestId"];
        match event["method"].as_str().unwrap_or_default() {
            "Fetch.requestPaused" => {
                self.send("Fetch.continueRequest", json!({ "requestId": request })).await;
            }
            "Fetch.authRequired" => {
                self.asked_for_login += 1;
                let answer = match &self.login {
                    Some((user, password)) => {
                        json!({ "response": "ProvideCredentials", "username": user, "password": password })
                    }
                    None => json!({ "response": "CancelAuth" }),
                };
                let parameters = json!({ "requestId": request, "authChallengeResponse": answer });
                self.send("Fetch.continueWithAuth", parameters).await;
            }
            "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
                self.errors.push(parameters["entry"]["text"].to_string());
            }
            "Runtime.exceptionThrown" => self.errors.push(parameters["exceptionDetails"].to_string()),
            _ => {}
        }
    }

    /// Goes to an address, and waits for the page.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.wait_for(&format!("location.href === {} && document.readyState === 'complete'", json!(url)))
            .await;
    }

    /// The value of an expression in the page; `Null` while there is none.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        self.call("Runtime.evaluate", parameters).await["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn wait_for(&mut self, expression: &str) {
        let held = until(PAGE_WITHIN, async || (self.value(expression).await == true).then_some(())).await;
        if held.is_none() {
            let text = self.value("document.body.innerText").await;
            panic!("not in the page: {expression}\n{}\n{:?}", text.as_str().unwrap_or_default(), self.errors);
        }
    }

    /// Presses a key: `Tab`, `Enter`, ` `.
    pub(crate) async fn press(&mut self, key: &str) {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            " " => ("Space", 32, " "),
            other => panic!("no such key is known here: {other}"),
        };
        let key = json!({ "type": "keyDown", "key": key, "code": code, "windowsVirtualKeyCode": number, "text": text });
        self.call("Input.dispatchKeyEvent", key.clone()).await;
        let mut up = key;
        up["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Makes the page so wide, and its reader prefer these colours: `light` or `dark`.
    pub(crate) async fn show_as(&mut self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": feature })).await;
        self.wait_for(&format!(
            "innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"
        ))
        .await;
    }

    /// Writes a picture of the whole page.
    pub(crate) async fn draw(&mut self, file: &Path) {
        let picture = json!({ "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", picture).await;
        let data = picture["data"].as_str().expect("a picture");
        let data = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(file, data).expect("the folder for pictures is writable");
    }
}

/// Port and path of DevTools, from the file that Chromium writes.
fn endpoint(folder: &Path) -> Option<(u16, String)> {
    let text = std::fs::read_to_string(folder.join("DevToolsActivePort")).ok()?;
    let (port, path) = text.split_once('\n')?;
    Some((port.parse().ok()?, path.trim().to_owned()))
}
