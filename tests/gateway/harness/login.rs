//! An OAuth client and a person's browser that log in at one tenant, step by step.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::client::{Answer, read};
use super::entra::FakeEntra;
use super::{Client, Gateway};

/// RFC 7636, section 4.1, requires at least 43 characters.
pub(crate) const VERIFIER: &str = "a-verifier-that-is-just-long-enough-for-s256";
pub(crate) const CALLBACK: &str = "http://127.0.0.1:7777/callback";

/// Returns the S256 challenge (RFC 7636, section 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(digest)
}

/// A browser that keeps cookies and does not follow redirects by itself.
pub(crate) struct Browser {
    client: Client,
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        Self { client: gateway.client(), cookies: BTreeMap::new() }
    }

    /// A browser that reaches the gateway by another client, such as through a proxy.
    pub(crate) fn with(client: Client) -> Self {
        Self { client, cookies: BTreeMap::new() }
    }

    /// Requests a URL or path of the gateway.
    pub(crate) async fn get(&mut self, at: &str) -> Answer {
        let path = at.strip_prefix(self.client.base()).unwrap_or(at).to_owned();
        let request = self.client.request(Method::GET, &path).header("accept", "text/html");
        self.send(request).await
    }

    /// Sends a form as a page of the gateway does: same origin, with `Origin: null`.
    pub(crate) async fn post(&mut self, at: &str, form: &[(&str, &str)]) -> Answer {
        let path = at.strip_prefix(self.client.base()).unwrap_or(at).to_owned();
        let request = self.client.request(Method::POST, &path).header("sec-fetch-site", "same-origin");
        self.send(request.header("origin", "null").form_of(form)).await
    }

    /// Follows a client's authorization request through consent and login. Returns the redirect URI
    /// with its parameters.
    pub(crate) async fn log_in(&mut self, authorize: &str, entra: &FakeEntra) -> Url {
        let way = self.consent(authorize).await;
        let callback = entra.visit(&way).await;
        self.come_back(&callback).await
    }

    /// Consents to an authorization request. Returns the URL of Microsoft's login.
    pub(crate) async fn consent(&mut self, authorize: &str) -> String {
        let page = self.get(authorize).await;
        assert_eq!(page.status, 200, "{page:?}");
        let (tenant, _) = authorize.split_once("/authorize?").expect("an authorization request");
        self.allow(tenant, &page).await
    }

    /// The same, starting at the consent page of a tenant.
    async fn allow(&mut self, tenant: &str, page: &Answer) -> String {
        let blob = field(&page.text, "request");
        let form = [("request", blob.as_str()), ("decision", "allow")];
        let on = self.post(&format!("{tenant}/consent"), &form).await;
        assert_eq!(on.status, 200, "{on:?}");
        way(&on.text)
    }

    /// Returns from Microsoft's login to the callback. Returns the redirect URI with its
    /// parameters.
    pub(crate) async fn come_back(&mut self, callback: &str) -> Url {
        let done = self.get(callback).await;
        assert_eq!(done.status, 302, "{done:?}");
        Url::parse(done.header("location")).expect("a URL")
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) };
        let answer = read(request.send().await.expect("an answer")).await;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().expect("ASCII");
            assert!(
                line.starts_with("__Host-") && line.contains("; Secure; HttpOnly; SameSite=Lax"),
                "{line}"
            );
            let (name, value) =
                line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            match line.contains("Max-Age=0;") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        answer
    }
}

/// Sets a form as a request's body.
pub(crate) trait Form {
    fn form_of(self, form: &[(&str, &str)]) -> Self;
}

impl Form for reqwest::RequestBuilder {
    fn form_of(self, form: &[(&str, &str)]) -> Self {
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.header("content-type", "application/x-www-form-urlencoded").body(body)
    }
}

/// An OAuth client of one tenant.
pub(crate) struct App<'a> {
    pub(crate) gateway: &'a Gateway,
    /// The tenant's prefix, e.g. `/acme`.
    pub(crate) prefix: &'a str,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
}

