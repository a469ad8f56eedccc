//! No tenant can take another tenant's name, prefix or host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::super::harness::{Beside, Client, Era, FakeBackend, Setup, Tenant, until};
use super::super::state::{fine, tenants};

/// Returns whether an entry has a finding with this code.
fn has(status: &Value, code: &str) -> bool {
    status["findings"].as_array().is_some_and(|all| all.iter().any(|finding| finding["code"] == code))
}

/// Asserts that a backend received no request.
fn assert_unasked(backend: &FakeBackend) {
    let asked: Vec<_> = backend.requests().into_iter().map(|request| request.target).collect();
    assert!(asked.is_empty(), "the thief's backend was asked {asked:?}");
}

#[tokio::test]
async fn a_refused_zip_gets_neither_prefix_nor_name_by_a_restart() {
    let (good, evil) = (FakeBackend::start().await, FakeBackend::start().await);
    let setup = Setup::new().file("b.zip", Tenant::new("b", &good).zip());
    let gateway = setup.file("tenant-b.zip", Tenant::new("tenant-b", &good).zip()).start().await;
    let beside = Beside::watch(gateway.client(), "/b");
    gateway.put("a.zip", Tenant::new("a", &evil).with("path_prefix: /b").zip());
    // An export with the default file name takes its name from its contents.
    gateway.put("mcp_export.zip", Tenant::new("tenant-b", &evil).with("path_prefix: /elsewhere").zip());
    for stem in ["a", "mcp_export"] {
        assert!(has(&gateway.until_state(stem, "rejected").await, "claim-taken"), "{stem}");
    }
    beside.finish().await.assert_unharmed("b beside two thieves");
    let gateway = gateway.kill_and_restart().await;
    for prefix in ["/b", "/tenant-b"] {
        assert_eq!(
            gateway.client().search(Era::Modern, prefix, "q").await.data()["row_count"],
            2,
            "{prefix}"
        );
    }
    for stem in ["a", "mcp_export"] {
        assert!(has(&gateway.until_state(stem, "rejected").await, "claim-taken"), "{stem} after a restart");
    }
    let name = |status: Value| status["name"].as_str().map(str::to_owned);
    assert_eq!(gateway.status("tenant-b").await.and_then(name).as_deref(), Some("tenant-b"));
    assert_unasked(&evil);
}

#[tokio::test]
async fn a_refused_zip_does_not_lie_in_wait() {
    let (good, evil) = (FakeBackend::start().await, FakeBackend::start().await);
    let zip = Tenant::new("zz", &good).zip();
    let gateway = Setup::new().file("zz.zip", &zip).start().await;
    gateway.put("zzz.zip", Tenant::new("zzz", &evil).with("path_prefix: /zz").zip());
    gateway.until_state("zzz", "rejected").await;
    // Absent long enough to count as deleted.
    gateway.remove("zz.zip");
    gateway.until_gone("zz").await;
    let told = gateway.status("zzz").await.expect("it lies there");
    assert!(has(&told, "claim-free") && told["state"] == "rejected", "{told}");
    gateway.put("zz.zip", &zip);
    gateway.until_state("zz", "serving").await;
    assert_eq!(gateway.client().search(Era::Modern, "/zz", "q").await.data()["row_count"], 2);
    let told = gateway.until_state("zzz", "rejected").await;
    assert!(has(&told, "claim-taken"), "{told}");
    assert_unasked(&evil);
}

#[tokio::test]
async fn a_file_dropped_after_the_holder_left_gets_the_place_at_once() {
    let (old, new) = (FakeBackend::start().await, FakeBackend::start().await);
    let at = |backend| Tenant::new("b", backend).with("path_prefix: /b\nname: b").yaml();
    let gateway = Setup::new().file("b.yaml", at(&old)).start().await;
    // As after downloading a newer export: the same tenant under another file name. The first file
    // counts as deleted only at the second scan, and the other file exists by then.
    gateway.remove("b.yaml");
    gateway.put("b (1).yaml", at(&new));
    gateway.until_state("b (1)", "serving").await;
    assert_eq!(gateway.client().search(Era::Modern, "/b", "q").await.data()["row_count"], 2);
    assert!(new.counts().requests > 0);
}

