//! Authorization within a tenant: the single decision that every method asks for.
//!
//! `oauth/bearer` decides who is admitted to a tenant; this module decides what an admitted caller
//! gets. Lists, calls, resources, instructions, streams and the page for people all ask
//! [`Permissions::allows`], so they cannot disagree. Handlers reach the backend only through
//! [`CallerView`](super::server_state::CallerView), which asks for them.
//!
//! The decision is a pure function and fails closed: a caller of a kind that the tenant does not
//! admit (an anonymous caller where credentials are required, a key where people log in) gets
//! nothing.

use std::sync::Arc;

use crate::oauth::bearer::Principal;
use crate::spec::{AccessSpec, LoginSpec, ToolKind, ToolSpec};

/// Which kind of caller a tenant admits: what a permission depends on. The bearer check has what it
/// takes to check a credential, too.
#[derive(Debug, Clone)]
pub enum AuthMode {
    /// The tenant requires no credential.
    Open,
    /// The tenant requires one of its API keys.
    Keys,
    /// People and service clients log in; single tools may have rules.
    Login(Arc<LoginSpec>),
}

impl From<&AccessSpec> for AuthMode {
    fn from(access: &AccessSpec) -> Self {
        match &access.login {
            Some(login) => Self::Login(Arc::clone(login)),
            None if access.api_keys.is_empty() => Self::Open,
            None => Self::Keys,
        }
    }
}

/// Something that a tenant gives to callers. Name and title are not included: anyone who knows the
/// URL sees them, so that people know where they log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectedItem<'a> {
    /// What the tenant says about itself: description, instructions, the name of the dataset.
    Description,
    /// A tool by its listed name. Seeing and calling it are one right.
    Tool(&'a str),
    /// The semantic context (what the backend says its dataset can be asked), whole or in part: as
    /// a tool's result, as a resource, as the digest in the instructions.
    Context,
}

/// The rights at one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Permissions {
    auth_mode: AuthMode,
    tools: Arc<[ToolRight]>,
}

/// What the rights at a tenant know of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRight {
    /// The listed name.
    pub name: Arc<str>,
    /// Whether callers of the tool may read the semantic context.
    pub reads_context: bool,
}

impl From<&ToolSpec> for ToolRight {
    fn from(tool: &ToolSpec) -> Self {
        Self { name: Arc::clone(&tool.name), reads_context: tool.kind == ToolKind::Context }
    }
}

impl Permissions {
    /// The rights at a tenant with these tools; hidden tools are not among them.
    pub fn new(auth_mode: AuthMode, tools: impl Iterator<Item = ToolRight>) -> Self {
        Self { auth_mode, tools: tools.collect() }
    }

    /// Returns whether a caller may have an item. This is the only place that decides it.
    pub fn allows(&self, caller: &Principal, item: ProtectedItem<'_>) -> bool {
        match item {
            ProtectedItem::Description => self.admits(caller),
            ProtectedItem::Tool(name) => {
                self.admits(caller) && self.has_tool(name) && self.meets_rules(caller, name)
            }
            ProtectedItem::Context => {
                self.context_tools().any(|tool| self.allows(caller, ProtectedItem::Tool(&tool.name)))
            }
        }
    }

    /// Returns whether responses depend on the caller, so that no shared cache may store them.
    pub fn vary_by_caller(&self) -> bool {
        !matches!(self.auth_mode, AuthMode::Open)
    }

    /// Returns whether any caller can have an item. None can have the context if its tool is
    /// hidden.
    pub(super) fn is_offered(&self, item: ProtectedItem<'_>) -> bool {
        match item {
            ProtectedItem::Description => true,
            ProtectedItem::Tool(name) => self.has_tool(name),
            ProtectedItem::Context => self.context_tools().next().is_some(),
        }
    }

    fn context_tools(&self) -> impl Iterator<Item = &ToolRight> {
        self.tools.iter().filter(|tool| tool.reads_context)
    }

    fn admits(&self, caller: &Principal) -> bool {
        match (&self.auth_mode, caller) {
            (AuthMode::Open, Principal::Anonymous)
            | (AuthMode::Keys, Principal::Key { .. })
            | (AuthMode::Login(_), Principal::User(_) | Principal::Machine(_)) => true,
            (AuthMode::Open | AuthMode::Keys | AuthMode::Login(_), _) => false,
        }
    }

    fn has_tool(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| *tool.name == *name)
    }

    fn meets_rules(&self, caller: &Principal, name: &str) -> bool {
        let AuthMode::Login(login) = &self.auth_mode else { return true };
        login.tools.get(name).is_none_or(|rules| caller.satisfies(rules))
    }
}

/// The tools that a reload changed, and the rights before and after it.
#[derive(Debug, Clone)]
pub(super) struct ToolListChange {
    pub(super) tools: Arc<[Arc<str>]>,
    pub(super) before: Permissions,
    pub(super) after: Permissions,
}

