//! The commands of docs/cluster.md, as they stand there but for ports, folders and what only root may
//! do: three gateways on one database, of which one may be killed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cluster_figures::postgres_cluster::OwnServer;
use super::harness::gateway::BINARY;
use super::harness::{FakeBackend, Tenant};

/// Returns the indented lines of a section.
fn commands(section: &str) -> String {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).expect("read");
    let from = page.find(section).expect("the section is there");
    let text = &page[from + section.len()..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

/// Draws the digits that ports begin with, so that those with 0, 1, 2 and 3 behind are free.
fn free_port_prefix() -> u16 {
    let drawn = || 1_000 + u16::from_le_bytes(tenantd::base::random::bytes()) % 2_000;
    let is_free = |prefix: &u16| {
        (0..4).all(|digit| std::net::TcpListener::bind(("127.0.0.1", prefix * 10 + digit)).is_ok())
    };
    std::iter::repeat_with(drawn).take(100).find(is_free).expect("some are free")
}

/// Replaces what must be there.
fn replace(script: &mut String, from: &str, to: &str) {
    assert!(script.contains(from), "docs/cluster.md lacks `{from}`");
    *script = script.replace(from, to);
}

/// Ends what the script started.
const END: &str = r#"
end() {
    [ ! -e nginx.pid ] || kill "$(cat nginx.pid)" || true
    for file in gateway-*.pid; do kill -9 "$(cat "$file")" 2>/dev/null || true; done
}
trap end EXIT
"#;
/// The first lines of a configuration for NGINX that root's service has elsewhere.
const NGINX: &str = r#"
cat > nginx.conf <<END
pid $PWD/nginx.pid;
error_log $PWD/nginx.log;
events {}
http { access_log off; include $PWD/conf.d/tenantd.conf; }
END
nginx -c "$PWD/nginx.conf"
"#;

#[tokio::test]
async fn three_gateways_are_set_up_by_the_commands_of_the_document() {
    let (server, backend) = (OwnServer::start(), FakeBackend::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    fs::create_dir(folder.path().join("conf.d")).expect("created");
    fs::write(folder.path().join("export.zip"), Tenant::new("acme", &backend).zip()).expect("written");
    let (public, admin) = (free_port_prefix().to_string(), free_port_prefix().to_string());

    let mut script = commands("## Three gateways in ten minutes");
    let connection = format!("-h 127.0.0.1 -p {} -U postgres", server.port);
    replace(&mut script, "apt install postgresql nginx\n", "");
    replace(&mut script, "/srv/cluster", &place);
    replace(&mut script, "su postgres -c psql", &format!("psql -q -d postgres {connection}"));
    replace(
        &mut script,
        "su postgres -c \"createdb --owner tenantd tenantd\"",
        &format!("createdb {connection} --owner tenantd tenantd"),
    );
    replace(&mut script, "tenantd@127.0.0.1/", &format!("tenantd@127.0.0.1:{}/", server.port));
    replace(&mut script, "990$n", &format!("{admin}$n"));
    replace(&mut script, "800$n", &format!("{public}$n"));
    for digit in 0..4 {
        replace(&mut script, &format!("800{digit}"), &format!("{public}{digit}"));
    }
    replace(&mut script, "/etc/nginx/conf.d/", &format!("{place}/conf.d/"));
    replace(&mut script, "service nginx restart\n", NGINX);
    // What a person does between the commands is to wait until the gateways serve.
    let serving = format!(
        "for n in 1 2 3; do until tenantd tenants show acme --admin 127.0.0.1:{admin}$n 2>/dev/null | grep -q serving; \
         do sleep 0.1; done; done\n"
    );
    let copy = "cp ~/mcp_export.zip tenants.d/acme.zip\n";
    replace(&mut script, copy, &format!("cp export.zip tenants.d/acme.zip\n{serving}"));

    let programs = Path::new(BINARY).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:/usr/lib/postgresql/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    let mut shell = Command::new("timeout");
    shell.args(["120", "bash", "-eu", "-c", &format!("cd {place}\n{END}{script}")]);
    shell
        .env_clear()
        .env("PATH", path)
        .env("HOME", &place)
        .env("TENANTD_BACKEND_ALLOW", "127.0.0.0/8")
        .stdin(Stdio::null());
    let ran =
        tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic").expect("bash runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    let answers: Vec<_> = said.lines().rev().take(6).collect();
    assert_eq!(answers, ["200"; 6], "one of three gateways was killed, and nobody noticed: {said}");
    assert_eq!(said.matches("acme  serving").count(), 3, "each of them lists the tenant: {said}");
}
