//! The tenant under validation: what all validators read and report to.

use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::bundle::LoadContext;
use crate::bundle::document::{ConfigDocument, FoundValue};
use crate::bundle::layers::Layers;
use crate::bundle::load_state::LoadState;
use crate::bundle::lookalike::Lookalike;
use crate::bundle::secret_refs::{ResolvedSecret, SecretResolver};
use crate::bundle::tree::ConfigNode;

/// The inputs that all validators share.
pub(super) struct Validation<'a, 'b> {
    /// The tenant's documents. The last one that has a field decides it: see `find` (skips blank
    /// values), `find_written` (does not) and `find_secret` (also reads `x_file`).
    pub(super) layers: &'a Layers,
    pub(super) context: &'a LoadContext,
    /// The name of the dataset, or what stands for it.
    pub(super) dataset: &'a str,
    pub(super) lookalikes: &'a [Lookalike],
    pub(super) state: &'a mut LoadState<'b>,
    pub(super) report: &'a mut Report,
}

impl<'a> Validation<'a, '_> {
    /// Adds a finding at a place, or at the tenant as a whole.
    pub(super) fn add_finding(&mut self, diagnostic: Diagnostic, at: Option<Location>) {
        self.report.push(match at.or_else(|| self.layers.location()) {
            Some(location) => diagnostic.at(location),
            None => diagnostic,
        });
    }

    /// Returns the highest value at a path that is present, even a blank one: an empty `access:` is
    /// not a request to be open.
    pub(super) fn find_written(&self, path: &[&str]) -> Option<FoundValue<'a>> {
        self.layers.0.iter().rev().find_map(|document| {
            let member = |node: &'a ConfigNode, name: &&str| node.member(name).map(|(_, node)| node);
            let node = path.iter().try_fold(&document.root, member)?;
            Some(FoundValue { node, document })
        })
    }

    /// Returns where the highest value at a path that is not blank is written.
    pub(super) fn locate(&self, path: &[&str]) -> Option<Location> {
        self.layers.find(path).map(|found| found.location())
    }

    /// Whether the value at a path is given and not blank.
    pub(super) fn is_given(&self, path: &[&str]) -> bool {
        self.layers.find(path).is_some()
    }

    /// Returns the secret `name` (or `name_file`) of a mapping in a document; `None` if it is unset
    /// or was refused.
    pub(super) fn resolve_member(
        &mut self,
        document: &ConfigDocument,
        map: &ConfigNode,
        name: &str,
    ) -> Option<ResolvedSecret> {
        SecretResolver::new(self.state).resolve_member(document, map, name, self.report)
    }

    /// Returns the secret that a value is, or refers to.
    pub(super) fn resolve_value(&mut self, found: &FoundValue<'_>, name: &str) -> Option<ResolvedSecret> {
        SecretResolver::new(self.state).resolve_value(found.document, found.node, name, self.report)
    }

    /// Whether the tenant turns login on.
    pub(super) fn is_login_enabled(&self) -> bool {
        self.layers.find_bool(&["oauth_enabled"]) == Some(true)
    }
}
