//! Each setting, changed in the file: it is in force then, or the log names it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tenantd::settings::{Limits, SettingKey, live_settings};

use super::super::harness::{Setup, until};
use super::change;

/// What all rows start from. It is JSON, and so YAML.
fn base() -> Value {
    json!({
        "tenants": "tenants.d", "state": "state", "certs": "certs", "ready_file": "ready.json",
        "listen": ["127.0.0.1:0"], "admin": "127.0.0.1:0", "host": ["localhost"], "tls": "self-signed",
        "backend_allow": ["127.0.0.0/8"], "log": "json",
    })
}

/// Changes that belong to one setting, or to several that cannot stand alone.
fn rows() -> Vec<Value> {
    let eab = json!({ "acme_eab_kid": ["kid"], "acme_eab_key_file": ["eab.key"] });
    let admin = json!({ "admin_auth": "tokens.yaml", "admin_host": ["admin.test"], "admin_tls": "gateway" });
    let database = json!({ "store": "postgres://tenantd@127.0.0.1/logins", "store_password_file": "password",
                           "master_key_file": "master.key" });
    let mut rows = vec![
        json!({ "accept_tos": true }),
        json!({ "acme_ca_root": "root.pem" }),
        json!({ "acme_contact": ["ops@example.com"] }),
        json!({ "acme_directory": ["https://ca.test/directory"] }),
        json!({ "acme_profile": "shortlived" }),
        json!({ "acme_staging": ["https://ca.test/staging"] }),
        eab,
        json!({ "admin": "off" }),
        admin,
        json!({ "allowed_origin": ["https://app.test"] }),
        json!({ "audit": "32MB" }),
        json!({ "audit_files": 3 }),
        json!({ "audit_sinks": [{ "name": "lake", "http": "http://127.0.0.1:9/" }] }),
        json!({ "backend_allow": ["127.0.0.1/32"] }),
        json!({ "backend_only": ["portal.test"] }),
        json!({ "certs": "other" }),
        json!({ "confine_tenants": true, "secret_root": ["secrets"] }),
        json!({ "entra_authority": "https://login.microsoftonline.us" }),
        json!({ "extra_host": ["extra.test"] }),
        json!({ "hold_changes": "tools" }),
        json!({ "host": ["localhost", "other.test"] }),
        json!({ "hsts": "1d" }),
        json!({ "listen": ["127.0.0.1:1"] }),
        json!({ "listen_http": ["127.0.0.1:2"] }),
        json!({ "log": "text" }),
        json!({ "log_filter": "warn,tenantd=info" }),
        json!({ "node_name": "gw-1" }),
        json!({ "notify": [{ "name": "pager", "webhook": "http://127.0.0.1:9/" }] }),
        json!({ "open_tenants": "public" }),
        json!({ "otlp": { "endpoint": "http://127.0.0.1:9" } }),
        json!({ "private_networks": ["100.64.0.0/10"] }),
        json!({ "public_base": "https://mcp.test" }),
        json!({ "ready_file": "other.json" }),
        json!({ "require_auth": true }),
        json!({ "state": "other" }),
        database,
        json!({ "store_file": "address", "master_key_file": "master.key" }),
        json!({ "store_stale": "serve" }),
        json!({ "tenant_listeners": ["127.0.0.1:8001"] }),
        json!({ "tenants": "other.d" }),
        json!({ "tenants_from": "kubernetes" }),
        json!({ "tls": "off" }),
        json!({ "trusted_proxies": ["10.0.0.0/8"] }),
        json!({ "trusted_proxies": ["10.0.0.0/8"], "trusted_proxy_hops": 2 }),
        json!({ "watch": "poll" }),
        json!({ "zip_hosts": "allow" }),
    ];
    // 41 differs from each default, and is allowed for each.
    rows.extend(limit_names().into_iter().map(|name| json!({ "limits": { name: 41 } })));
    rows
}

fn limit_names() -> Vec<String> {
    let limits = serde_json::to_value(Limits::default()).expect("plain data");
    limits.as_object().expect("a section").keys().cloned().collect()
}

/// Returns the names of the settings that a row changes, as the log and the documents write them.
fn names(row: &Value) -> BTreeSet<String> {
    let settings = row.as_object().expect("settings").iter();
    settings
        .map(|(name, value)| match (name.as_str(), value.as_object()) {
            (section @ ("limits" | "otlp"), Some(own)) => {
                format!("{section}.{}", own.keys().next().expect("one"))
            }
            _ => name.clone(),
        })
        .collect()
}

/// Returns the names of all settings of the file.
fn all_settings() -> BTreeSet<String> {
    let keys = SettingKey::ALL.iter().map(|key| key.as_str().to_owned());
    let limits = limit_names().into_iter().map(|name| format!("limits.{name}"));
    let sections = ["audit_sinks", "notify", "otlp.endpoint"].map(str::to_owned);
    keys.chain(limits).chain(sections).collect()
}

#[tokio::test]
async fn each_changed_setting_is_in_force_or_named_as_waiting() {
    let mut setup = Setup::new().settings(&base().to_string());
    for flag in [
        "--tenants",
        "--state",
        "--certs",
        "--ready-file",
        "--listen",
        "--admin",
        "--host",
        "--backend-allow",
        "--log",
    ] {
        setup = setup.without(flag);
    }
    for file in ["eab.key", "root.pem", "password", "address"] {
        std::fs::write(setup.path().join(file), "").expect("written");
    }
    let gateway = setup.start().await;
    let live: BTreeSet<String> = live_settings().map(str::to_owned).collect();
    let mut changed = BTreeSet::new();
    for row in rows() {
        let names = names(&row);
        let mut settings = base();
        settings.as_object_mut().expect("settings").extend(row.as_object().expect("settings").clone());
        change(&gateway, &settings.to_string());
        let waiting: BTreeSet<&String> = names.difference(&live).collect();
        let (mut shown, mut is_met) = (Value::Null, false);
        until(&format!("{names:?} has been read"), async || {
            shown = serde_json::from_str(&gateway.admin("/api/settings").await.1).expect("JSON");
            assert_eq!(shown["refusal"], Value::Null, "{row}");
            let are_in_force = names.intersection(&live).all(|name| {
                let (name, of_limits) = (name.trim_start_matches("limits."), name.starts_with("limits."));
                let in_force = &shown["settings"];
                match of_limits {
                    true => in_force["limits"][name] == row["limits"][name],
                    false => is_shown(&in_force[name], &row[name]),
                }
            });
            is_met = are_in_force && shown["waiting"] == json!(waiting);
            is_met.then_some(())
        })
        .await;
        changed.extend(names);
    }
    assert_eq!(changed, all_settings(), "each setting is in a row");
    let log = gateway.output();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("wait for a restart")).collect();
    for name in changed.difference(&live) {
        assert!(said.iter().any(|line| line.contains(name.as_str())), "{name}: {said:?}");
    }
}

/// Whether a setting is shown as it was written; of a list of sections the first name decides.
fn is_shown(shown: &Value, written: &Value) -> bool {
    match written[0]["name"].as_str() {
        Some(name) => shown[0]["name"] == name,
        None => shown == written,
    }
}
