//! Clients that registered themselves (RFC 7591). They are not stored: the id is the sealed
//! metadata (RFC 7591 appendix A.5.2), and the secret derives from the id. So a flood of
//! registrations takes no memory and no disk space, ids survive restarts, and replicas need no
//! synchronization.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::{ClientAuthMethods, ClientOrigin, OAuthClient, RedirectUri};
use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::oauth::incarnations::TenantIncarnation;
use crate::oauth::sealed::{self, CLIENT_ID};
use crate::store::{Incarnation, Keyring};

/// The prefix of these ids.
pub(super) const ID_PREFIX: &str = "c1.";
/// In bytes. Clients store ids in columns and cookies of limited length.
const MAX_ID_BYTES: usize = 1900;

/// The authentication method that a client registers (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuthMethod {
    None,
    Basic,
    Post,
    /// Not given: basic by the RFC, but several clients only support post.
    Either,
}

/// The metadata of a registration.
#[derive(Debug, Clone)]
pub(crate) struct ClientRegistration {
    pub(crate) issued_at: Timestamp,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) method: ClientAuthMethod,
    pub(crate) redirect_uris: Vec<RedirectUri>,
}

/// The credentials in the registration response.
#[derive(Debug)]
pub(crate) struct IssuedClient {
    pub(crate) id: String,
    pub(crate) secret: Option<Secret>,
}

impl ClientRegistration {
    /// Issues the client's id, and a secret unless its method is `None`. Returns `None` if the
    /// metadata are too long for an id.
    pub(crate) fn issue(&self, keyring: &Keyring, incarnation: &Incarnation) -> Option<IssuedClient> {
        let id = format!(
            "{ID_PREFIX}{}",
            sealed::seal(keyring, CLIENT_ID, incarnation, "", self.encode().as_bytes())
        );
        let secret = (self.method != ClientAuthMethod::None)
            .then(|| derive_secrets(keyring, incarnation, &id).next())
            .flatten();
        (id.len() <= MAX_ID_BYTES).then_some(IssuedClient { id, secret })
    }

    /// Encodes as lines: method and time; the name; each redirect URI. Neither name nor URI
    /// contains a line end.
    fn encode(&self) -> String {
        let method = match self.method {
            ClientAuthMethod::None => 'n',
            ClientAuthMethod::Basic => 'b',
            ClientAuthMethod::Post => 'p',
            ClientAuthMethod::Either => 'e',
        };
        let name = self.name.as_deref().unwrap_or_default();
        let mut text = format!("{method}{}\n{name}", self.issued_at.as_second());
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
            "n" => ClientAuthMethod::None,
            "b" => ClientAuthMethod::Basic,
            "p" => ClientAuthMethod::Post,
            "e" => ClientAuthMethod::Either,
            _ => return None,
        };
        let issued = Timestamp::from_second(head[1..].parse().ok()?).ok()?;
        let name = lines.next().filter(|name| !name.is_empty()).map(Arc::from);
        let redirect_uris = lines.map(RedirectUri::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { issued_at: issued, name, method, redirect_uris })
    }
}

/// Returns the client of this id; `None` if this tenant did not issue it in its current
/// incarnation.
pub(super) fn unseal_client_id(
    keyring: &Keyring,
    tenant_incarnation: &TenantIncarnation,
    id: &str,
) -> Option<OAuthClient> {
    let incarnation = &tenant_incarnation.current;
    let sealed = id.strip_prefix(ID_PREFIX).filter(|_| id.len() <= MAX_ID_BYTES)?;
    // Clients keep their ids permanently, so ids of an earlier version without incarnations are
    // still accepted.
    let earlier = || {
        tenant_incarnation
            .legacy
            .as_ref()
            .and_then(|_| sealed::open_legacy(keyring, CLIENT_ID, incarnation, sealed))
    };
    let opened = sealed::open(keyring, CLIENT_ID, incarnation, "", sealed).or_else(earlier)?;
    let text = String::from_utf8(opened).ok()?;
    let registration = ClientRegistration::decode(&text)?;
    let method = registration.method;
    let secrets = match method {
        ClientAuthMethod::None => Vec::new(),
        _ => derive_secrets(keyring, incarnation, id)
            .map(|secret| Digest::of(secret.expose().as_bytes()))
            .collect(),
    };
    Some(OAuthClient {
        id: id.into(),
        name: registration.name,
        origin: ClientOrigin::Registered,
        redirect_uris: registration.redirect_uris,
        authentication: ClientAuthMethods {
            none: method == ClientAuthMethod::None,
            basic: matches!(method, ClientAuthMethod::Basic | ClientAuthMethod::Either),
            post: matches!(method, ClientAuthMethod::Post | ClientAuthMethod::Either),
            secrets,
            keys: None,
        },
    })
}

