//! The settings as operators and their programs read them: JSON by the names of the file, with the
//! unit in the name where that has none (`hsts_seconds`, `audit_bytes`).
//!
//! No setting is a secret, but two texts can contain one: a URL may have a password or a token in
//! it. Of webhooks only scheme and host are told, and no URL is told with its user and password.

use std::fmt::Display;

use serde_json::{Value, json};
use url::Url;

use super::{
    AcmeSettings, AdminAccess, AdminTls, ExtraHosts, NotifyChannel, NotifyTarget, OtlpSettings, Settings,
    WebhookAddress, audit_sinks,
};
use crate::spec::HoldChanges;

impl Settings {
    /// Returns all settings by their names in the file, without what may be secret in a URL.
    pub fn to_json(&self) -> Value {
        // A new setting does not compile here until somebody decides how it is told.
        let Self {
            tenants,
            tenants_from,
            state,
            certs,
            listen,
            tenant_listeners,
            listen_http,
            admin,
            admin_access,
            is_admin_optional: _,
            hosts,
            public_base,
            tls,
            acme,
            watch,
            log,
            log_filter,
            open_tenants,
            private_networks,
            trusted_proxies,
            trusted_proxy_hops,
            hold_changes,
            zip_hosts,
            backend_allow,
            backend_only,
            secret_roots,
            confine_tenants,
            ready_file,
            master_key_file,
            store,
            node_name: _,
            entra_authority,
            limits,
            otlp,
            extra_hosts,
            allowed_origins,
            hsts,
            audit,
            audit_files,
            audit_sinks,
            notify,
        } = self;
        let AdminAccess { tokens, hosts: admin_hosts, tls: admin_tls } = admin_access;
        let AcmeSettings { cas, contact, ca_root, profile, accept_tos } = acme;
        let external_accounts = cas.iter().filter_map(|ca| ca.eab.as_ref());
        let held = match hold_changes {
            HoldChanges::Nothing => "off",
            HoldChanges::Tools => "tools",
        };
        let extra_host = match extra_hosts {
            ExtraHosts::These(hosts) => texts(hosts),
            ExtraHosts::Any => vec!["*".to_owned()],
        };
        let told = [
            ("tenants", json!(tenants)),
            ("tenants_from", json!(tenants_from)),
            ("state", json!(state)),
            ("certs", json!(certs)),
            ("listen", json!(texts(listen))),
            ("tenant_listeners", json!(texts(tenant_listeners.ranges()))),
            ("listen_http", json!(listen_http)),
            ("admin", json!(admin)),
            ("admin_auth", json!(tokens)),
            ("admin_host", json!(texts(admin_hosts))),
            ("admin_tls", json!(admin_tls.as_ref().map(describe_admin_tls))),
            ("host", json!(texts(hosts))),
            ("public_base", json!(public_base)),
            ("tls", json!(tls)),
            ("accept_tos", json!(accept_tos)),
            ("acme_directory", json!(cas.iter().map(|ca| hide_user(&ca.directory)).collect::<Vec<_>>())),
            (
                "acme_staging",
                json!(cas.iter().map(|ca| ca.staging.as_deref().map(hide_user)).collect::<Vec<_>>()),
            ),
            (
                "acme_eab_kid",
                json!(external_accounts.clone().map(|account| &account.kid).collect::<Vec<_>>()),
            ),
            (
                "acme_eab_key_file",
                json!(external_accounts.map(|account| &account.key_file).collect::<Vec<_>>()),
            ),
            ("acme_contact", json!(contact)),
            ("acme_ca_root", json!(ca_root)),
            ("acme_profile", json!(profile)),
            ("watch", json!(watch)),
            ("log", json!(log)),
            ("log_filter", json!(log_filter)),
            ("open_tenants", json!(open_tenants)),
            ("private_networks", json!(texts(private_networks))),
            ("trusted_proxies", json!(texts(trusted_proxies))),
            ("trusted_proxy_hops", json!(trusted_proxy_hops)),
            ("hold_changes", json!(held)),
            ("zip_hosts", json!(zip_hosts)),
            ("backend_allow", json!(texts(backend_allow))),
            ("backend_only", json!(texts(backend_only.items()))),
            ("secret_root", json!(secret_roots)),
            ("confine_tenants", json!(confine_tenants)),
            ("ready_file", json!(ready_file)),
            ("master_key_file", json!(master_key_file)),
            ("store", json!(store.address.as_deref().map(hide_user))),
            ("store_file", json!(store.address_file)),
            ("store_password_file", json!(store.password_file)),
            ("store_stale", json!(store.stale)),
            ("node_name", json!(self.node_name())),
            ("entra_authority", json!(hide_user(entra_authority.as_str()))),
            ("limits", json!(limits)),
            ("otlp", json!(describe_otlp(otlp))),
            ("extra_host", json!(extra_host)),
            ("allowed_origin", json!(allowed_origins)),
            ("hsts_seconds", json!(hsts.map(|time| time.as_secs()))),
            ("audit_bytes", json!(audit)),
            ("audit_files", json!(audit_files)),
            ("audit_sinks", json!(audit_sinks.iter().map(audit_sinks::describe).collect::<Vec<_>>())),
            ("notify", json!(notify.iter().map(describe_target).collect::<Vec<_>>())),
        ];
        Value::Object(told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn describe_admin_tls(tls: &AdminTls) -> Value {
    match tls {
        AdminTls::Off => json!("off"),
        AdminTls::Gateway => json!("gateway"),
        AdminTls::Files { certificate, key } => json!([certificate, key]),
    }
}

fn describe_otlp(otlp: &OtlpSettings) -> Value {
    let mut section = json!(otlp);
    if let Some(endpoint) = &otlp.endpoint {
        section["endpoint"] = json!(hide_user(endpoint));
    }
    section
}

fn describe_target(target: &NotifyTarget) -> Value {
    let kinds: Vec<&str> = target.kinds.iter().map(|kind| kind.as_str()).collect();
    let mut told = json!({ "name": target.name, "on": kinds });
    match &target.channel {
        NotifyChannel::Command(words) => told["command"] = json!(words),
        NotifyChannel::Webhook(webhook) => {
            match &webhook.address {
                // The path of a webhook is often all that keeps others from using it.
                WebhookAddress::Url(url) => told["webhook"] = json!(url.origin().ascii_serialization()),
                WebhookAddress::File(path) => told["webhook_file"] = json!(path),
            }
            told["secret_file"] = json!(webhook.secret_file);
            told["format"] = json!(webhook.format);
        }
    }
    told
}

/// Returns a URL without its user and password; a text that is no URL as it is.
fn hide_user(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            // Both fail only for URLs that cannot have a user.
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_without_its_user() {
        assert_eq!(hide_user("https://ada:secret@otlp.test/v1"), "https://otlp.test/v1");
        assert_eq!(hide_user("https://otlp.test"), "https://otlp.test");
        let otlp = OtlpSettings { endpoint: Some("http://a:b@h:4318".into()), ..OtlpSettings::default() };
        let told = Settings { otlp, ..Settings::default() }.to_json();
        assert_eq!(told["otlp"]["endpoint"], "http://h:4318/");
        assert_eq!((&told["tenants"], &told["host"][0]), (&json!("tenants.d"), &json!("localhost")));
    }
}
