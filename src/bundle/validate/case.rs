//! The tenant under validation: what all validators read and report to.

use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::bundle::LoadContext;
use crate::bundle::document::{FoundValue, Layers};
use crate::bundle::lookalike::Lookalike;
use crate::bundle::secret_refs::SecretResolver;
use crate::bundle::yaml::YamlNode;

/// The inputs that all validators share.
pub(super) struct Validation<'a, 'b> {
    pub(super) layers: &'a Layers,
    pub(super) context: &'a LoadContext,
    /// The name of the dataset, or what stands for it.
    pub(super) dataset: &'a str,
    pub(super) lookalikes: &'a [Lookalike],
    pub(super) resolver: &'a mut SecretResolver<'b>,
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
            let member = |node: &'a YamlNode, name: &&str| node.member(name).map(|(_, node)| node);
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

    /// Whether the tenant turns login on.
    pub(super) fn is_login_enabled(&self) -> bool {
        self.layers.find_bool(&["oauth_enabled"]) == Some(true)
    }
}
