//! Access control: API keys, open tenants, and tenants that require a login.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Setup, Tenant};

fn keyed(backend: &FakeBackend, name: &str, keys: &str) -> Vec<u8> {
    Tenant::new(name, backend).with(&format!("api_keys:\n{keys}")).yaml()
}

fn key_line(label: &str, key: &str) -> String {
    format!("  - label: {label}\n    key: {key}\n")
}

#[tokio::test]
async fn a_key_opens_its_own_tenant_and_no_other() {
    let backend = FakeBackend::start().await;
    let (a, b) = (secret("caller-of-a"), secret("caller-of-b"));
    let setup = Setup::new().file("a.yaml", keyed(&backend, "a", &key_line("ci", &a)));
    let gateway = setup.file("b.yaml", keyed(&backend, "b", &key_line("ci", &b))).start().await;
    let client = gateway.client();
    for era in [Era::Legacy, Era::Modern] {
        assert_eq!(client.clone().bearer(&a).search(era, "/a", "q").await.data()["row_count"], 2);
        for (caller, prefix) in
            [(client.clone(), "/a"), (client.clone().bearer(&b), "/a"), (client.clone().bearer(&a), "/b")]
        {
            let refused = caller.search(era, prefix, "q").await;
            assert_eq!(refused.status, 401, "{prefix}: {refused:?}");
            assert!(refused.header("www-authenticate").starts_with("Bearer"), "{refused:?}");
        }
    }
}

/// Returns an address of this machine that is not loopback.
fn outside_address() -> Option<Ipv4Addr> {
    // Nothing is sent: this only asks which address would be used.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    match socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
        _ => None,
    }
}

#[tokio::test]
async fn networks_that_the_settings_name_reach_open_tenants() {
    let outside = outside_address().filter(|ip| !ip.is_private() && !ip.is_link_local());
    let Some(outside) = outside else {
        return eprintln!("skipped: this machine has no address that is not private anyway");
    };
    let around = ipnet::Ipv4Net::new(outside, 29).expect("a length").trunc().to_string();
    let backend = FakeBackend::start().await;
    for (networks, status) in [(None, 403), (Some("100.64.0.0/10"), 403), (Some(around.as_str()), 200)] {
        let setup = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml());
        let setup = match networks {
            Some(networks) => setup.flag("--private-networks", networks),
            None => setup,
        };
        let gateway = setup.start().await;
        // The peer is this machine, but not by the address that it connects to.
        let peer = gateway.client_with(|builder| builder.local_address(IpAddr::V4(outside)));
        for era in [Era::Legacy, Era::Modern] {
            let answer = peer.search(era, "/a", "q").await;
            assert_eq!(answer.status, status, "{networks:?}: {answer:?}");
            assert!(status == 200 || answer.text.contains("private_networks"), "{answer:?}");
        }
        assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.status, 200, "loopback");
    }
}

