//! A person with a client: logs in, calls, and renews, each step at whichever node answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use url::Url;

use super::balancer::{Balancer, Outcome, PUBLIC};
use super::report::Report;
use crate::harness::Client;
use crate::harness::client::{Answer, Era};
use crate::harness::login::{CALLBACK, Form, Tokens, VERIFIER, challenge, field, parameter, way};

/// What all visitors share.
pub(super) struct Site {
    pub(super) balancer: Balancer,
    pub(super) report: Report,
    /// The browsers' way to Entra.
    entra: reqwest::Client,
}

/// A person and what its client has.
pub(super) struct Visitor {
    site: Arc<Site>,
    /// The object id of its account.
    pub(super) account: String,
    address: Ipv4Addr,
    cookies: BTreeMap<String, String>,
    pub(super) client_id: Option<String>,
    /// What the token endpoint acknowledged last.
    pub(super) tokens: Option<Tokens>,
}

/// A step that did not succeed and says nothing against the visitor: a lost answer, or a 503.
#[derive(Debug)]
pub(super) struct Unavailable;

impl Site {
    pub(super) fn new(balancer: Balancer) -> Self {
        let entra = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { balancer, report: Report::new(), entra: entra.build().expect("a client") }
    }

    /// Returns the answer of a step, if it is neither lost nor a 503.
    fn answered(&self, step: &str, outcome: Outcome) -> Result<Answer, Unavailable> {
        match outcome {
            Outcome::Answered(answer) => {
                self.report.count(format!("{step}: {}", answer.status));
                if answer.status == 503 { Err(Unavailable) } else { Ok(answer) }
            }
            Outcome::Lost => {
                self.report.count(format!("{step}: no answer"));
                Err(Unavailable)
            }
            Outcome::Nobody => {
                self.report.count(format!("{step}: no node"));
                Err(Unavailable)
            }
        }
    }
}

impl Visitor {
    /// Returns a visitor who has no client yet.
    pub(super) fn new(site: &Arc<Site>, number: u32) -> Self {
        let [_, b, c, d] = number.to_be_bytes();
        Self {
            site: Arc::clone(site),
            account: format!("00aa11bb-22cc-33dd-44ee-{number:012x}"),
            address: Ipv4Addr::new(10, 100 + b, c, d),
            cookies: BTreeMap::new(),
            client_id: None,
            tokens: None,
        }
    }

    /// Registers a client and logs in. A refusal is a violation.
    pub(super) async fn log_in(&mut self) -> Result<(), Unavailable> {
        let code = self.obtain_code().await?;
        let mut is_repeated = false;
        // A client whose answer was lost shows the code again.
        for _ in 0..4 {
            let form = self.code_form(&code);
            let outcome = self.send("redeem", |client| token_request(client, &form)).await;
            match outcome {
                Ok(sold) if sold.status == 200 => {
                    self.tokens = Some(Tokens::of(&sold.json()));
                    return Ok(());
                }
                // The node had answered, and the answer was lost: RFC 6749 section 4.1.2 has it end there.
                Ok(_) if is_repeated => {
                    self.site.report.count("redeem: refused again after a lost answer");
                    return Err(Unavailable);
                }
                Ok(sold) => {
                    self.violation("a code was refused", &sold);
                    return Err(Unavailable);
                }
                Err(Unavailable) => is_repeated = true,
            }
        }
        Err(Unavailable)
    }

    /// Goes through registration, consent and Entra's login.
    pub(super) async fn obtain_code(&mut self) -> Result<String, Unavailable> {
        self.cookies.clear();
        let client_id = match self.client_id.clone() {
            Some(client_id) => client_id,
            None => self.register().await?,
        };
        let query = [
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", CALLBACK),
            ("state", "s"),
            ("code_challenge_method", "S256"),
            ("code_challenge", &challenge(VERIFIER)),
        ];
        let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let page = self.browse("authorize", &format!("/a/authorize?{query}"), None, 200).await?;
        let blob = field(&page.text, "request");
        let form = [("request", blob.as_str()), ("decision", "allow")];
        let on = self.browse("consent", "/a/consent", Some(&form), 200).await?;
        let at_entra = format!("{}&login_as={}", way(&on.text), self.account);
        let visited = self.site.entra.get(at_entra).send().await.expect("the fake Entra answers");
        let callback = visited.headers()["location"].to_str().expect("a URL").to_owned();
        let callback = callback.strip_prefix(PUBLIC).expect("it is ours").to_owned();
        let back = self.browse("callback", &callback, None, 302).await?;
        let back = Url::parse(back.header("location")).expect("a URL");
        Ok(parameter(&back, "code").unwrap_or_else(|| panic!("no code in {back}")))
    }

