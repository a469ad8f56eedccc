//! Files in the tenants folder affect no other tenant.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

use tenantd::spec::TenantName;
use tenantd::telemetry::printable::is_harmful;

use super::super::command_line::{printed, run};
use super::super::harness::{Beside, FakeBackend, Setup, Tenant, until};

/// Configurations that are small in a zip and expand to gigabytes, e.g. through YAML aliases.
fn much_of_little() -> Vec<String> {
    let long = "x".repeat(240 << 10);
    let stars = |count: usize, name: &str| vec![format!("*{name}"); count].join(",");
    let zeros = "0,".repeat(100 << 10);
    vec![
        format!("s: &s '{long}'\nl1: &a [{}]\nl2: [{}]", stars(40, "s"), stars(59, "a")),
        format!("s: &s {{k: '{long}'}}\nl: [{}]", vec!["{<<: *s}"; 99].join(",")),
        format!("s: &s\n  ? '{long}'\n  : 1\nl1: &a [{}]\nl2: [{}]", stars(40, "s"), stars(59, "a")),
        format!("backend:\n  search:\n    body: '[{zeros}{{{{query}}}}]'"),
        format!("n: {}{}{}", "&n [".repeat(28), "x,".repeat(9_900), "]".repeat(28)),
    ]
}

#[tokio::test]
async fn a_few_kilobytes_of_zips_do_not_become_gigabytes_and_the_gateway_starts() {
    let backend = FakeBackend::start().await;
    let mut setup = Setup::new().memory_mib(500).file("b.zip", Tenant::new("b", &backend).zip());
    for (kind, lines) in much_of_little().into_iter().enumerate() {
        for copy in 0..4 {
            let zip = Tenant::new(&format!("a{kind}x{copy}"), &backend).with(&lines).zip();
            assert!(zip.len() < 3_000, "{kind}: {}", zip.len());
            setup = setup.file(&format!("a{kind}x{copy}.zip"), zip);
        }
    }
    let gateway = setup.start().await;
    let client = gateway.client();
    let beside = Beside::watch(client, "/b");
    let said = async |stem: &str| gateway.until_state(stem, "rejected").await["findings"].to_string();
    for kind in 0..3 {
        let findings = said(&format!("a{kind}x0")).await;
        assert!(findings.contains("yaml-budget") && findings.contains("512 KiB"), "{kind}: {findings}");
    }
    assert!(said("a3x0").await.contains("body-too-long"));
    // A hundred more at once, while the gateway serves.
    for number in 0..100 {
        let lines = &much_of_little()[number % 5];
        let name = format!("z{number}");
        gateway.put(&format!("{name}.zip"), Tenant::new(&name, &backend).with(lines).zip());
    }
    gateway.reload().await;
    until("all are judged", async || gateway.status("z98").await.map(drop)).await;
    beside.finish().await.assert_unharmed("b beside zips of few bytes");
    let peak = gateway.peak_mib();
    eprintln!("peak {peak} MiB");
    assert!(peak < 150, "120 zips of 3 kB took {peak} MiB");
}

#[tokio::test]
async fn a_receipt_is_written_whatever_lies_under_its_name_and_the_process_ends() {
    let backend = FakeBackend::start().await;
    let mut gateway = Setup::new().file("b.zip", Tenant::new("b", &backend).zip()).start().await;
    let receipt = |name: &str| gateway.tenant_file(&format!("{name}.status.json"));
    assert!(Command::new("mkfifo").arg(receipt("pipe")).status().expect("mkfifo runs").success());
    symlink("/dev/zero", receipt("zero")).expect("linked");
    let sparse = File::create(receipt("sparse")).expect("made");
    sparse.set_len(4 << 30).expect("a hole");
    let theirs = gateway.path().join("theirs");
    fs::write(&theirs, "theirs").expect("written");
    symlink(&theirs, receipt("link")).expect("linked");
    let names = ["pipe", "zero", "sparse", "link", "after"];
    let beside = Beside::watch(gateway.client(), "/b");
    for name in names {
        gateway.put(&format!("{name}.zip"), Tenant::new(name, &backend).zip());
        gateway.until_state(name, "serving").await;
    }
    for name in names {
        until(&format!("the receipt of {name}"), async || {
            let receipt = receipt(name);
            let about = fs::symlink_metadata(&receipt).ok().filter(fs::Metadata::is_file)?;
            (about.len() < 1 << 20 && fs::read_to_string(receipt).ok()?.contains("serving")).then_some(())
        })
        .await;
    }
    assert_eq!(fs::read_to_string(&theirs).expect("there"), "theirs");
    beside.finish().await.assert_unharmed("b beside odd receipts");
    assert!(gateway.peak_mib() < 200, "a receipt was read: {} MiB", gateway.peak_mib());
    gateway.signal("TERM");
    assert!(gateway.until_ended().await.success());
}