/// Returns the secrets of an id: the one that is issued now, then those of older master keys that
/// are still valid.
fn derive_secrets(keyring: &Keyring, incarnation: &Incarnation, id: &str) -> impl Iterator<Item = Secret> {
    keyring.derive_keys("client-secret", incarnation.tenant()).into_iter().map(move |key| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), id.as_bytes());
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testkit::new_store;

    fn new_incarnation(name: &str) -> TenantIncarnation {
        TenantIncarnation { current: Incarnation::new(&name.into()), legacy: None }
    }

    fn registration(method: ClientAuthMethod, uris: &[&str]) -> ClientRegistration {
        let uri = |text: &&str| RedirectUri::parse(text).expect("a redirect URI");
        ClientRegistration {
            issued_at: Timestamp::UNIX_EPOCH,
            name: Some("Visual Studio Code".into()),
            method,
            redirect_uris: uris.iter().map(uri).collect(),
        }
    }

    #[test]
    fn a_client_id_opens_at_its_own_tenant_only() {
        let (_folder, store) = new_store();
        let uris = ["https://vscode.dev/redirect", "http://127.0.0.1:33418/"];
        let a = new_incarnation("a");
        let issued =
            registration(ClientAuthMethod::Either, &uris).issue(store.keyring(), &a.current).expect("issued");
        let client = unseal_client_id(store.keyring(), &a, &issued.id).expect("known");
        assert_eq!(client.name.as_deref(), Some("Visual Studio Code"));
        assert_eq!(client.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(), uris);
        let secret = issued.secret.expect("a secret");
        assert_eq!(client.authentication.secrets, [Digest::of(secret.expose().as_bytes())]);
        assert!(client.authentication.basic && client.authentication.post && !client.authentication.none);
        for other in [new_incarnation("b"), new_incarnation("a")] {
            assert!(super::unseal_client_id(store.keyring(), &other, &issued.id).is_none(), "{other:?}");
        }
        let mut forged = issued.id;
        forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
        assert!(super::unseal_client_id(store.keyring(), &a, &forged).is_none());
    }

    #[test]
    fn a_public_client_has_no_secret() {
        let (_folder, store) = new_store();
        let a = new_incarnation("a");
        let issued =
            registration(ClientAuthMethod::None, &["http://localhost/cb"]).issue(store.keyring(), &a.current);
        let issued = issued.expect("issued");
        assert!(issued.secret.is_none());
        let client = unseal_client_id(store.keyring(), &a, &issued.id).expect("known");
        assert!(client.authentication.none && client.authentication.secrets.is_empty());
    }

    #[test]
    fn real_clients_have_ids_that_fit_into_columns() {
        let (_folder, store) = new_store();
        let cursor = [
            "http://localhost:8787/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ];
        let issued = registration(ClientAuthMethod::None, &cursor)
            .issue(store.keyring(), &new_incarnation("a").current)
            .expect("issued");
        assert!(issued.id.len() <= 280, "{}", issued.id.len());
        let long: Vec<String> =
            (0..10).map(|n| format!("https://a.example/{n}/{}", "x".repeat(200))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(
            registration(ClientAuthMethod::None, &long)
                .issue(store.keyring(), &new_incarnation("a").current)
                .is_none()
        );
    }
}