#[tokio::test]
async fn a_claim_waits_for_an_operator_across_restarts() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with("path_prefix: /b").yaml());
    gateway.until_state("a", "rejected").await;
    let held = tenants(&gateway, &["accept", "a"]);
    assert_eq!(held.status.code(), Some(1), "{held:?}");
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    assert!(said.contains(r#"the prefix /b is held by tenant "b""#), "{said}");
    let nothing = tenants(&gateway, &["accept", "b"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no refused claim to accept"), "{nothing:?}");

    let gateway = gateway.killed();
    gateway.remove("b.yaml");
    let gateway = gateway.start_again().await;
    let told = gateway.until_state("a", "rejected").await;
    assert!(has(&told, "claim-free") && told.to_string().contains("tenantd tenants accept a"), "{told}");
    assert_eq!(gateway.client().get("/b/").await.status, 404);

    let said = fine(&gateway, &["accept", "a"]);
    assert!(!said.contains("would not survive"), "{said}");
    assert_eq!(gateway.client().search(Era::Modern, "/b", "q").await.data()["row_count"], 2);
    // The holder keeps the prefix, also after a restart.
    gateway.put("b.yaml", Tenant::new("b", &backend).yaml());
    gateway.until_state("b", "rejected").await;
    let gateway = gateway.kill_and_restart().await;
    assert!(has(&gateway.until_state("b", "rejected").await, "claim-taken"));
    assert_eq!(gateway.until_state("a", "serving").await["stem"], "a");
}

#[tokio::test]
async fn a_holder_whose_files_are_broken_keeps_its_place() {
    let (good, evil) = (FakeBackend::start().await, FakeBackend::start().await);
    let keyless =
        String::from_utf8(Tenant::new("b", &good).yaml()).expect("text").replace("api_key:", "x_key:");
    let key = Tenant::new("b", &good).yaml();
    let key = String::from_utf8(key)
        .expect("text")
        .lines()
        .find(|line| line.starts_with("api_key"))
        .expect("a key")
        .to_owned();
    let setup = Setup::new().file("b.yaml", keyless);
    let gateway = setup.file("b.env", key.replace("api_key: ", "API_KEY=")).start().await;
    gateway.until_state("b", "serving").await;
    // A revision does not come back without one of its files, neither in this process nor in the
    // next.
    let gateway = gateway.killed();
    gateway.remove("b.env");
    fs::write(gateway.tenant_file("a.yaml"), Tenant::new("a", &evil).with("path_prefix: /b").yaml())
        .expect("written");
    let mut gateway = gateway.start_again().await;
    for _ in 0..2 {
        gateway.until_state("b", "rejected").await;
        assert!(has(&gateway.until_state("a", "rejected").await, "claim-taken"));
        gateway = gateway.kill_and_restart().await;
    }
    fs::write(gateway.tenant_file("b.env"), key.replace("api_key: ", "API_KEY=")).expect("written");
    gateway.until_state("b", "serving").await;
    // Removing the tenant frees its prefix; a claim refused before stays refused.
    fine(&gateway, &["remove", "b"]);
    assert!(has(&gateway.until_state("a", "rejected").await, "claim-free"));
    gateway.put("c.yaml", Tenant::new("c", &good).with("path_prefix: /b").yaml());
    gateway.until_state("c", "serving").await;
    assert_unasked(&evil);
}

#[tokio::test]
async fn two_that_swap_while_the_gateway_is_down_both_succeed() {
    let (one, two) = (FakeBackend::start().await, FakeBackend::start().await);
    let at = |name: &str, backend: &FakeBackend, prefix: &str| {
        Tenant::new(name, backend).with(&format!("path_prefix: {prefix}")).yaml()
    };
    let setup = Setup::new().file("a.yaml", at("a", &one, "/x"));
    let gateway = setup.file("b.yaml", at("b", &two, "/y")).start().await;
    let gateway = gateway.killed();
    fs::write(gateway.tenant_file("a.yaml"), at("a", &one, "/y")).expect("written");
    fs::write(gateway.tenant_file("b.yaml"), at("b", &two, "/x")).expect("written");
    let gateway = gateway.start_again().await;
    for (stem, prefix) in [("a", "/y/mcp"), ("b", "/x/mcp")] {
        let status = gateway.until_state(stem, "serving").await;
        assert!(status["connector_url"].as_str().is_some_and(|url| url.ends_with(prefix)), "{status}");
    }
}

/// A small pseudorandom generator, with the same sequence in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The expected holder of the shared prefix, and the entries whose claim is refused.
#[derive(Default)]
struct Model {
    owner: Option<&'static str>,
    waiting: BTreeSet<&'static str>,
}

impl Model {
    fn wants_shared(&mut self, stem: &'static str) {
        match self.owner {
            None => self.owner = Some(stem),
            Some(owner) if owner == stem => {}
            Some(_) => _ = self.waiting.insert(stem),
        }
        if self.owner == Some(stem) {
            self.waiting.remove(stem);
        }
    }

    fn leaves(&mut self, stem: &'static str) {
        self.waiting.remove(stem);
        if self.owner == Some(stem) {
            self.owner = None;
        }
    }
}

#[tokio::test]
async fn drops_edits_deletions_and_restarts_leave_a_prefix_with_whom_it_had() {
    const STEMS: [&str; 3] = ["a", "b", "c"];
    let backend = FakeBackend::start().await;
    let mut gateway = Setup::new().start().await;
    let (mut model, mut chance, mut told) = (Model::default(), Chance(20_261_126), BTreeMap::new());
    for step in 0..18 {
        let stem = STEMS[chance.below(3) as usize];
        let (act, restarts) = (chance.below(5), chance.below(3) == 0);
        if restarts {
            gateway = gateway.killed();
        }
        let yaml = |lines: &str| Tenant::new(stem, &backend).with(lines).yaml();
        let file = format!("{stem}.yaml");
        match act {
            0..=2 => {
                gateway.put(&file, yaml(&format!("path_prefix: /shared\ndescription: Edition {step}")));
                model.wants_shared(stem);
            }
            3 => {
                gateway.put(&file, yaml(&format!("description: Edition {step}")));
                model.leaves(stem);
            }
            _ => {
                // The file may not exist.
                let _none = fs::remove_file(gateway.tenant_file(&file));
                model.leaves(stem);
            }
        }
        if restarts {
            gateway = gateway.start_again().await;
        }
        gateway.reload().await;
        told.insert(step, (stem, act, restarts));
        for stem in STEMS {
            let status = gateway.status(stem).await.unwrap_or_default();
            let url = status["connector_url"].as_str().unwrap_or_default();
            assert_eq!(
                url.ends_with("/shared/mcp"),
                model.owner == Some(stem),
                "{stem}: {status}\nafter {told:?}"
            );
            let refused = has(&status, "claim-taken") || has(&status, "claim-free");
            assert_eq!(refused, model.waiting.contains(stem), "{stem}: {status}\nafter {told:?}");
            assert!(!refused || has(&status, "claim-taken") == model.owner.is_some(), "{stem}: {status}");
        }
    }
}

#[tokio::test]
async fn a_zip_gets_no_host_of_the_gateways_or_another_tenants() {
    let (good, evil) = (FakeBackend::start().await, FakeBackend::start().await);
    let data = Tenant::new("data", &good).with("public_url: https://mcp.bcorp.example/data");
    let setup = Setup::new().instead("--host", "mcp.example.com").flag("--tls", "off");
    let setup = setup.variable("TENANTD_EXTRA_HOST", "lb.internal").file("data.yaml", data.yaml());
    let gateway = setup.file("b.zip", Tenant::new("b", &good).zip()).start().await;
    let port = gateway.address().port();
    let (address, loopback) = (format!("127.0.0.1:{port}"), format!("localhost:{port}"));
    let ours = ["mcp.example.com", "lb.internal", &address, &loopback, "b.localhost", "[::1]", "0x7f000001"];
    let client = Client::new(&format!("http://{loopback}"), gateway.address(), None);
    let ask =
        async |host: &str, path: &str| client.clone().with("host", host).search(Era::Modern, path, "q").await;
    let beside = Beside::watch(client.clone(), "/b");
    for (number, host) in ours.iter().enumerate() {
        let thief = Tenant::new("thief", &evil).with(&format!("public_url: https://{host}/b"));
        gateway.put(&format!("ours-{number}.zip"), thief.zip());
        assert!(
            has(&gateway.until_state(&format!("ours-{number}"), "rejected").await, "claim-taken"),
            "{host}"
        );
    }
    for (number, place) in ["", "/data", "/data/v2", "/help"].iter().enumerate() {
        let thief =
            Tenant::new("thief", &evil).with(&format!("public_url: https://mcp.bcorp.example{place}"));
        gateway.put(&format!("theirs-{number}.zip"), thief.zip());
        let told = gateway.until_state(&format!("theirs-{number}"), "rejected").await;
        assert!(has(&told, "export-host"), "{place}: {told}");
        assert!(told.to_string().contains(&format!("theirs-{number}.yaml")), "{told}");
    }
    for host in ["mcp.example.com", "lb.internal", &address, &loopback] {
        assert_eq!(ask(host, "/b").await.data()["row_count"], 2, "{host}");
    }
    assert_eq!(ask("mcp.bcorp.example", "/data").await.data()["row_count"], 2);
    beside.finish().await.assert_unharmed("b beside thieves of hosts");
    assert_unasked(&evil);
}

#[tokio::test]
async fn where_every_name_is_the_gateways_no_tenant_has_one_of_its_own() {
    let (good, evil) = (FakeBackend::start().await, FakeBackend::start().await);
    let setup = Setup::new().flag("--tls", "off").file("b.zip", Tenant::new("b", &good).zip());
    let own = Tenant::new("own", &good).with("hosts: [own.example]");
    let thief = Tenant::new("z", &evil).with("public_url: https://own.example/b");
    let setup = setup.file("own.yaml", own.yaml()).file("z.zip", thief.zip());
    let gateway = setup.variable("TENANTD_EXTRA_HOST", "any").start().await;
    let told = gateway.until_state("own", "serving").await;
    assert!(has(&told, "host-is-gateways"), "{told}");
    let told = gateway.until_state("z", "rejected").await;
    assert!(has(&told, "claim-taken"), "{told}");
    let base = format!("http://localhost:{}", gateway.address().port());
    let client = Client::new(&base, gateway.address(), None);
    let beside = Beside::watch(client.clone(), "/b");
    for host in ["own.example", "whatever.internal:8080", "10.1.2.3", "localhost", "[fd00::1]:80"] {
        let answer = client.clone().with("host", host).search(Era::Modern, "/b", "q").await;
        assert_eq!(answer.data()["row_count"], 2, "{host}");
    }
    beside.finish().await.assert_unharmed("b beside tenants that want hosts");
    assert_unasked(&evil);
}

#[tokio::test]
async fn a_name_that_nobody_said_is_not_the_gateways() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().flag("--tls", "off").file("b.zip", Tenant::new("b", &backend).zip());
    let gateway = setup.start().await;
    let base = format!("http://localhost:{}", gateway.address().port());
    let client = Client::new(&base, gateway.address(), None);
    for host in ["whatever.internal", "127.0.0.2", "[::1]"] {
        let answer = client.clone().with("host", host).search(Era::Modern, "/b", "q").await;
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn no_certificate_is_wanted_for_a_name_that_only_a_zip_says() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).with("hosts: [own.example]").yaml());
    let gateway = gateway.start().await;
    gateway.put("z.zip", Tenant::new("z", &backend).with("public_url: https://foreign.example/z").zip());
    gateway.until_state("z", "rejected").await;
    until("the tenant's own host has a certificate", async || {
        gateway.admin("/api/certs").await.1.contains("own.example").then_some(())
    })
    .await;
    assert!(!gateway.admin("/api/certs").await.1.contains("foreign.example"));
}

#[tokio::test]
async fn a_second_tenant_on_a_host_needs_the_consent_of_both_operators() {
    let (one, two) = (FakeBackend::start().await, FakeBackend::start().await);
    let first =
        |lines: &str| Tenant::new("a", &one).with("public_url: https://own.example").with(lines).yaml();
    let second =
        |lines: &str| Tenant::new("b", &two).with("public_url: https://own.example/help").with(lines).yaml();
    let setup = Setup::new().flag("--tls", "off").file("a.yaml", first(""));
    let gateway = setup.start().await;
    let refused = async |lines: &str| {
        gateway.put("b.yaml", second(lines));
        gateway.reload().await;
        let told = gateway.until_state("b", "rejected").await;
        assert!(has(&told, "claim-taken") && told.to_string().contains("share_host"), "{told}");
    };
    refused("").await;
    refused("share_host: true").await;
    gateway.put("a.yaml", first("share_host: true"));
    gateway.reload().await;
    assert_eq!(gateway.until_state("a", "serving").await["revision"], 2);
    refused("description: Not shared").await;
    gateway.put("b.yaml", second("share_host: true"));
    gateway.until_state("b", "serving").await;
    let on_host = gateway.client().with("host", "own.example");
    assert_eq!(on_host.search(Era::Modern, "/help", "q").await.data()["row_count"], 2);
    assert_eq!(on_host.search(Era::Modern, "", "q").await.data()["row_count"], 2);
    // Tenants that share a host cannot exclude each other.
    gateway.put("a.yaml", first("description: Alone again"));
    assert!(has(&gateway.until_state("a", "stale").await, "claim-taken"));
    let gateway = gateway.kill_and_restart().await;
    gateway.until_state("b", "serving").await;
    gateway.until_state("a", "stale").await;
}

#[tokio::test]
async fn a_setting_believes_what_exports_say_of_their_own_hosts() {
    let (good, other) = (FakeBackend::start().await, FakeBackend::start().await);
    let zip = Tenant::new("a", &good).with("public_url: https://own.example/a").zip();
    let setup = Setup::new().flag("--tls", "off").flag("--zip-hosts", "allow").file("a.zip", zip);
    let gateway = setup.file("b.zip", Tenant::new("b", &good).zip()).start().await;
    let on_host = gateway.client().with("host", "own.example");
    assert_eq!(on_host.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    for (stem, url) in [("c", "https://own.example/c"), ("d", "https://127.0.0.1/b")] {
        gateway
            .put(&format!("{stem}.zip"), Tenant::new(stem, &other).with(&format!("public_url: {url}")).zip());
        assert!(has(&gateway.until_state(stem, "rejected").await, "claim-taken"), "{url}");
    }
    assert_unasked(&other);
}