#[tokio::test]
async fn the_name_of_a_file_is_never_obeyed_by_a_terminal_and_begins_no_line() {
    const ODD: &str = "evil\n2026-01-01T00:00:00Z  INFO forged\u{1b}]0;t\u{7}\u{9b}31m\u{202e}";
    let backend = FakeBackend::start().await;
    let bad = Tenant::new("bad", &backend).with("path_prefix: /a/../b");
    let gateway = Setup::new().instead("--log", "text").file("b.zip", Tenant::new("b", &backend).zip());
    let gateway = gateway.file(&format!("{ODD}.yaml"), Tenant::new("odd", &backend).yaml());
    let gateway =
        gateway.file(&format!("x{ODD}.yaml"), bad.yaml()).file(&format!("{ODD}.stray"), "").start().await;
    let name = |stem: &str| TenantName::from_entry_id(stem).expect("a name").to_string();
    let (odd, bad) = (name(ODD), name(&format!("x{ODD}")));
    gateway.until_state(&odd, "serving").await;
    gateway.until_state(&bad, "rejected").await;
    gateway.remove(&format!("{ODD}.yaml"));
    gateway.until_gone(&odd).await;
    gateway.put(&format!("{ODD}.yaml"), Tenant::new("odd", &backend).with("description: b").yaml());
    gateway.until_state(&odd, "serving").await;
    let admin = gateway.admin_address().to_string();
    let folder = gateway.tenant_file("").display().to_string();
    let verbs: [&[&str]; 9] = [
        &["tenants", "list"],
        &["tenants", "show", &odd],
        &["tenants", "show", &bad],
        &["tenants", "show", &bad, "--format", "json"],
        &["tenants", "history", &odd],
        &["tenants", "diff", &odd],
        &["tenants", "show", ODD],
        &["certs", "list"],
        &["clients", "list", ODD],
    ];
    let mut said: Vec<(String, String)> = verbs
        .iter()
        .map(|verb| (format!("{verb:?}"), printed(&run(&[verb, &["--admin", &admin][..]].concat()))))
        .collect();
    for format in ["human", "json"] {
        said.push((format!("check {format}"), printed(&run(&["check", &folder, "--format", format]))));
    }
    let show_bad = &said[2].1;
    assert!(show_bad.contains("evil\u{fffd}2026") && show_bad.contains("bad-prefix"), "{show_bad}");
    assert!(said[9].1.contains("evil\u{fffd}2026"), "check names no file: {}", said[9].1);
    said.push(("the log".into(), gateway.output()));
    for (what, text) in said {
        assert!(!text.is_empty(), "{what} says nothing");
        let obeyed = text.chars().find(|&c| is_harmful(c) && !"\n\t".contains(c));
        assert_eq!(obeyed, None, "{what}: {text:?}");
        let forged = text.lines().find(|line| line.starts_with("2026-01-01"));
        assert_eq!(forged, None, "{what}: {text}");
    }
}

#[tokio::test]
async fn a_link_in_a_tenants_folder_does_not_bring_it_anothers_key() {
    let (mine, theirs) = (FakeBackend::start().await, FakeBackend::start().await);
    let gateway = Setup::new().start().await;
    for folder in ["a", "b"] {
        fs::create_dir(gateway.tenant_file(folder)).expect("made");
    }
    fs::write(gateway.tenant_file("b/server.zip"), Tenant::new("b", &theirs).zip()).expect("written");
    gateway.until_state("b", "serving").await;
    let beside = Beside::watch(gateway.client(), "/b");
    let url = |path: &str| mine.url(path);
    let overlay = format!("search_url: {}\ncontext_url: {}\n", url("/nlp-search"), url("/nlp-context"));
    symlink("../b/server.zip", gateway.tenant_file("a/server.zip")).expect("linked");
    fs::write(gateway.tenant_file("a/a.yaml"), overlay).expect("written");
    // The tenant would serve now if links out of its folder were followed.
    until("the link is refused beside the overlay", async || {
        let status = gateway.status("a").await?;
        let files = status["files"].to_string();
        (files.contains("a.yaml") && status["findings"].to_string().contains("file-outside")).then_some(())
    })
    .await;
    assert_eq!(gateway.client().get("/a/").await.status, 404);
    assert_eq!(mine.counts().requests, 0, "b's key reached a's backend");
    // With an export of its own the tenant serves.
    fs::remove_file(gateway.tenant_file("a/server.zip")).expect("removed");
    fs::write(gateway.tenant_file("a/server.zip"), Tenant::new("a", &mine).zip()).expect("written");
    gateway.until_state("a", "serving").await;
    beside.finish().await.assert_unharmed("b beside a link to its file");
}