/// A successful response of the token endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl<'a> App<'a> {
    /// Registers a public client.
    pub(crate) async fn registered(gateway: &'a Gateway, prefix: &'a str) -> Self {
        let body = json!({ "client_name": "A test", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none" });
        let answer = register(gateway, prefix, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let client_id = answer.json()["client_id"].as_str().expect("an id").to_owned();
        Self { gateway, prefix, client_id, redirect_uri: CALLBACK.to_owned() }
    }

    /// Returns the path of its authorization request.
    pub(crate) fn authorize_path(&self, more: &[(&str, &str)]) -> String {
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("state", "st%te &+ä"),
            ("code_challenge_method", "S256"),
        ];
        let challenge = challenge(VERIFIER);
        query.push(("code_challenge", &challenge));
        for pair in more {
            query.retain(|(name, _)| *name != pair.0 || *name == "resource");
            query.push(*pair);
        }
        query.retain(|(_, value)| !value.is_empty());
        let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("{}/authorize?{query}", self.prefix)
    }

    /// Goes through consent and Microsoft's login. Returns the URL of the gateway's callback.
    pub(crate) async fn log_in_at_microsoft(&self, browser: &mut Browser, entra: &FakeEntra) -> String {
        entra.visit(&browser.consent(&self.authorize_path(&[])).await).await
    }

    /// The same, starting at the consent page.
    pub(crate) async fn consent_and_visit(
        &self,
        browser: &mut Browser,
        page: &Answer,
        entra: &FakeEntra,
    ) -> String {
        entra.visit(&browser.allow(self.prefix, page).await).await
    }

    /// Goes through the whole login. Returns the redirect URI with the code.
    pub(crate) async fn log_in(&self, browser: &mut Browser, entra: &FakeEntra) -> Url {
        browser.log_in(&self.authorize_path(&[]), entra).await
    }

    /// Redeems an authorization code.
    pub(crate) async fn redeem(&self, code: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", VERIFIER),
            ("client_id", &self.client_id),
        ];
        self.post("/token", &form).await
    }

    /// Posts a form to an endpoint of the tenant.
    pub(crate) async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Answer {
        let path = format!("{}{endpoint}", self.prefix);
        let request = self.gateway.client().request(Method::POST, &path).form_of(form);
        read(request.send().await.expect("an answer")).await
    }

    /// Logs in and redeems the code.
    pub(crate) async fn tokens(&self, entra: &FakeEntra) -> Tokens {
        let back = self.log_in(&mut Browser::new(self.gateway), entra).await;
        let sold = self.redeem(&parameter(&back, "code").expect("a code")).await;
        assert_eq!(sold.status, 200, "{sold:?}");
        Tokens::of(&sold.json())
    }
}

impl Tokens {
    pub(crate) fn of(sold: &Value) -> Self {
        let text = |name: &str| sold[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

/// Sends a registration request with any body.
pub(crate) async fn register(gateway: &Gateway, prefix: &str, body: &Value) -> Answer {
    let request = gateway.client().request(Method::POST, &format!("{prefix}/register"));
    let request = request.header("content-type", "application/json").body(body.to_string());
    read(request.send().await.expect("an answer")).await
}

/// Returns the value of a URL's query parameter and asserts that it occurs at most once.
pub(crate) fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut values =
        url.query_pairs().filter(|(known, _)| known == name).map(|(_, value)| value.into_owned());
    let value = values.next();
    assert!(values.next().is_none(), "{name} is there twice in {url}");
    value
}

/// Returns the value of a form's hidden field.
pub(crate) fn field(page: &str, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let rest = page.split(&mark).nth(1).unwrap_or_else(|| panic!("no field {name} in {page}"));
    unescaped(rest.split('"').next().unwrap_or_default())
}

/// Returns the target of the first link of a page.
pub(crate) fn way(page: &str) -> String {
    let rest = page.split("<a href=\"").nth(1).unwrap_or_else(|| panic!("no way on in {page}"));
    unescaped(rest.split('"').next().unwrap_or_default())
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&amp;", "&").replace("&#39;", "'")
}
