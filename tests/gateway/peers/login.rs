//! Clients that log in, with a browser between them and a Microsoft login played by an OpenID
//! provider.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Mutex;

use super::entra::Entra;
use super::library::{LIBRARIES, Library};
use super::script::Script;
use crate::command_line::{printed, run};
use crate::harness::backend::rows;
use crate::harness::client::Answer;
use crate::harness::login::{App, Browser, Tokens, parameter};
use crate::harness::{FakeBackend, Gateway, Setup, Tenant};
use crate::migrate::fixtures::Old;

/// A gateway with a tenant for each of these names, all in one directory.
pub(super) struct Stage {
    entra: Mutex<Entra>,
    pub(super) gateway: Gateway,
    _backend: FakeBackend,
}

impl Stage {
    pub(super) async fn start(names: &[&'static str], lines: &str) -> Self {
        let (entra, backend) = (Entra::start().await, FakeBackend::start().await);
        let mut setup = Setup::new()
            .flag("--entra-authority", entra.authority())
            .variable("TENANTD_LOG_FILTER", "info,tenantd::server=debug");
        for name in names {
            let tenant = Tenant::new(name, &backend).with(&Entra::lines()).with(lines);
            setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
        }
        let gateway = setup.start().await;
        Self::with_registered(entra, gateway, backend, names).await
    }

    /// Registers the tenants' redirect URIs with the provider.
    async fn with_registered(
        mut entra: Entra,
        gateway: Gateway,
        backend: FakeBackend,
        names: &[&'static str],
    ) -> Self {
        let mut uris = Vec::new();
        for name in names {
            let status = gateway.until_state(name, "serving").await;
            uris.push(status["redirect_uri"].as_str().expect("what to register").to_owned());
        }
        entra.register(&uris).await;
        Self { entra: Mutex::new(entra), gateway, _backend: backend }
    }

    /// The same, with tenants that `migrate` made of one Compose stack for each name.
    async fn migrated(names: &[&'static str]) -> Self {
        let (entra, backend) = (Entra::start().await, FakeBackend::start().await);
        // The stacks' public URLs have the gateway's port.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = socket.expect("a free port").port();
        let (setup, base) = (Setup::listening(port), format!("https://localhost:{port}"));
        let old = Old::new();
        for (name, port) in names.iter().zip(8001..) {
            old.stack(name, port, &base, &Entra::lines(), &backend);
        }
        let to = setup.path().join("tenants.d").display().to_string();
        let from = old.path().display().to_string();
        let moved =
            run(&["migrate", &from, "--to", &to, "--host", "localhost", "--backend-allow", "127.0.0.0/8"]);
        assert!(
            printed(&moved).contains(&format!("{base}/{}/auth/ms-callback", names[0])),
            "{}",
            printed(&moved)
        );
        let gateway = setup.flag("--entra-authority", entra.authority()).start().await;
        Self::with_registered(entra, gateway, backend, names).await
    }

    /// Does what a person does in the browser that a client opened. Returns the redirect URI with
    /// its parameters.
    pub(super) async fn log_in(&self, authorize: &str) -> String {
        let mut browser = Browser::new(&self.gateway);
        let way = browser.consent(authorize).await;
        let callback = self.entra.lock().await.visit(&way).await;
        browser.come_back(&callback).await.into()
    }

    /// Returns the requests for a tenant with their statuses, up to the client's registration.
    fn steps_to_login(&self, tenant: &str) -> Vec<String> {
        let steps = self.gateway.steps(tenant);
        let end = steps.iter().position(|step| step.starts_with("oauth")).expect("a registration");
        steps[..=end].to_vec()
    }

    /// Connects a client that logs in.
    async fn connected(&self, library: &Library) -> Script {
        let ca = self.gateway.ca().expect("a CA of its own");
        let mut script = Script::start(library, &ca, None);
        let mut order = library.connect(&format!("{}/{}/mcp", self.gateway.base(), library.name));
        order["login"] = true.into();
        let asked = script.ask(order).await;
        let authorize = asked["authorize"].as_str().unwrap_or_else(|| panic!("it does not log in: {asked}"));
        let callback = self.log_in(authorize).await;
        script.tell(json!({ "callback": callback })).await;
        let answer = script.answer().await;
        assert_eq!(answer["version"], json!(library.agrees_on), "{}: {answer}", library.name);
        script
    }
}

/// Returns one mode of each library whose SDK logs in.
fn clients() -> Vec<Library> {
    LIBRARIES.into_iter().filter(Library::logs_in).collect()
}

#[tokio::test]
async fn every_client_logs_in_and_searches() {
    let clients = clients();
    let names: Vec<&'static str> = clients.iter().map(|library| library.name).collect();
    let stage = Arc::new(Stage::start(&names, "").await);
    for library in &clients {
        let mut client = stage.connected(library).await;
        let answer = client.search("q").await;
        assert_eq!(answer["data"]["data"], rows(), "{}: {answer}", library.name);
    }
    for name in names {
        assert_eq!(
            stage.steps_to_login(name),
            ["mcp 401", "discovery 200", "discovery 200", "oauth 201"],
            "{name}"
        );
    }
}

#[tokio::test]
async fn every_client_logs_in_at_a_tenant_that_was_moved() {
    let clients = clients();
    let names: Vec<&'static str> = clients.iter().map(|library| library.name).collect();
    let stage = Arc::new(Stage::migrated(&names).await);
    for library in &clients {
        let mut client = stage.connected(library).await;
        let answer = client.search("q").await;
        assert_eq!(answer["data"]["data"], rows(), "{}: {answer}", library.name);
    }
}

#[tokio::test]
async fn a_provider_that_others_wrote_is_told_nothing_it_refuses() {
    let stage = Stage::start(&["acme"], "access: {roles: [Analyst]}").await;
    let metrics = async || stage.gateway.admin("/metrics").await.1;
    let app = App::registered(&stage.gateway, "/acme").await;
    let authorize = format!("{}{}", stage.gateway.base(), app.authorize_path(&[]));
    stage.entra.lock().await.account(json!({ "roles": ["Analyst"] })).await;
    let back = url::Url::parse(&stage.log_in(&authorize).await).expect("a URL");
    let code = parameter(&back, "code").expect("a code");
    let sold = app.redeem(&code).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    // Each renewal asks Entra, whose refresh token rotates with ours.
    let renewed = refreshed(&app, &sold).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    let renewed = refreshed(&app, &renewed).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert!(metrics().await.contains(r#"tenantd_identity_call_duration_seconds_count{outcome="ok"} 3"#));
    // Removing the role ends the session.
    stage.entra.lock().await.account(json!({})).await;
    let refused = refreshed(&app, &renewed).await;
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")));
}

async fn refreshed(app: &App<'_>, sold: &Answer) -> Answer {
    let token = Tokens::of(&sold.json()).refresh;
    let form = [("grant_type", "refresh_token"), ("refresh_token", &token), ("client_id", &app.client_id)];
    app.post("/token", &form).await
}