    /// Returns the form that redeems a code.
    pub(super) fn code_form(&self, code: &str) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", CALLBACK.to_owned()),
            ("code_verifier", VERIFIER.to_owned()),
            ("client_id", self.client_id.clone().expect("it is registered")),
        ]
    }

    /// Returns the form that renews its tokens.
    pub(super) fn refresh_form(&self) -> Vec<(&'static str, String)> {
        let tokens = self.tokens.as_ref().expect("it has logged in");
        vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", tokens.refresh.clone()),
            ("client_id", self.client_id.clone().expect("it is registered")),
        ]
    }

    /// Renews once. A refusal is a violation, and the visitor must log in again.
    pub(super) async fn renew(&mut self) -> Result<(), Unavailable> {
        let form = self.refresh_form();
        let answer = self.send("refresh", |client| token_request(client, &form)).await?;
        self.take(&answer)
    }

    /// Renews with the same token twice at once, as clients with two windows do.
    pub(super) async fn renew_twice_at_once(&mut self) -> Result<(), Unavailable> {
        let form = self.refresh_form();
        let first = self.send("refresh", |client| token_request(client, &form));
        let second = self.send("refresh", |client| token_request(client, &form));
        let (first, second) = tokio::join!(first, second);
        let (first, second) = (first.ok(), second.ok());
        if let (Some(first), Some(second)) = (&first, &second)
            && (first.status, second.status) == (200, 200)
        {
            let tokens = [first, second].map(|answer| Tokens::of(&answer.json()).refresh);
            if tokens[0] != tokens[1] {
                let numbers = tokens.map(|token| number(&token));
                self.site.report.violation(format!("two renewals at once yielded the tokens {numbers:?}"));
            }
        }
        let mut result = Err(Unavailable);
        for answer in [first, second].into_iter().flatten() {
            result = self.take(&answer).or(result);
        }
        result
    }

    fn take(&mut self, answer: &Answer) -> Result<(), Unavailable> {
        if answer.status != 200 {
            let held = self.tokens.as_ref().map(|tokens| number(&tokens.refresh)).unwrap_or_default();
            self.violation(&format!("token {held} was refused"), answer);
            self.tokens = None;
            return Err(Unavailable);
        }
        let tokens = Tokens::of(&answer.json());
        let held = self.tokens.as_ref().map(|held| number(&held.refresh)).unwrap_or_default();
        if number(&tokens.refresh) >= held {
            self.tokens = Some(tokens);
        }
        Ok(())
    }

    /// Calls a tool. A 401 or 403 is a violation.
    pub(super) async fn call(&self) -> Result<(), Unavailable> {
        let access = &self.tokens.as_ref().expect("it has logged in").access;
        let answer = self.send("call", |client| tool_call(client, access)).await?;
        match answer.status {
            200 if !answer.text.contains(r#""isError":true"#) => Ok(()),
            200 => {
                self.site.report.count("call: the tool failed");
                Err(Unavailable)
            }
            _ => {
                let found = self.describe_access_token(access).await;
                self.violation(&format!("a call was refused ({found})"), &answer);
                Err(Unavailable)
            }
        }
    }

    /// Describes a token that was refused: what it says, and what each node says to it now.
    async fn describe_access_token(&self, access: &str) -> String {
        let claims = access.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
        let balancer = &self.site.balancer;
        let asked = (0..balancer.size()).map(|at| balancer.send_to(at, |client| tool_call(client, access)));
        let answers = join_all(asked).await.into_iter().map(|outcome| match outcome {
            Outcome::Answered(answer) => answer.status.to_string(),
            other => format!("{other:?}"),
        });
        let answers: Vec<_> = answers.collect();
        format!("grant {}, issued at {}, answers now {}", claims["gid"], claims["iat"], answers.join(", "))
    }

    async fn register(&mut self) -> Result<String, Unavailable> {
        let body = json!({ "client_name": "A test", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none" });
        let post = |client: &Client| {
            let request =
                client.request(Method::POST, "/a/register").header("content-type", "application/json");
            request.body(body.to_string())
        };
        let answer = self.send("register", post).await?;
        if answer.status != 201 {
            self.violation("a registration was refused", &answer);
            return Err(Unavailable);
        }
        let client_id = answer.json()["client_id"].as_str().expect("an id").to_owned();
        self.client_id = Some(client_id.clone());
        Ok(client_id)
    }

    /// Has the browser fetch a page or send a form, and expects a status.
    async fn browse(
        &mut self,
        step: &str,
        path: &str,
        form: Option<&[(&str, &str)]>,
        status: u16,
    ) -> Result<Answer, Unavailable> {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = |client: &Client| {
            let request = match form {
                Some(form) => client
                    .request(Method::POST, path)
                    .header("sec-fetch-site", "same-origin")
                    .header("origin", "null")
                    .form_of(form),
                None => client.request(Method::GET, path).header("accept", "text/html"),
            };
            if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
        };
        let answer = self.send(step, request).await?;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().expect("ASCII");
            let (name, value) =
                line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            match line.contains("Max-Age=0;") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        if answer.status != status {
            // Entra's outage, as a gateway that is cut off from everything sees it, is no refusal.
            if answer.status < 500 {
                self.violation(&format!("{step} was refused"), &answer);
            }
            return Err(Unavailable);
        }
        Ok(answer)
    }

    async fn send(
        &self,
        step: &str,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, Unavailable> {
        let from = self.address.to_string();
        let outcome =
            self.site.balancer.send(|client| request(client).header("x-forwarded-for", &from)).await;
        self.site.answered(step, outcome)
    }

    fn violation(&self, what: &str, answer: &Answer) {
        let text: String = answer.text.chars().take(300).collect();
        self.site.report.violation(format!("{what}: {} {text} ({})", answer.status, self.account));
    }
}

/// Returns the number of a refresh token in its family.
fn number(token: &str) -> u32 {
    token.split('.').nth(2).and_then(|number| number.parse().ok()).expect("a token has a number")
}

/// Returns a request to the token endpoint.
pub(super) fn token_request(client: &Client, form: &[(&'static str, String)]) -> RequestBuilder {
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.request(Method::POST, "/a/token").form_of(&form)
}

/// Returns a call of the search tool.
pub(super) fn tool_call(client: &Client, access: &str) -> RequestBuilder {
    let params: Value = json!({ "name": "search", "arguments": { "query": "q" } });
    client.ask(Era::Modern, "/a/mcp", "tools/call", params).bearer_auth(access)
}
