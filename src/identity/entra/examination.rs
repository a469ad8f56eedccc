//! Asks Entra what it tells without a person: whether directory, app and secret are right, and
//! whether the redirect URI is registered.

use http::{StatusCode, header};
use url::Url;

use super::aadsts;
use super::provider::EntraProviderInner;
use crate::base::secret::Secret;
use crate::identity::error::Error;
use crate::identity::examination::{AppExamination, ClockReading, Registration};
use crate::identity::oidc::transport::{ProviderRequest, ProviderResponse};

impl EntraProviderInner {
    /// Examines the app registration.
    pub(super) async fn examine(&self) -> AppExamination {
        let mut found = AppExamination {
            directory: self.directory.metadata(&self.entra.transport).await.map(drop),
            secrets: Vec::new(),
            redirect_uri: Registration::Unknown("the directory could not be asked".to_owned()),
            clock: None,
        };
        if found.directory.is_err() {
            return found;
        }
        for secret in &self.spec.client_secrets {
            let tried = self.try_secret(secret, &mut found.clock).await;
            found.secrets.push(tried.map_err(|error| self.fill_in(error)));
        }
        // An app that is not known has no redirect URIs.
        let is_known =
            found.secrets.iter().all(|tried| !matches!(tried, Err(error) if error.class() == "app_unknown"));
        if is_known {
            found.redirect_uri = self.find_redirect_uri().await;
        }
        found
    }

    /// Has the app ask for a token for itself, which only shows whether the secret is right. The
    /// token is dropped.
    async fn try_secret(&self, secret: &Secret, clock: &mut Option<ClockReading>) -> Result<(), Error> {
        let app = &self.spec.client_id;
        let scope = format!("{app}/.default");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &**app),
            ("client_secret", secret.expose()),
            ("scope", scope.as_str()),
        ];
        let url = self.endpoint_url("oauth2/v2.0/token");
        let response = self.entra.transport.examine(url, ProviderRequest::Post(&form)).await?;
        *clock = self.read_clock(&response).or(*clock);
        if response.status == StatusCode::OK {
            return Ok(());
        }
        match serde_json::from_slice(&response.body) {
            Ok(refusal) => Err(aadsts::from_token_response(refusal)),
            Err(_) => Err(Error::provider_down(format!("it answered {}", response.status))),
        }
    }

    fn read_clock(&self, response: &ProviderResponse) -> Option<ClockReading> {
        let date = response.headers.get(header::DATE)?.to_str().ok()?;
        ClockReading::from_date(date, self.entra.transport.clock.now())
    }

    /// Asks for a login that may show nothing (`prompt=none`). Entra sends the browser back to a
    /// redirect URI that it knows, with the error that nobody is logged in, and shows a page with
    /// AADSTS50011 if it does not know it.
    async fn find_redirect_uri(&self) -> Registration {
        let redirect_uri = self.public_url.callback_url();
        let mut url = self.endpoint_url("oauth2/v2.0/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.spec.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("response_mode", "query")
            .append_pair("scope", "openid")
            .append_pair("prompt", "none");
        let response = match self.entra.transport.examine(url, ProviderRequest::Get).await {
            Ok(response) => response,
            Err(error) => return Registration::Unknown(error.to_string()),
        };
        let location = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        if location.is_some_and(|location| leads_to(location, &redirect_uri)) {
            return Registration::Registered;
        }
        let codes = aadsts::find_codes(&String::from_utf8_lossy(&response.body));
        match codes.first() {
            Some(50_011) => Registration::Missing,
            Some(code) => Registration::Unknown(format!("it answered AADSTS{code}")),
            None => Registration::Unknown(format!("it answered {} without a code", response.status)),
        }
    }
}

/// Whether a redirect goes back to the app.
fn leads_to(location: &str, redirect_uri: &str) -> bool {
    let without_query = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    };
    without_query(location).is_some_and(|location| Some(location) == without_query(redirect_uri))
}