#[tokio::test]
async fn this_machine_reaches_its_open_tenants_by_its_own_public_address() {
    let Some(ip) = outside_address() else {
        return eprintln!("skipped: this machine has no other address than loopback");
    };
    let backend = FakeBackend::start().await;
    let setup = Setup::new()
        .instead("--listen", &format!("{ip}:0"))
        .file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    for client in
        [gateway.client(), gateway.client_with(|builder| builder.local_address(IpAddr::from([127, 0, 0, 1])))]
    {
        let answer = client.search(Era::Modern, "/a", "q").await;
        assert_eq!(answer.data()["row_count"], 2, "{answer:?}");
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_gap_and_expire() {
    let backend = FakeBackend::start().await;
    let (old, new, expired) = (secret("old"), secret("new"), secret("expired"));
    let keys = [
        key_line("old", &old),
        key_line("new", &new),
        format!("{}    expires: 2020-01-01\n", key_line("former", &expired)),
    ];
    let gateway = Setup::new().file("a.yaml", keyed(&backend, "a", &keys.concat())).start().await;
    let status = async |key: &str| gateway.client().bearer(key).search(Era::Modern, "/a", "q").await.status;
    assert_eq!([status(&old).await, status(&new).await, status(&expired).await], [200, 200, 401]);
    gateway.put("a.yaml", keyed(&backend, "a", &key_line("new", &new)));
    super::harness::until("the old key is out", async || (status(&old).await == 401).then_some(())).await;
    assert_eq!(status(&new).await, 200);
}

#[tokio::test]
async fn a_digest_stands_for_a_key_that_apikey_new_made() {
    let backend = FakeBackend::start().await;
    let output = std::process::Command::new(super::harness::gateway::BINARY)
        .args(["apikey", "new", "--label", "nightly"])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("a text");
    let key = text.lines().find_map(|line| line.trim().strip_prefix("tk_")).expect("a key is printed");
    let lines: String = text
        .lines()
        .skip_while(|line| *line != "api_keys:")
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    let tenant = Tenant::new("a", &backend).with(&lines).yaml();
    let gateway = Setup::new().file("a.yaml", tenant).start().await;
    let caller = gateway.client().bearer(&format!("tk_{key}"));
    assert_eq!(caller.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn a_tenant_with_half_a_login_is_rejected_and_never_open() {
    let backend = FakeBackend::start().await;
    let login = Tenant::new("a", &backend).with(&format!(
        "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
         microsoft_client_secret: {}",
        secret("entra")
    ));
    let gateway = Setup::new().file("a.yaml", login.yaml()).start().await;
    let status = gateway.until_state("a", "rejected").await;
    assert!(status["findings"].to_string().contains("MICROSOFT_TENANT_ID"), "{status}");
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.status, 404);
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn an_open_tenant_that_starts_to_ask_for_login_is_closed_at_once() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.status, 200);
    gateway.put("a.yaml", Tenant::new("a", &backend).with("oauth_enabled: true").yaml());
    let closed = async || (gateway.client().search(Era::Modern, "/a", "q").await.status == 503).then_some(());
    super::harness::until("the tenant is out of service", closed).await;
}

#[tokio::test]
async fn where_auth_is_required_open_tenants_are_rejected() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("open.yaml", Tenant::new("open", &backend).yaml());
    let setup = setup.file("keyed.yaml", keyed(&backend, "keyed", &key_line("ci", &secret("caller"))));
    let gateway = setup.variable("TENANTD_REQUIRE_AUTH", "true").start().await;
    gateway.until_state("open", "rejected").await;
    let answer = gateway.client().bearer(&secret("caller")).search(Era::Legacy, "/keyed", "q").await;
    assert_eq!(
        answer.data(),
        json!({ "columns": ["region", "orders"], "rows": [
        { "region": "north", "orders": 12 }, { "region": "south", "orders": 7 },
    ], "row_count": 2 })
    );
}

#[tokio::test]
async fn secrets_come_from_files_and_variables_too() {
    let backend = FakeBackend::start().await;
    let roots = tempfile::tempdir().expect("a folder");
    let file = roots.path().join("key");
    std::fs::write(&file, format!("{}\n", secret("from-a-file"))).expect("written");
    let base = backend.url("");
    let yaml = |name: &str, key: &str| {
        format!("search_url: {base}/nlp-search\ncontext_url: {base}/nlp-context\n{key}\ndataset: {name}\n")
    };
    let setup = Setup::new()
        .file("a.yaml", yaml("a", &format!("api_key_file: {}", file.display())))
        .file("b.yaml", yaml("b", "api_key: ${TENANT_B_KEY}"))
        .variable("TENANT_B_KEY", &secret("from-a-variable"))
        .variable("TENANTD_SECRET_ROOT", &roots.path().display().to_string());
    let gateway = setup.start().await;
    for (prefix, purpose) in [("/a", "from-a-file"), ("/b", "from-a-variable")] {
        gateway.client().search(Era::Modern, prefix, purpose).await.data();
        let asked = backend.requests().into_iter().rev().find(|request| request.target == "/nlp-search");
        assert_eq!(asked.and_then(|request| request.header("x-api-key")), Some(secret(purpose)));
    }
}
