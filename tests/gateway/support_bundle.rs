//! `tenantd support-bundle`: it has what helps, and no secret.

use std::fs;
use std::io::Read as _;

use super::command_line::{printed, run};
use super::harness::entra::FakeEntra;
use super::harness::login::App;
use super::harness::secret::{self, secret};
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

/// Returns the members of the archive that is written.
fn bundle(gateway: &Gateway, more: &[&str]) -> Vec<(String, String)> {
    let file = gateway.path().join("case.zip");
    let (admin, out) = (gateway.admin_address().to_string(), file.display().to_string());
    let fixed =
        ["support-bundle", "--admin", &admin, "--out", &out, "--yes", "--backend-allow", "127.0.0.0/8"];
    let output = run(&[&fixed[..], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let mut archive = zip::ZipArchive::new(fs::File::open(file).expect("written")).expect("a zip");
    let names: Vec<String> = archive.file_names().map(|name| name.expect("a name").into_owned()).collect();
    let mut members = Vec::new();
    for name in names {
        assert!(printed(&output).contains(&name), "{name} is not shown: {}", printed(&output));
        let mut text = String::new();
        archive.by_name(&name).expect("a member").read_to_string(&mut text).expect("text");
        members.push((name, text));
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_what_helps_and_none_of_the_secrets() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml())
        .file("bad.yaml", Tenant::new("bad", &backend).with("path_prefix: /a/../b").yaml())
        .start()
        .await;
    gateway.until_state("a", "serving").await;
    let tokens = App::registered(&gateway, "/a").await.tokens(&entra).await;
    let client = gateway.client().bearer(&tokens.access);
    assert_eq!(client.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    let members = bundle(&gateway, &[]);
    let text =
        |name: &str| &members.iter().find(|member| member.0 == name).unwrap_or_else(|| panic!("no {name}")).1;
    for (name, words) in [
        ("versions.json", env!("CARGO_PKG_VERSION")),
        ("settings.txt", "backend_allow"),
        ("gateway.json", gateway.base()),
        ("readiness.json", "\"ready\": true"),
        ("tenants.json", "bad-prefix"),
        ("certificates.json", "localhost"),
        ("metrics.txt", "tenantd_"),
        ("log.txt", "tenant loaded"),
        ("audit.jsonl", "ada@contoso.com"),
        ("limits.txt", "Max open files"),
        ("folders.txt", "bad.yaml"),
        ("doctor.json", "tenant-rejected"),
    ] {
        assert!(text(name).contains(words), "{name} lacks {words}: {}", text(name));
    }
    for (name, text) in &members {
        secret::assert_none(name, text);
        for token in [&tokens.access, &tokens.refresh] {
            assert!(!text.contains(token.as_str()), "a token is in {name}");
        }
    }
    let members = bundle(&gateway, &["--without-people"]);
    for (name, text) in members {
        assert!(!text.contains("ada@contoso.com"), "{name} names a person");
    }
}

#[test]
fn nothing_is_written_without_a_yes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("case.zip");
    let output = run(&["support-bundle", "--admin", "127.0.0.1:1", "--out", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("--yes") && !file.exists(), "{}", printed(&output));
    let output =
        run(&["support-bundle", "--admin", "127.0.0.1:1", "--yes", "--out", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "less can be had without a gateway: {}", printed(&output));
    assert!(file.exists());
}
