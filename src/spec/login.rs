//! Login with Microsoft, and who of those that log in may call.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::secret::Secret;

/// A tenant's login. Held once behind an `Arc` and shared by all that need a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSpec {
    pub identity: IdentitySpec,
    /// What everybody must meet who logs in.
    pub rules: AccessRules,
    /// What callers of single tools must meet besides, by the tool's listed name.
    pub tools: BTreeMap<Arc<str>, AccessRules>,
    pub machine_clients: Vec<MachineClientSpec>,
    pub registration: RegistrationSpec,
}

impl LoginSpec {
    /// The machine client with this id.
    pub fn machine(&self, client_id: &str) -> Option<&MachineClientSpec> {
        self.machine_clients.iter().find(|machine| *machine.id == *client_id)
    }
}

/// The app registration in Entra, and whose accounts are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    /// The application (client) id.
    pub client_id: Arc<str>,
    /// The current secret, then the next one while it is rotated; never empty.
    pub client_secrets: Vec<Secret>,
    pub directory: DirectorySpec,
    /// Accounts of other directories that were invited into this one.
    pub guests: bool,
    /// Personal Microsoft accounts.
    pub personal: bool,
}

/// Which of Entra's directories logs people in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectorySpec {
    /// One directory, by its id or one of its domains.
    One(Arc<str>),
    /// Whatever directory an account is from, if it is one of these.
    Several {
        audience: Audience,
        /// Ids of directories, lower case; never empty.
        allowed: Vec<Arc<str>>,
    },
}

/// Entra's names for "whatever directory".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Work and school accounts.
    Organizations,
    /// Personal accounts too.
    Common,
}

impl DirectorySpec {
    /// What it is called in Entra's URLs.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::One(name) => Arc::clone(name),
            Self::Several { audience, .. } => audience.as_str().into(),
        }
    }
}

impl Audience {
    /// The segment in Entra's URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Organizations => "organizations",
            Self::Common => "common",
        }
    }
}

/// Who may call. A person is let in who has one of the roles, or is in one of the groups, or is one of the users (all
/// three empty: everybody), and whose user name is of one of the domains (empty: any).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessRules {
    /// Values of app roles.
    pub roles: Vec<Arc<str>>,
    /// Object ids of groups, lower case.
    pub groups: Vec<Arc<str>>,
    /// Object ids of users, lower case.
    pub users: Vec<Arc<str>>,
    /// What stands behind the `@` of the user name, lower case.
    pub email_domains: Vec<Arc<str>>,
}

impl AccessRules {
    /// Whether everybody meets them.
    pub fn is_empty(&self) -> bool {
        self.names_nobody() && self.email_domains.is_empty()
    }

    /// Whether neither roles nor groups nor users are asked for.
    pub fn names_nobody(&self) -> bool {
        self.roles.is_empty() && self.groups.is_empty() && self.users.is_empty()
    }
}

/// A caller that is a program and has no user: it gets tokens by `client_credentials` (RFC 6749 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineClientSpec {
    /// Its `client_id`; unique in the tenant.
    pub id: Arc<str>,
    /// What logs and audit call it.
    pub label: Arc<str>,
    /// SHA-256 of its secret.
    pub secret: Option<Digest>,
    /// Its public keys for `private_key_jwt` (RFC 7523), as the JSON of a JWK set. One of the two is there.
    pub jwks: Option<Arc<str>>,
    /// The roles it acts in, for tools that ask for some.
    pub roles: Vec<Arc<str>>,
}

/// How clients that nobody has registered may introduce themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSpec {
    /// Dynamic registration (RFC 7591).
    pub dynamic: bool,
    /// Client id metadata documents.
    pub documents: DocumentPolicy,
}

/// Whose client id metadata documents are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentPolicy {
    Any,
    /// Those at one of these hosts, lower case.
    Listed(Vec<Arc<str>>),
    Off,
}

impl Default for RegistrationSpec {
    fn default() -> Self {
        Self { dynamic: true, documents: DocumentPolicy::Any }
    }
}
