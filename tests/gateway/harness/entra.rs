//! A fake Microsoft Entra ID with the endpoints and the faults that logins can meet: a small
//! HTTP/1.1 server on loopback.
//!
//! Every visitor of its login page is logged in at once, as the account that [`FakeEntra::account`]
//! sets, or as the one whose object id is in the query (`login_as`). It checks what Entra checks (secret, scope, PKCE, redirect URI, single use of codes) and
//! refuses with Entra's texts. Shared by the unit tests of `identity` and the tests of the gateway.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

/// The application id, as an operator copies it.
pub(crate) const APP: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
/// The directory id.
pub(crate) const DIRECTORY: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// An application and a directory of another organisation.
pub(crate) const OTHER_APP: &str = "a1b2c3d4-0000-4999-8aaa-bbbbccccdddd";
pub(crate) const OTHER_DIRECTORY: &str = "11111111-2222-3333-4444-555555555555";
/// The object id of the account that logs in by default.
pub(crate) const ACCOUNT: &str = "00aa11bb-22cc-33dd-44ee-55ff66007788";

static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [0, 1].map(|_| KeyPair::generate(KeySize::Rsa2048).expect("a key")));

/// The endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Discovery,
    Keys,
    Authorize,
    Token,
}

/// A fault that replaces the regular response.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A refusal in Entra's form: the OAuth error and the AADSTS number.
    Refusal(&'static str, u32),
    Answer(u16, &'static str),
    /// No response at all.
    Silence,
}

type Forge = Arc<dyn Fn(&mut Value, &mut Value) + Send + Sync>;

/// A running directory. Dropping it stops it.
pub(crate) struct FakeEntra {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    secrets: Vec<String>,
    /// The index of the signing key.
    key: usize,
    /// Claims in addition to the usual ones.
    account: Value,
    forge: Option<Forge>,
    faults: HashMap<Endpoint, Fault>,
    seen: Vec<Endpoint>,
    forms: Vec<HashMap<String, String>>,
    issued: usize,
    codes: HashMap<String, HashMap<String, String>>,
    /// With the accounts that visitors named.
    refresh_tokens: HashMap<String, Option<String>>,
    /// The registered redirect URIs; empty if any will do.
    redirect_uris: Vec<String>,
    /// By how many seconds its clock differs.
    clock_offset: i64,
}

impl FakeEntra {
    /// Starts a directory whose application has this secret.
    pub(crate) async fn start(secret: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared { secrets: vec![secret.to_owned()], account: json!({}), ..Shared::default() };
        let shared = Arc::new(Mutex::new(shared));
        let accepting = spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Returns the value for `--entra-authority`.
    pub(crate) fn authority(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the lines of a tenant's file for a login here with the first secret.
    pub(crate) fn lines(&self) -> String {
        self.lines_of(APP, DIRECTORY)
    }

    /// The same for another application and directory.
    pub(crate) fn lines_of(&self, app: &str, directory: &str) -> String {
        let secret = self.shared().secrets[0].clone();
        format!(
            "oauth_enabled: true\nmicrosoft_client_id: {app}\nmicrosoft_client_secret: {secret}\n\
             microsoft_tenant_id: {directory}\n"
        )
    }

    /// Adds these claims to all further logins and renewals.
    pub(crate) fn account(&self, claims: Value) {
        self.shared().account = claims;
    }

    /// Applies `forge` to the header and the claims of all further id_tokens before they are
    /// signed.
    pub(crate) fn forge(&self, forge: impl Fn(&mut Value, &mut Value) + Send + Sync + 'static) {
        self.shared().forge = Some(Arc::new(forge));
    }

    /// Sets the fault of an endpoint; `None` clears it.
    pub(crate) fn fault(&self, endpoint: Endpoint, fault: impl Into<Option<Fault>>) {
        let mut shared = self.shared();
        match fault.into() {
            Some(fault) => shared.faults.insert(endpoint, fault),
            None => shared.faults.remove(&endpoint),
        };
    }

    /// Replaces the accepted secrets.
    pub(crate) fn secrets(&self, secrets: &[&str]) {
        self.shared().secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    }

    /// Registers the only redirect URIs that it redirects to.
    pub(crate) fn redirect_uris(&self, uris: &[&str]) {
        self.shared().redirect_uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
    }

    /// Sets by how many seconds its clock differs from the machine's.
    pub(crate) fn clock_offset(&self, seconds: i64) {
        self.shared().clock_offset = seconds;
    }

    /// Switches to the other signing key and publishes only that one.
    pub(crate) fn roll_keys(&self) {
        let mut shared = self.shared();
        shared.key = 1 - shared.key;
    }

    /// Invalidates all refresh tokens issued so far, as a password reset does.
    pub(crate) fn revoke_sessions(&self) {
        self.shared().refresh_tokens.clear();
    }

    /// Returns how many requests an endpoint has received.
    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.shared().seen.iter().filter(|seen| **seen == endpoint).count()
    }

    /// Returns the forms that the token endpoint has received.
    pub(crate) fn forms(&self) -> Vec<HashMap<String, String>> {
        self.shared().forms.clone()
    }

    /// Logs a browser in. Returns the callback URL with its parameters.
    pub(crate) async fn visit(&self, authorize: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().expect("a client");
        let answer = client.get(authorize).send().await.expect("an answer");
        let location = answer.headers().get(header::LOCATION).expect("a redirect");
        location.to_str().expect("a URL").to_owned()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }
}

impl Drop for FakeEntra {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server has no gateway whose task it could be")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let authority = format!("http://{}", listener.local_addr().expect("it is bound"));
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, authority) = (Arc::clone(&shared), authority.clone());
        let service = service_fn(move |request| answer(request, authority.clone(), Arc::clone(&shared)));
        spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    authority: String,
    shared: Arc<Mutex<Shared>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let url = Url::parse(&format!("{authority}{}", request.uri())).expect("a URL");
    let body = request.into_body().collect().await?.to_bytes();
    let Some((directory, endpoint)) = place(&url) else { return Ok(plain(404, "nothing here".into())) };
    let fault = {
        let mut shared = shared.lock().expect("no holder of this lock panics");
        shared.seen.push(endpoint);
        shared.faults.get(&endpoint).cloned()
    };
    match fault {
        Some(Fault::Silence) => tokio::time::sleep(Duration::from_secs(3600)).await,
        Some(Fault::Answer(status, text)) => return Ok(plain(status, text.into())),
        Some(Fault::Refusal(error, code)) if endpoint != Endpoint::Authorize => {
            return Ok(refusal(error, code));
        }
        Some(Fault::Refusal(..)) | None => {}
    }
    let mut shared = shared.lock().expect("no holder of this lock panics");
    let mut response = match endpoint {
        Endpoint::Discovery => discovery(&authority, &directory),
        Endpoint::Keys => shared.published_keys(),
        Endpoint::Authorize => shared.authorize(&url, fault),
        Endpoint::Token => shared.token(&authority, &body),
    };
    if shared.clock_offset != 0 {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(shared.clock_offset);
        let date = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert(header::DATE, date.parse().expect("a date"));
    }
    Ok(response)
}

fn place(url: &Url) -> Option<(String, Endpoint)> {
    let (directory, rest) = url.path().strip_prefix('/')?.split_once('/')?;
    let endpoint = match rest {
        "v2.0/.well-known/openid-configuration" => Endpoint::Discovery,
        "discovery/v2.0/keys" => Endpoint::Keys,
        "oauth2/v2.0/authorize" => Endpoint::Authorize,
        "oauth2/v2.0/token" => Endpoint::Token,
        _ => return None,
    };
    Some((directory.to_owned(), endpoint))
}

/// Resolves a domain to its directory's id; an audience such as `common` covers all directories.
fn discovery(authority: &str, directory: &str) -> Response<Full<Bytes>> {
    let tid = match directory {
        "common" | "organizations" => "{tenantid}",
        OTHER_DIRECTORY => OTHER_DIRECTORY,
        "nowhere.example" => return refusal("invalid_tenant", 90_002),
        _ => DIRECTORY,
    };
    let under = format!("{authority}/{directory}");
    json_answer(
        200,
        &json!({
            "issuer": format!("{authority}/{tid}/v2.0"),
            "authorization_endpoint": format!("{under}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{under}/oauth2/v2.0/token"),
            "jwks_uri": format!("{under}/discovery/v2.0/keys"),
        }),
    )
}

impl Shared {
    fn published_keys(&self) -> Response<Full<Bytes>> {
        let public = KEYS[self.key].public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        let kid = format!("k{}", self.key);
        json_answer(200, &json!({ "keys": [{ "kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e }] }))
    }

    fn authorize(&mut self, url: &Url, fault: Option<Fault>) -> Response<Full<Bytes>> {
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        if !self.redirect_uris.is_empty() && !self.redirect_uris.contains(&asked["redirect_uri"]) {
            return plain(200, format!("<html>{}</html>", description(50_011)));
        }
        let mut to = Url::parse(&asked["redirect_uri"]).expect("a redirect URI");
        let code = self.next("code");
        // Nobody is logged in before a page was shown.
        let is_silent = asked.get("prompt").is_some_and(|prompt| prompt == "none");
        match fault.or(is_silent.then_some(Fault::Refusal("login_required", 50_058))) {
            Some(Fault::Refusal(error, number)) => to
                .query_pairs_mut()
                .append_pair("error", error)
                .append_pair("error_description", &description(number)),
            _ => to.query_pairs_mut().append_pair("code", &code),
        };
        to.query_pairs_mut().extend_pairs(asked.get("state").map(|state| ("state", state)));
        self.codes.insert(code, asked);
        let found = Response::builder().status(302).header(header::LOCATION, to.as_str());
        found.body(Full::default()).expect("an answer")
    }

    fn token(&mut self, authority: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        self.forms.push(form.clone());
        let given = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if form.contains_key("resource") {
            return refusal("invalid_target", 9_010_010);
        }
        if given("scope").is_empty() {
            return refusal("invalid_request", 900_144);
        }
        if ![APP, OTHER_APP].contains(&given("client_id")) {
            return refusal("unauthorized_client", 700_016);
        }
        if !self.secrets.iter().any(|secret| secret == given("client_secret")) {
            return refusal("invalid_client", 7_000_215);
        }
        match given("grant_type") {
            "authorization_code" => self.redeem(authority, &form),
            "refresh_token" => match self.refresh_tokens.get(given("refresh_token")).cloned() {
                Some(named) => self.tokens(authority, &form, None, named),
                None => refusal("invalid_grant", 50_173),
            },
            // What an app asks for itself brings no person.
            "client_credentials" => {
                json_answer(200, &json!({ "token_type": "Bearer", "access_token": "opaque" }))
            }
            _ => refusal("unsupported_grant_type", 70_003),
        }
    }

    fn redeem(&mut self, authority: &str, form: &HashMap<String, String>) -> Response<Full<Bytes>> {
        let given = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let Some(asked) = self.codes.remove(given("code")) else { return refusal("invalid_grant", 54_005) };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, given("code_verifier").as_bytes());
        if URL_SAFE_NO_PAD.encode(digest) != asked["code_challenge"] {
            return refusal("invalid_grant", 501_481);
        }
        if given("redirect_uri") != asked["redirect_uri"] {
            return refusal("invalid_grant", 500_112);
        }
        let nonce = asked.get("nonce").map(String::as_str);
        self.tokens(authority, form, nonce, asked.get("login_as").cloned())
    }

    fn tokens(
        &mut self,
        authority: &str,
        form: &HashMap<String, String>,
        nonce: Option<&str>,
        named: Option<String>,
    ) -> Response<Full<Bytes>> {
        let number = self.next("refresh");
        // The token contains the secret, so it carries the mark of secrets.
        let refresh_token = format!("{}-{number}", self.secrets[0]);
        let id_token = self.id_token(authority, &form["client_id"], nonce, named.as_deref());
        self.refresh_tokens.insert(refresh_token.clone(), named);
        json_answer(
            200,
            &json!({
                "token_type": "Bearer", "expires_in": 3600, "scope": "openid profile offline_access",
                "access_token": "opaque", "id_token": id_token, "refresh_token": refresh_token,
            }),
        )
    }

    fn id_token(&self, authority: &str, app: &str, nonce: Option<&str>, named: Option<&str>) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "aud": app, "iat": now, "nbf": now, "exp": now + 3600, "ver": "2.0", "tid": DIRECTORY, "oid": ACCOUNT,
            "sub": "pairwise", "name": "Ada Lovelace", "preferred_username": "ada@contoso.com",
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        if let Some(named) = named {
            claims["oid"] = named.into();
            claims["preferred_username"] = format!("{named}@contoso.com").into();
        }
        for (name, value) in self.account.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        claims["iss"] = format!("{authority}/{}/v2.0", claims["tid"].as_str().unwrap_or_default()).into();
        let mut header = json!({ "typ": "JWT", "alg": "RS256", "kid": format!("k{}", self.key) });
        if let Some(forge) = &self.forge {
            forge(&mut header, &mut claims);
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let key = &KEYS[self.key];
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn next(&mut self, kind: &str) -> String {
        self.issued += 1;
        format!("{kind}-{}", self.issued)
    }
}

fn description(code: u32) -> String {
    format!(
        "AADSTS{code}: as Entra says it. Trace ID: 0a-1 Correlation ID: 0b-2 Timestamp: 2026-11-25 10:00:00Z"
    )
}

fn refusal(error: &str, code: u32) -> Response<Full<Bytes>> {
    let status = if error == "invalid_client" { 401 } else { 400 };
    json_answer(
        status,
        &json!({
            "error": error, "error_description": description(code), "error_codes": [code],
            "trace_id": "0a-1", "correlation_id": "0b-2",
        }),
    )
}

fn json_answer(status: u16, value: &Value) -> Response<Full<Bytes>> {
    plain(status, value.to_string())
}

fn plain(status: u16, text: String) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    answer.body(Full::from(text)).expect("an answer")
}
