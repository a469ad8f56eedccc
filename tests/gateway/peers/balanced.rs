//! Three gateways on one database, behind an NGINX that sends each request to the next one: the
//! client libraries log in, search and renew, and the conformance suite passes.

use std::fs;

use serde_json::json;

use super::conformance::meets;
use super::entra::Entra;
use super::library::{LIBRARIES, Library};
use super::script::Script;
use crate::harness::backend::rows;
use crate::harness::front::{Front, free_ports};
use crate::harness::login::Browser;
use crate::harness::{Client, FakeBackend, Gateway, Setup, Tenant};
use crate::postgres::Database;

const NODES: usize = 3;

/// The gateways with what is around them.
struct Stage {
    front: Front,
    port: u16,
    plain_port: u16,
    gateways: Vec<Gateway>,
    _database: Database,
    _backend: FakeBackend,
}

impl Stage {
    /// Starts gateways with these tenants, whose file names are given without the extension. The
    /// tenants are made with the balancer's base URLs, with TLS and without.
    async fn start(
        entra: Option<&mut Entra>,
        tenants: &[&str],
        tenant: impl Fn(&str, &FakeBackend, &[String; 2]) -> Tenant,
    ) -> Self {
        let (database, backend) = (Database::new(), FakeBackend::start().await);
        let [port, plain_port] = free_ports(2)[..] else { panic!("two ports") };
        let bases = [format!("https://localhost:{port}"), format!("http://localhost:{plain_port}")];
        let mut gateways = Vec::new();
        for _ in 0..NODES {
            let setup = Setup::new().flag("--tls", "off").flag("--trusted-proxies", "127.0.0.1");
            let mut setup = database.join(setup);
            if let Some(entra) = &entra {
                setup = setup.flag("--entra-authority", entra.authority());
            }
            for name in tenants {
                setup = setup.file(&format!("{name}.yaml"), tenant(name, &backend, &bases).yaml());
            }
            gateways.push(setup.start().await);
        }
        let mut uris = Vec::new();
        for name in tenants {
            for gateway in &gateways {
                let status = gateway.until_state(name, "serving").await;
                uris.extend(status["redirect_uri"].as_str().map(str::to_owned));
            }
        }
        if let Some(entra) = entra {
            uris.sort_unstable();
            uris.dedup();
            entra.register(&uris).await;
        }
        let addresses: Vec<_> = gateways.iter().map(Gateway::address).collect();
        let front = Front::balancing(&addresses, port, plain_port).await;
        Self { front, port, plain_port, gateways, _database: database, _backend: backend }
    }

    fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Returns a browser that comes through the balancer.
    fn browser(&self) -> Browser {
        let address = ([127, 0, 0, 1], self.port).into();
        Browser::with(Client::new(&self.base(), address, Some(&self.front.certificate())))
    }

    /// Returns how many calls of a tenant's tools each gateway has in its audit.
    fn calls(&self, tenant: &str) -> Vec<usize> {
        let of_one = |gateway: &Gateway| {
            let audit = fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
            let lines = audit.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.filter(|line| line["event"] == "call" && line["tenant"] == tenant).count()
        };
        self.gateways.iter().map(of_one).collect()
    }

    /// Connects a client that logs in, and has it search.
    async fn use_client(&self, entra: &Entra, library: &Library) {
        let context = library.name;
        let mut script = Script::start(library, &self.front.certificate(), None);
        let mut order = library.connect(&format!("{}/{}/mcp", self.base(), library.name));
        order["login"] = true.into();
        let asked = script.ask(order).await;
        let authorize = asked["authorize"].as_str().unwrap_or_else(|| panic!("{context}: no login: {asked}"));
        let mut browser = self.browser();
        let callback = entra.visit(&browser.consent(authorize).await).await;
        let back = browser.come_back(&callback).await;
        script.tell(json!({ "callback": back.as_str() })).await;
        let answer = script.answer().await;
        assert_eq!(answer["version"], json!(library.agrees_on), "{context}: {answer}");
        for _ in 0..2 * NODES {
            let answer = script.search("q").await;
            assert_eq!(answer["data"]["data"], rows(), "{context}: {answer}");
        }
        let calls = self.calls(library.name);
        eprintln!("{context}: calls by gateway {calls:?}");
        assert!(
            calls.iter().filter(|calls| **calls > 0).count() > 1,
            "{context}: calls by gateway {calls:?}"
        );
    }
}

#[tokio::test]
async fn every_client_logs_in_and_calls_at_another_gateway_each_time() {
    let mut entra = Entra::start().await;
    let clients: Vec<Library> = LIBRARIES.into_iter().filter(Library::logs_in).collect();
    let names: Vec<&str> = clients.iter().map(|library| library.name).collect();
    let tenant = |name: &str, backend: &FakeBackend, [base, _]: &[String; 2]| {
        Tenant::new(name, backend).with(&Entra::lines()).with(&format!("public_url: {base}/{name}"))
    };
    let stage = Stage::start(Some(&mut entra), &names, tenant).await;
    for library in &clients {
        stage.use_client(&entra, library).await;
    }
}

#[tokio::test]
async fn a_tenant_meets_both_eras_at_another_gateway_each_time() {
    // The suite sends the URL's origin, and others.
    let tenant = |_: &str, backend: &FakeBackend, [_, base]: &[String; 2]| {
        Tenant::new("acme", backend).with(&format!("public_url: {base}/a"))
    };
    let stage = Stage::start(None, &["a"], tenant).await;
    for requirements in ["2026-07-28", "2025-11-25"] {
        meets(&format!("http://localhost:{}/a/mcp", stage.plain_port), "tenant", requirements).await;
    }
}
