//! The login at an identity provider, and which of the people who log in may call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::digest::Digest;
use crate::base::secret::Secret;

/// A tenant's login. Held once behind an `Arc` and shared by everything that needs a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSpec {
    /// Where people log in, and the accounts accepted.
    pub provider: ProviderSpec,
    /// The rules for everybody who logs in.
    pub rules: AccessRules,
    /// Additional rules for callers of single tools, by the tool's listed name.
    pub tools: BTreeMap<Arc<str>, AccessRules>,
    /// Clients that get tokens without a person.
    pub machine_clients: Vec<MachineClientSpec>,
    /// How unknown clients may register.
    pub registration: RegistrationSpec,
    /// The lifetime of access tokens, and so the longest time between two renewals.
    pub access_token_lifetime: Duration,
}

/// The lifetime of access tokens unless a tenant's file wants it shorter. With minutes instead,
/// ChatGPT refreshes before every call.
pub const MAX_ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

impl LoginSpec {
    /// Returns the machine client with this id.
    pub fn find_machine_client(&self, client_id: &str) -> Option<&MachineClientSpec> {
        self.machine_clients.iter().find(|machine| *machine.id == *client_id)
    }
}

/// The identity provider of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderSpec {
    /// Microsoft Entra ID.
    Entra(Arc<EntraSpec>),
}

impl ProviderSpec {
    /// Returns the id of the tenant's app at the provider.
    pub fn client_id(&self) -> &Arc<str> {
        match self {
            Self::Entra(entra) => &entra.client_id,
        }
    }

    /// Returns when the app's secret expires, if the operator says so.
    pub fn client_secret_expires(&self) -> Option<Timestamp> {
        match self {
            Self::Entra(entra) => entra.client_secret_expires,
        }
    }
}

/// The app registration in Entra, and the accounts accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntraSpec {
    /// The application (client) id.
    pub client_id: Arc<str>,
    /// The current secret, and the next one during a rotation; never empty.
    pub client_secrets: Vec<Secret>,
    /// When the last of them expires, as the operator says.
    pub client_secret_expires: Option<Timestamp>,
    /// The directory or directories whose accounts are accepted.
    pub directory: DirectorySpec,
    /// Whether to accept accounts of other directories that were invited into this one.
    pub allow_guests: bool,
    /// Whether to accept personal Microsoft accounts.
    pub allow_personal_accounts: bool,
}

/// The Entra directories in which people log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectorySpec {
    /// One directory, by its id or one of its domains.
    One(Arc<str>),
    /// Several directories: the account's own, if it is listed.
    Several {
        audience: Audience,
        /// The ids of the directories, in lower case; never empty.
        allowed: Vec<Arc<str>>,
    },
}

/// Entra's names for "any directory".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Work and school accounts.
    Organizations,
    /// Work and school accounts, and personal accounts.
    Common,
}

impl DirectorySpec {
    /// Returns the name of the directory in Entra's URLs.
    pub fn url_segment(&self) -> Arc<str> {
        match self {
            Self::One(name) => Arc::clone(name),
            Self::Several { audience, .. } => audience.as_str().into(),
        }
    }
}

impl Audience {
    /// Returns the segment in Entra's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Organizations => "organizations",
            Self::Common => "common",
        }
    }
}

/// The rules for callers. A person must have one of the roles, be in one of the groups, or be one
/// of the users (if all three are empty, everybody passes), and the user name must be in one of the
/// domains (if there are none, any passes).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessRules {
    /// Values of app roles.
    pub roles: Vec<Arc<str>>,
    /// Ids of groups at the provider, in lower case.
    pub groups: Vec<Arc<str>>,
    /// Ids of users at the provider, in lower case.
    pub users: Vec<Arc<str>>,
    /// Domains behind the `@` of the user name, in lower case.
    pub email_domains: Vec<Arc<str>>,
}

impl AccessRules {
    /// Returns whether everybody passes.
    pub fn is_empty(&self) -> bool {
        self.names_nobody() && self.email_domains.is_empty()
    }

    /// Returns whether there are neither roles nor groups nor users.
    pub fn names_nobody(&self) -> bool {
        self.roles.is_empty() && self.groups.is_empty() && self.users.is_empty()
    }
}

/// A client without a user, which gets its tokens by `client_credentials` (RFC 6749 section 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineClientSpec {
    /// Its `client_id`, unique within the tenant.
    pub id: Arc<str>,
    /// Its name in logs and the audit.
    pub label: Arc<str>,
    /// SHA-256 of its secret.
    pub secret: Option<Digest>,
    /// Its public keys for `private_key_jwt` (RFC 7523), as the JSON of a JWK set. Either `secret`
    /// or `jwks` is present.
    pub jwks: Option<Arc<str>>,
    /// The roles in which it acts, for tools that require some.
    pub roles: Vec<Arc<str>>,
}

/// How clients that no operator has registered may introduce themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSpec {
    /// Whether to accept dynamic client registration (RFC 7591).
    pub dynamic: bool,
    /// Which client ID metadata documents to accept.
    pub documents: DocumentPolicy,
}

/// Which client ID metadata documents are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentPolicy {
    Any,
    /// Documents at one of these hosts, in lower case.
    Listed(Vec<Arc<str>>),
    Off,
}

impl Default for RegistrationSpec {
    fn default() -> Self {
        Self { dynamic: true, documents: DocumentPolicy::Any }
    }
}
