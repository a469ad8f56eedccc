//! One caller's view of one server: the only way from a handler to tools, context and backend.
//!
//! Only this module creates [`GrantedTool`] and [`GrantedContext`], after `Permissions::allows`
//! allowed it; their fields are private, and so is the surface behind [`ServerState`]. A handler
//! that forgets the check has nothing to give out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{ServerState, context};
use crate::backend;
use crate::base::clock::{Clock, SystemClock};
use crate::mcp::context::DerivedContext;
use crate::mcp::permissions::ProtectedItem;
use crate::mcp::schema::Schema;
use crate::oauth::bearer::Principal;
use crate::spec::{TemplateValues, ToolKind, ToolSpec};

/// How long instructions wait for the digest; later they are sent without it.
const DIGEST_PATIENCE: Duration = Duration::from_secs(2);

/// A server as one caller sees it.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct CallerView<'a> {
    shared: &'a ServerState,
    caller: &'a Principal,
}

/// Why a caller does not get the item that it named.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mcp) enum AccessError<'a> {
    /// It does not exist.
    Unknown,
    /// It exists under this name, but the caller may not have it.
    NotAllowed(&'a str),
}

/// A tool that the caller may call.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct GrantedTool<'a> {
    spec: &'a ToolSpec,
    schema: &'a Schema,
    shared: &'a ServerState,
}

/// The semantic context, which the caller may read.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct GrantedContext<'a> {
    shared: &'a ServerState,
}

impl<'a> CallerView<'a> {
    pub(super) fn new(shared: &'a ServerState, caller: &'a Principal) -> Self {
        Self { shared, caller }
    }

    fn may(&self, item: ProtectedItem<'_>) -> bool {
        self.shared.rights.allows(self.caller, item)
    }

    /// Returns the tools that are listed for the caller, in the order of the spec.
    pub(in crate::mcp) fn tools(self) -> impl Iterator<Item = &'a ToolSpec> {
        self.shared.surface.tools.iter().filter(move |tool| self.may(ProtectedItem::Tool(&tool.name)))
    }

    /// Returns a tool by the name that the caller gave.
    pub(in crate::mcp) fn tool(self, name: &str) -> Result<GrantedTool<'a>, AccessError<'a>> {
        let (spec, schema) = self.shared.tool(name).ok_or(AccessError::Unknown)?;
        match self.may(ProtectedItem::Tool(&spec.name)) {
            true => Ok(GrantedTool { spec, schema, shared: self.shared }),
            false => Err(AccessError::NotAllowed(&spec.name)),
        }
    }

    /// Returns the semantic context.
    pub(in crate::mcp) fn context(self) -> Result<GrantedContext<'a>, AccessError<'a>> {
        if !self.shared.rights.has_context() {
            return Err(AccessError::Unknown);
        }
        match self.may(ProtectedItem::Context) {
            true => Ok(GrantedContext { shared: self.shared }),
            false => Err(AccessError::NotAllowed("context")),
        }
    }

    /// Returns the instructions for a model: the operator's words, then a digest of the context if
    /// the caller may read it.
    pub(in crate::mcp) async fn instructions(self) -> Option<String> {
        let surface = self.may(ProtectedItem::Description).then_some(&self.shared.surface)?;
        let digest = match self.context() {
            Ok(context) => context.digest().await,
            Err(_withheld) => None,
        };
        context::compose_instructions(
            surface.instructions.as_deref(),
            surface.description.as_deref(),
            digest.as_deref(),
        )
    }
}

impl<'a> GrantedTool<'a> {
    pub(in crate::mcp) fn name(self) -> &'a str {
        &self.spec.name
    }

    /// Returns the arguments in the form that the tool takes; if they are invalid, a sentence for
    /// the model.
    pub(in crate::mcp) fn prepare_arguments(
        self,
        arguments: TemplateValues,
    ) -> Result<TemplateValues, String> {
        let arguments = Value::Object(self.schema.normalize_arguments(arguments));
        self.schema.check(&arguments)?;
        let Value::Object(arguments) = arguments else { return Ok(TemplateValues::new()) };
        self.spec.call.check_arguments(&arguments).map_err(|unfit| unfit.to_string())?;
        Ok(arguments)
    }

    /// Calls the backend.
    pub(in crate::mcp) async fn call_backend(
        self,
        arguments: &TemplateValues,
        call: &backend::CallContext,
    ) -> Result<backend::BackendResponse, backend::Error> {
        self.shared.surface.backend.call(&self.spec.call, arguments, call).await
    }

    /// Returns the context for a tool of the kind [`ToolKind::Context`]: a caller of that tool may
    /// read the context.
    pub(in crate::mcp) fn context(self) -> Option<GrantedContext<'a>> {
        (self.spec.kind == ToolKind::Context).then_some(GrantedContext { shared: self.shared })
    }
}

impl GrantedContext<'_> {
    /// Returns the digest of the current context; `None` if there is none yet or computing it takes
    /// too long.
    async fn digest(self) -> Option<Arc<str>> {
        let known = self.shared.surface.backend.cached_context()?;
        let made = DerivedContext::new(known);
        if let Some(digest) = made.cached_digest() {
            return Some(digest);
        }
        let deadline = SystemClock.monotonic() + DIGEST_PATIENCE;
        let size = made.document().size();
        self.shared.run_offloaded(size, deadline, move || made.get_or_build_digest()).await.ok()
    }

    /// Fetches the context within the call's deadline, even if another request is fetching it.
    pub(in crate::mcp) async fn fetch(
        self,
        call: &backend::CallContext,
    ) -> Result<DerivedContext, backend::Error> {
        let fetching = self.shared.surface.backend.context(call);
        let in_time = tokio::time::timeout_at(call.deadline.into(), fetching).await;
        Ok(DerivedContext::new(in_time.unwrap_or(Err(backend::Error::TimedOut))?))
    }
}