impl ToolListChange {
    /// Returns whether the change is visible to a caller; callers are not notified of tools that
    /// they may not see.
    pub(super) fn is_visible_to(&self, caller: &Principal) -> bool {
        let is_allowed = |rights: &Permissions, name| rights.allows(caller, ProtectedItem::Tool(name));
        self.tools.iter().any(|name| is_allowed(&self.before, name) || is_allowed(&self.after, name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::secret::Secret;
    use crate::oauth::bearer::MachinePrincipal;
    use crate::spec::{
        AccessRules, CallSpec, DirectorySpec, EntraSpec, ProviderSpec, RegistrationSpec, UrlTemplate,
    };

    fn tool(name: &str, kind: ToolKind) -> ToolSpec {
        let call = CallSpec {
            method: http::Method::GET,
            url: UrlTemplate::parse("https://h/x").expect("a template"),
            headers: Arc::default(),
            body: None,
            constants: Default::default(),
        };
        ToolSpec {
            name: name.into(),
            title: name.into(),
            description: name.into(),
            input_schema: Arc::default(),
            output_schema: Arc::default(),
            kind,
            call: Arc::new(call),
        }
    }

    fn machine(roles: &[String]) -> Principal {
        let roles = roles.iter().map(|role| Arc::from(&**role)).collect();
        Principal::Machine(MachinePrincipal { client_id: "m".into(), label: "m".into(), roles })
    }

    fn login(rules: &[(String, Vec<String>)]) -> AuthMode {
        let rules_of = |roles: &[String]| AccessRules {
            roles: roles.iter().map(|role| Arc::from(&**role)).collect(),
            ..AccessRules::default()
        };
        AuthMode::Login(Arc::new(LoginSpec {
            provider: ProviderSpec::Entra(Arc::new(EntraSpec {
                client_id: "app".into(),
                client_secrets: vec![Secret::new("s")],
                client_secret_expires: None,
                directory: DirectorySpec::One("d".into()),
                allow_guests: false,
                allow_personal_accounts: false,
            })),
            rules: AccessRules::default(),
            tools: rules.iter().map(|(tool, roles)| (Arc::from(&**tool), rules_of(roles))).collect(),
            machine_clients: Vec::new(),
            registration: RegistrationSpec::default(),
            access_token_lifetime: crate::spec::MAX_ACCESS_TOKEN_LIFETIME,
        }))
    }

    fn callers(roles: &[String]) -> [Principal; 3] {
        [Principal::Anonymous, Principal::Key { label: "k".into() }, machine(roles)]
    }

    fn role() -> impl Strategy<Value = String> {
        prop_oneof!["a", "b", "c"]
    }

    proptest! {
        #[test]
        fn unknown_items_and_other_kinds_of_callers_are_denied(
            rules in proptest::collection::vec((prop_oneof!["search", "get_context"], proptest::collection::vec(role(), 0..3)), 0..3),
            roles in proptest::collection::vec(role(), 0..3),
            hidden in any::<bool>(),
        ) {
            let mut tools = vec![tool("search", ToolKind::Search)];
            if !hidden {
                tools.push(tool("get_context", ToolKind::Context));
            }
            let tools: Arc<[ToolSpec]> = tools.into();
            for (auth_mode, his) in [(AuthMode::Open, 0), (AuthMode::Keys, 1), (login(&rules), 2)] {
                let rights = Permissions::new(auth_mode, tools.iter().map(ToolRight::from));
                for (number, caller) in callers(&roles).iter().enumerate() {
                    let may = |item| rights.allows(caller, item);
                    prop_assert_eq!(may(ProtectedItem::Description), number == his);
                    prop_assert!(number == his || !may(ProtectedItem::Tool("search")));
                    prop_assert!(!may(ProtectedItem::Tool("other")) && !may(ProtectedItem::Tool("")));
                    prop_assert_eq!(may(ProtectedItem::Context), may(ProtectedItem::Tool("get_context")));
                    prop_assert!(!hidden || !may(ProtectedItem::Context));
                }
            }
        }

        #[test]
        fn another_rule_never_grants_more(
            rules in proptest::collection::vec((prop_oneof!["search", "get_context"], proptest::collection::vec(role(), 1..3)), 0..2),
            more in proptest::collection::vec(role(), 1..3),
            roles in proptest::collection::vec(role(), 0..3),
        ) {
            let tools: Arc<[ToolSpec]> =
                [tool("search", ToolKind::Search), tool("get_context", ToolKind::Context)].into();
            let narrowed = rules.iter().any(|(tool, _)| tool == "get_context");
            prop_assume!(!narrowed);
            let with: Vec<_> = rules.iter().cloned().chain([("get_context".to_owned(), more.clone())]).collect();
            let (before, after) = (Permissions::new(login(&rules), tools.iter().map(ToolRight::from)), Permissions::new(login(&with), tools.iter().map(ToolRight::from)));
            let caller = machine(&roles);
            for item in [ProtectedItem::Description, ProtectedItem::Tool("search"), ProtectedItem::Tool("get_context"), ProtectedItem::Context] {
                prop_assert!(before.allows(&caller, item) || !after.allows(&caller, item));
            }
            let meets = more.iter().any(|role| roles.contains(role));
            prop_assert_eq!(after.allows(&caller, ProtectedItem::Context), meets);
        }
    }

    #[test]
    fn a_login_takes_precedence_over_keys() {
        let AuthMode::Login(spec) = login(&[]) else { unreachable!("made one line above") };
        let key = crate::spec::ApiKeySpec {
            label: "k".to_owned(),
            digest: crate::base::digest::Digest::of(b"k"),
            expires: None,
        };
        let access = |keys: Vec<_>, login| AccessSpec {
            api_keys: keys,
            login,
            public: true,
            open_on_purpose: true,
            ..AccessSpec::default()
        };
        assert!(matches!(AuthMode::from(&access(vec![key.clone()], Some(spec.clone()))), AuthMode::Login(_)));
        assert!(matches!(AuthMode::from(&access(vec![], Some(spec))), AuthMode::Login(_)));
        assert!(matches!(AuthMode::from(&access(vec![key], None)), AuthMode::Keys));
        assert!(matches!(AuthMode::from(&access(vec![], None)), AuthMode::Open));
    }
}
