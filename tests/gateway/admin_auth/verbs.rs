//! Every verb that talks to a running gateway: over TLS, with a token, by the settings of its file
//! and by a URL.

use std::fs;
use std::process::Command;

use super::{OPERATOR, READER, tokens};
use crate::harness::gateway::BINARY;
use crate::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

/// The verbs whose `--admin` may be a URL, each with what it prints of the gateway's answer.
const BY_URL: [(&[&str], &str); 23] = [
    (&["healthcheck"], ""),
    (&["healthcheck", "--serving"], ""),
    (&["tenants", "list"], "acme"),
    (&["tenants", "show", "acme"], "acme"),
    (&["tenants", "history", "acme"], "in force"),
    (&["tenants", "diff", "acme"], "revision"),
    (&["tenants", "pause", "acme"], "acme"),
    (&["tenants", "resume", "acme"], "acme"),
    (&["tenants", "reload"], ""),
    (&["clients", "list", "acme"], ""),
    (&["keys", "show", "acme"], "signing keys"),
    (&["logins", "list"], ""),
    (&["logins", "blocks"], ""),
    (&["logins", "end", "--all", "--yes"], ""),
    (&["usage"], ""),
    (&["nodes"], "shares its store with no other"),
    (&["audit", "--event", "call"], "acme"),
    (&["notify", "show"], ""),
    (&["notify", "test"], "names no target"),
    (&["certs", "list"], "localhost"),
    (&["certs", "show", "localhost"], "localhost"),
    (&["certs", "renew", "localhost"], ""),
    (&["store", "backup", "copy.db"], "copied"),
];

/// The verbs that know the gateway by its settings only.
const BY_SETTINGS: [(&[&str], &str); 4] = [
    (&["check", "tenants.d"], "checked with the settings of the gateway"),
    (&["certs", "doctor"], "ok  gateway: it answers"),
    (&["support-bundle", "--yes", "--out", "case.zip"], "readiness.json"),
    (&["doctor", "acme", "--format", "json"], "gateway-answers"),
];

/// What no answer says to who is let in.
const REFUSALS: [&str; 3] = ["not one of this gateway", "TLS with the gateway", "no gateway answers"];

struct Stage {
    gateway: Gateway,
    _backend: FakeBackend,
}

impl Stage {
    async fn start() -> Self {
        let backend = FakeBackend::start().await;
        let setup = Setup::new().file("acme.yaml", Tenant::new("acme", &backend).yaml());
        fs::write(setup.path().join("tokens.yaml"), tokens()).expect("written");
        let file = setup.path().join("tokens.yaml").display().to_string();
        let setup = setup.flag("--admin-auth", &file).flag("--admin-tls", "gateway");
        let gateway = setup.flag("--admin-host", "localhost").start().await;
        until("acme is served", async || {
            let status = gateway.client().search(Era::Modern, "/acme", "q").await.status;
            (status == 200).then_some(())
        })
        .await;
        let settings = format!(
            "tenants: tenants.d\nstate: state\ncerts: certs\nadmin: {}\nadmin_auth: tokens.yaml\nadmin_tls: gateway\n\
             admin_host: localhost\nbackend_allow: 127.0.0.0/8\nlisten: {}\n",
            gateway.admin_address(),
            gateway.address()
        );
        fs::write(gateway.path().join("verbs.yaml"), settings).expect("written");
        Self { gateway, _backend: backend }
    }

    /// Runs a verb with a token. Returns what it prints.
    fn run(&self, verb: &[&str], more: &[&str], token: &str) -> String {
        // A copy would not be replaced.
        let _gone = fs::remove_file(self.gateway.path().join("copy.db"));
        let mut command = Command::new(BINARY);
        command.args(verb).args(more).env_clear().env("TENANTD_ADMIN_TOKEN", token);
        let output = command.current_dir(self.gateway.path()).output().expect("it runs");
        let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        printed.concat()
    }
}

fn is_refused(printed: &str) -> bool {
    REFUSALS.iter().any(|refusal| printed.contains(refusal))
        || printed.contains("too many wrong tokens")
        || printed.contains("error: unexpected argument")
        || printed.contains("not the admin listener")
}

#[tokio::test]
async fn every_verb_speaks_tls_and_sends_its_token() {
    let stage = Stage::start().await;
    let url = format!("https://localhost:{}", stage.gateway.admin_address().port());
    let ca = stage.gateway.ca().expect("a local authority").display().to_string();
    let by_url = ["--admin", &url, "--admin-ca", &ca];
    let by_settings = ["--config", "verbs.yaml"];
    for (verb, expected) in BY_URL {
        for more in [&by_url[..], &by_settings] {
            let printed = stage.run(verb, more, OPERATOR);
            assert!(!is_refused(&printed) && printed.contains(expected), "{verb:?} {more:?}: {printed}");
            // The folder answers for the gateway that has it open, too.
            let printed = stage.run(verb, more, "ta_wrong");
            assert!(is_refused(&printed), "{verb:?} {more:?} with a wrong token: {printed}");
        }
    }
    for (verb, expected) in BY_SETTINGS {
        let printed = stage.run(verb, &by_settings, OPERATOR);
        assert!(!is_refused(&printed) && printed.contains(expected), "{verb:?}: {printed}");
        let printed = stage.run(verb, &by_settings, "ta_wrong");
        assert!(
            is_refused(&printed) || !printed.contains(expected),
            "{verb:?} with a wrong token: {printed}"
        );
    }
    // Who may only read is told so.
    let printed = stage.run(&["tenants", "pause", "acme"], &by_settings, READER);
    assert!(printed.contains("the role operate"), "{printed}");
}
