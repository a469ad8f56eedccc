//! `tenantd support-bundle`: it has what helps, and no secret.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::command_line::{printed, run};
use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
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
    let hook = format!("notify: [{{name: ops, webhook: \"https://127.0.0.1:1/{}\"}}]\n", secret("hook"));
    let gateway = Setup::new()
        .settings(&hook)
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
        ("settings.json", "\"webhook\": \"https://127.0.0.1:1\""),
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
    let mode = fs::metadata(&file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner may read it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_admin_listener_gives_it_to_whoever_has_a_token() {
    let setup = Setup::new();
    let at = |name: &str| setup.path().join(name).display().to_string();
    let (tokens, token_file) = (at("tokens.yaml"), at("token"));
    let token = format!("ta_c4naryS3cret{}", "0".repeat(53));
    let digest = tenantd::base::digest::Digest::of(token.as_bytes());
    let entry = format!("tokens:\n  - {{name: ann, sha256: \"{digest}\", role: read}}\n");
    fs::write(&tokens, entry).expect("written");
    fs::write(&token_file, &token).expect("written");
    let access = ["--admin-auth", &tokens, "--admin-tls", "gateway", "--admin-host", "localhost"];
    let pairs = access.chunks(2).map(|pair| (pair[0], pair[1]));
    let setup = pairs.fold(setup, |setup, (flag, value)| setup.flag(flag, value));
    let gateway = setup.start().await;
    let ca = gateway.ca().expect("a local authority").display().to_string();
    let members =
        bundle(&gateway, &[&access[..], &["--admin-ca", &ca, "--admin-token-file", &token_file]].concat());
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"tenants.json") && names.contains(&"metrics.txt"), "{names:?}");
    for (name, text) in &members {
        secret::assert_none(name, text);
    }
    // The doctor is let in by the same token, and says what is missing with another one.
    let admin = gateway.admin_address().to_string();
    let ask = |more: &[&str]| {
        let fixed = ["doctor", "--admin", &admin, "--admin-ca", &ca];
        printed(&run(&[&fixed[..], &access, more].concat()))
    };
    let said = ask(&["--admin-token-file", &token_file]);
    assert!(said.contains(&format!("tenantd {} answers", env!("CARGO_PKG_VERSION"))), "{said}");
    fs::write(&token_file, "ta_another").expect("written");
    let said = ask(&["--admin-token-file", &token_file]);
    assert!(said.contains("its admin listener refuses") && said.contains("--admin-token-file"), "{said}");
}

#[test]
fn it_is_shown_before_somebody_at_a_terminal_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("case.zip");
    let ask = |answer: &str| {
        // A terminal of its own, in which the answer is typed.
        let line = format!("{BINARY} support-bundle --admin 127.0.0.1:1 --out {}", file.display());
        let mut asked = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) runs");
        writeln!(asked.stdin.as_mut().expect("it is piped"), "{answer}").expect("typed");
        let output = asked.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = ask("n");
    let (shown, asked) = (said.find("versions.json"), said.find("Write this to"));
    assert!(shown.is_some() && shown < asked, "{said}");
    assert!(said.contains("nothing was written") && !file.exists(), "{said}");
    ask("y");
    assert!(file.exists());
}
