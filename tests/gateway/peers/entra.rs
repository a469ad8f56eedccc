//! Microsoft's login, played by a third-party OpenID provider (`tests/peers/entra.mjs`).

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use url::Url;

use super::library::beside_packages;
use super::script::Script;
use super::{cache, script};
use crate::harness::entra::{ACCOUNT, APP, DIRECTORY};
use crate::harness::secret::secret;

/// The running provider. Dropping it stops it.
pub(super) struct Entra {
    script: Script,
    authority: String,
}

impl Entra {
    /// Starts the provider with an app and one account.
    pub(super) async fn start() -> Self {
        let mut script = Script::run("entra", |folder| {
            script::command(cache::node(), &beside_packages("entra.mjs", folder))
        });
        let order = json!({ "do": "start", "app": APP, "directory": DIRECTORY, "secret": secret("entra") });
        let started = script.ask(order).await;
        let authority =
            started["authority"].as_str().unwrap_or_else(|| panic!("it does not start: {started}"));
        let mut entra = Self { authority: authority.to_owned(), script };
        entra.account(json!({})).await;
        entra
    }

    /// Returns the value for `--entra-authority`.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the lines of a tenant's file for a login here.
    pub(super) fn lines() -> String {
        format!(
            "oauth_enabled: true\nmicrosoft_client_id: {APP}\nmicrosoft_client_secret: {}\n\
             microsoft_tenant_id: {DIRECTORY}",
            secret("entra")
        )
    }

    /// Registers the gateway's redirect URIs, as an operator does in Entra.
    pub(super) async fn register(&mut self, redirect_uris: &[String]) {
        let answer = self.script.ask(json!({ "do": "register", "redirect_uris": redirect_uris })).await;
        assert_eq!(answer["registered"], true, "{answer}");
    }

    /// Adds these claims to all further logins.
    pub(super) async fn account(&mut self, more: Value) {
        let mut claims = json!({
            "tid": DIRECTORY, "oid": ACCOUNT, "name": "Ada Lovelace", "preferred_username": "ada@contoso.com",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        self.script.ask(json!({ "do": "account", "claims": claims })).await;
    }

    /// Visits a URL as a browser does, with cookies, and follows redirects until one leads to
    /// another host. Returns that redirect's target.
    pub(super) async fn visit(&self, authorize: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().expect("a client");
        let (mut at, mut cookies) = (Url::parse(authorize).expect("a URL"), BTreeMap::new());
        for _ in 0..10 {
            let jar: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let answer =
                client.get(at.clone()).header(COOKIE, jar.join("; ")).send().await.expect("an answer");
            for line in answer.headers().get_all(SET_COOKIE) {
                let pair = line.to_str().expect("ASCII").split(';').next().unwrap_or_default();
                let (name, value) = pair.split_once('=').expect("a cookie");
                cookies.insert(name.to_owned(), value.to_owned());
            }
            let location = answer.headers().get(LOCATION).map(|location| location.to_str().expect("ASCII"));
            let Some(location) = location else {
                panic!("no way on: {} {}", answer.status(), answer.text().await.unwrap_or_default());
            };
            at = at.join(location).expect("a URL");
            if !at.as_str().starts_with(&self.authority) {
                return at.to_string();
            }
        }
        panic!("no end of redirects at {at}");
    }
}
