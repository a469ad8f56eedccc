//! Clients that registered themselves (RFC 7591). Nothing is stored of them: the id is the metadata, sealed (RFC 7591
//! appendix A.5.2), and the secret derives from the id. So a flood of registrations costs no memory and no disk, ids
//! outlive restarts, and no replica needs to be told.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::{Authentication, Client, Origin, RedirectUri};
use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::oauth::sealed::{self, CLIENT_ID};
use crate::spec::TenantName;
use crate::store::Store;

/// In front of every such id.
pub(super) const MARK: &str = "c1.";
/// Clients keep ids in columns and cookies of some length.
const LONGEST_ID: usize = 1900;

/// By what a client wants to prove who it is (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    None,
    Basic,
    Post,
    /// It did not say: basic by the RFC, and several only know post.
    Either,
}

/// What a client registered.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) issued: Timestamp,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) method: Method,
    pub(crate) redirect_uris: Vec<RedirectUri>,
}

/// What it is told once.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) id: String,
    pub(crate) secret: Option<Secret>,
}

impl Registration {
    /// Gives the client its id, and a secret unless it wants none. `None`: its metadata are too long to be an id.
    pub(crate) fn issue(&self, store: &Store, tenant: &TenantName) -> Option<Issued> {
        let id = format!("{MARK}{}", sealed::seal(store, CLIENT_ID, tenant, "", self.encode().as_bytes()));
        let secret = (self.method != Method::None).then(|| secrets(store, tenant, &id).next()).flatten();
        (id.len() <= LONGEST_ID).then_some(Issued { id, secret })
    }

    /// Lines: the method and when; the name; each redirect URI. Neither name nor URI has a line end.
    fn encode(&self) -> String {
        let method = match self.method {
            Method::None => 'n',
            Method::Basic => 'b',
            Method::Post => 'p',
            Method::Either => 'e',
        };
        let name = self.name.as_deref().unwrap_or_default();
        let mut text = format!("{method}{}\n{name}", self.issued.as_second());
        for uri in &self.redirect_uris {
            text.push('\n');
            text.push_str(uri.as_str());
        }
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let head = lines.next()?;
        let method = match head.get(..1)? {
            "n" => Method::None,
            "b" => Method::Basic,
            "p" => Method::Post,
            "e" => Method::Either,
            _ => return None,
        };
        let issued = Timestamp::from_second(head[1..].parse().ok()?).ok()?;
        let name = lines.next().filter(|name| !name.is_empty()).map(Arc::from);
        let redirect_uris = lines.map(RedirectUri::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { issued, name, method, redirect_uris })
    }
}

/// The client that this id is; `None` if this tenant did not make it.
pub(super) fn client(store: &Store, tenant: &TenantName, id: &str) -> Option<Client> {
    let sealed = id.strip_prefix(MARK).filter(|_| id.len() <= LONGEST_ID)?;
    let text = String::from_utf8(sealed::open(store, CLIENT_ID, tenant, "", sealed)?).ok()?;
    let registration = Registration::decode(&text)?;
    let method = registration.method;
    let secrets = match method {
        Method::None => Vec::new(),
        _ => secrets(store, tenant, id).map(|secret| Digest::of(secret.expose().as_bytes())).collect(),
    };
    Some(Client {
        id: id.into(),
        name: registration.name,
        origin: Origin::Registered,
        redirect_uris: registration.redirect_uris,
        authentication: Authentication {
            none: method == Method::None,
            basic: matches!(method, Method::Basic | Method::Either),
            post: matches!(method, Method::Post | Method::Either),
            secrets,
            keys: None,
        },
    })
}

/// The secret of an id: the one that is given out now, then those of older master keys that still count.
fn secrets(store: &Store, tenant: &TenantName, id: &str) -> impl Iterator<Item = Secret> {
    store.derive("client-secret", tenant.as_str()).into_iter().map(move |key| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), id.as_bytes());
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::store;

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).expect("a name")
    }

    fn registration(method: Method, uris: &[&str]) -> Registration {
        let uri = |text: &&str| RedirectUri::parse(text).expect("a redirect URI");
        Registration {
            issued: Timestamp::UNIX_EPOCH,
            name: Some("Visual Studio Code".into()),
            method,
            redirect_uris: uris.iter().map(uri).collect(),
        }
    }

    #[test]
    fn an_id_is_a_client_again_at_its_own_tenant_only() {
        let (_folder, store) = store();
        let uris = ["https://vscode.dev/redirect", "http://127.0.0.1:33418/"];
        let issued = registration(Method::Either, &uris).issue(&store, &tenant("a")).expect("issued");
        let client = client(&store, &tenant("a"), &issued.id).expect("known");
        assert_eq!(client.name.as_deref(), Some("Visual Studio Code"));
        assert_eq!(client.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(), uris);
        let secret = issued.secret.expect("a secret");
        assert_eq!(client.authentication.secrets, [Digest::of(secret.expose().as_bytes())]);
        assert!(client.authentication.basic && client.authentication.post && !client.authentication.none);
        assert!(super::client(&store, &tenant("b"), &issued.id).is_none());
        let mut forged = issued.id;
        forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
        assert!(super::client(&store, &tenant("a"), &forged).is_none());
    }

    #[test]
    fn a_public_client_has_no_secret() {
        let (_folder, store) = store();
        let issued = registration(Method::None, &["http://localhost/cb"]).issue(&store, &tenant("a"));
        let issued = issued.expect("issued");
        assert!(issued.secret.is_none());
        let client = client(&store, &tenant("a"), &issued.id).expect("known");
        assert!(client.authentication.none && client.authentication.secrets.is_empty());
    }

    #[test]
    fn real_clients_have_ids_that_fit_into_columns() {
        let (_folder, store) = store();
        let cursor = [
            "http://localhost:8787/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ];
        let issued = registration(Method::None, &cursor).issue(&store, &tenant("a")).expect("issued");
        assert!(issued.id.len() <= 280, "{}", issued.id.len());
        let long: Vec<String> =
            (0..10).map(|n| format!("https://a.example/{n}/{}", "x".repeat(200))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(registration(Method::None, &long).issue(&store, &tenant("a")).is_none());
    }
}
