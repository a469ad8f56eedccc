//! The steps to a login: the discovery documents, the registration, and the page that asks for
//! consent.

use http::{StatusCode, header};
use serde_json::Value;
use url::Url;

use super::super::verdict::DoctorVerdict;
use super::clients::Introduction;
use super::differences::PathKind;
use super::exchange::{HttpAnswer, Question};
use super::{CLIENT, Necessity, Sequence, Step};

const FORM: &str = "application/x-www-form-urlencoded";
/// The size of the cookie that comes with the request for consent: less than NGINX takes in one
/// line as it is delivered, and not more than those of logins that are under way.
const COOKIE_BYTES: usize = 6000;
/// The challenge of the verifier that RFC 7636, appendix B has.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

impl Sequence<'_> {
    /// Goes from the challenge of the first answer to the page that asks for consent.
    pub(super) async fn log_in(&mut self, first: &HttpAnswer) -> Option<()> {
        let resource = self.find_resource_metadata(first).await?;
        let issuer = resource.get("authorization_servers")?.get(0)?.as_str()?.to_owned();
        let metadata = self.find_server_metadata(&issuer).await?;
        let endpoint = |name: &str| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
        let client_id = self.become_known(endpoint("registration_endpoint")).await?;
        self.ask_for_consent(&endpoint("authorization_endpoint")?, &client_id).await?;
        self.redeem_nothing(&endpoint("token_endpoint")?, &client_id).await
    }

    /// The document that the challenge names, and the place where clients look without one.
    async fn find_resource_metadata(&mut self, first: &HttpAnswer) -> Option<Value> {
        let challenge = first.header(header::WWW_AUTHENTICATE)?;
        let url = challenge.split("resource_metadata=\"").nth(1)?.split('"').next()?.to_owned();
        let path = self.own_path(&url, "resource_metadata of the challenge")?;
        let kind = self.path_kind(&path);
        let asked = self.step("resource metadata", kind, &get(&path), Necessity::Needed, is_document).await;
        let Step::Done(answer) = asked else { return None };
        let document = answer.json()?;
        let resource = document.get("resource").and_then(Value::as_str).unwrap_or_default();
        if resource != self.connector.as_str() {
            self.say_other_base("resource of the resource metadata", resource);
            return None;
        }
        let guessed = format!("/.well-known/oauth-protected-resource{}", self.connector.path());
        if guessed != path {
            let step = "resource metadata at the host";
            // Only old clients look there although the challenge names another place.
            let _other_way =
                self.step(step, PathKind::WellKnown, &get(&guessed), Necessity::Optional, is_document).await;
        }
        Some(document)
    }

    /// The authorization server's document, at the three places in which clients look.
    async fn find_server_metadata(&mut self, issuer: &str) -> Option<Value> {
        let prefix = self.own_path(issuer, "authorization_servers of the resource metadata")?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        let places = [
            ("authorization server metadata", format!("/.well-known/oauth-authorization-server{prefix}")),
            ("OpenID configuration", format!("/.well-known/openid-configuration{prefix}")),
            ("OpenID configuration below the prefix", format!("{prefix}/.well-known/openid-configuration")),
        ];
        let mut found: Option<Value> = None;
        for (number, (step, path)) in places.iter().enumerate() {
            let is_last = number == places.len() - 1;
            let weight = match found.is_none() && (self.profile.knows_one_place || is_last) {
                true => Necessity::Needed,
                false => Necessity::Optional,
            };
            let before = self.agreed.len();
            let asked = self.step(step, self.path_kind(path), &get(path), weight, is_document).await;
            match asked {
                Step::Done(answer) if self.agreed.len() > before => found = found.or(answer.json()),
                Step::Ended if weight == Necessity::Needed => return None,
                _ => {}
            }
        }
        let document = found?;
        let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if named != issuer {
            self.say_other_base("issuer of the authorization server metadata", named);
            return None;
        }
        Some(document)
    }

    /// Registers, or has a document that says who it is.
    async fn become_known(&mut self, endpoint: Option<String>) -> Option<String> {
        let body = match &self.profile.introduction {
            Introduction::Document(url) => return Some((*url).to_owned()),
            Introduction::Registration(body) => serde_json::to_string(body).ok()?,
        };
        let Some(endpoint) = endpoint else {
            self.verdicts.push(
                DoctorVerdict::fault(
                    CLIENT,
                    "registration-off",
                    self.connector.as_str(),
                    "clients may not register themselves",
                )
                .meaning(format!("{} cannot introduce itself", self.client.title()))
                .advice("enter it with `tenantd clients add`, or allow registration in the tenant's file"),
            );
            return None;
        };
        let path = self.own_path(&endpoint, "registration_endpoint")?;
        let question = Question::post(path, "application/json", body).with("accept", "application/json");
        let is_registered = |answer: &HttpAnswer| answer.status == StatusCode::CREATED;
        match self.step("registration", PathKind::Endpoint, &question, Necessity::Needed, is_registered).await
        {
            Step::Done(answer) => Some(answer.json()?.get("client_id")?.as_str()?.to_owned()),
            Step::Ended => None,
        }
    }

    async fn ask_for_consent(&mut self, endpoint: &str, client_id: &str) -> Option<()> {
        let path = self.own_path(endpoint, "authorization_endpoint")?;
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", self.profile.redirect_uri),
            ("state", "doctor"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        if self.profile.sends_resource {
            query.append_pair("resource", self.connector.as_str());
        }
        let cookie = format!("tenantd-doctor={}", "x".repeat(COOKIE_BYTES));
        let question = Question::get(format!("{path}?{}", query.finish()));
        let question = question.with("accept", "text/html").with("cookie", cookie);
        let is_page = |answer: &HttpAnswer| answer.status == StatusCode::OK && answer.is_html();
        match self.step("consent page", PathKind::Endpoint, &question, Necessity::Needed, is_page).await {
            Step::Done(_) => Some(()),
            Step::Ended => None,
        }
    }

    /// A form with a code that nobody has: only whether it arrives is of interest.
    async fn redeem_nothing(&mut self, endpoint: &str, client_id: &str) -> Option<()> {
        let path = self.own_path(endpoint, "token_endpoint")?;
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([
            ("grant_type", "authorization_code"),
            ("code", "none"),
            ("redirect_uri", self.profile.redirect_uri),
            ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            ("client_id", client_id),
        ]);
        let question = Question::post(path, FORM, form.finish()).with("accept", "application/json");
        let is_refusal = |answer: &HttpAnswer| answer.status.is_client_error() && answer.json().is_some();
        match self.step("token endpoint", PathKind::Endpoint, &question, Necessity::Needed, is_refusal).await
        {
            Step::Done(_) => Some(()),
            Step::Ended => None,
        }
    }

    /// Returns the path of a URL that a document names; it must be at the public base.
    fn own_path(&mut self, url: &str, what: &str) -> Option<String> {
        let parsed = Url::parse(url).ok();
        match parsed.filter(|parsed| parsed.origin() == self.connector.origin()) {
            Some(parsed) => Some(parsed.path().to_owned()),
            None => {
                self.say_other_base(what, url);
                None
            }
        }
    }

    /// Clients compare these URLs with the one that they were given.
    fn say_other_base(&mut self, what: &str, url: &str) {
        self.verdicts.push(
            DoctorVerdict::fault(
                CLIENT,
                "public-url-differs",
                self.connector.as_str(),
                format!("{what} is {url:?}, which is not at this URL"),
            )
            .meaning(format!("{} refuses it: these URLs must be those that it was given", self.client.title()))
            .advice(
                "set the public URL that clients use: public_base (--public-base), or public_url in the tenant's \
                 file (--url or PUBLIC_URL with `tenantd run`); https if the proxy in front has TLS",
            ),
        );
    }

    fn path_kind(&self, path: &str) -> PathKind {
        match path.starts_with("/.well-known/") {
            true => PathKind::WellKnown,
            false => PathKind::Endpoint,
        }
    }
}

fn get(path: &str) -> Question {
    Question::get(path).with("accept", "application/json")
}

fn is_document(answer: &HttpAnswer) -> bool {
    answer.status == StatusCode::OK && answer.json().is_some_and(|document| document.is_object())
}
