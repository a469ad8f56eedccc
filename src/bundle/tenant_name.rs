//! Determines a tenant's name: `name:` in its overlay, the stem of its files, or, if the stem is
//! the export's default, its dataset. The only tenant of a gateway has its dataset's name: the path
//! of its files says nothing.

use super::layers::GatheredLayers;
use super::{EntryFiles, LoadContext};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::spec::TenantName;

/// Returns the name, or reports a finding if there is none.
pub(super) fn resolve_name(
    entry: &EntryFiles,
    gathered: &GatheredLayers,
    context: &LoadContext,
    report: &mut Report,
) -> Option<TenantName> {
    if let Some(found) = gathered.layers.find(&["name"]) {
        let text = found.text()?;
        return TenantName::parse(text).or_else(|| {
            let near = TenantName::from_entry_id(text)
                .map(|name| format!("; {name} is possible"))
                .unwrap_or_default();
            report.push(
                Diagnostic::error("bad-name", "this is not a valid name for a tenant")
                    .help(format!("use lower-case letters, digits and \"-\", at most 63 characters{near}"))
                    .at(found.location()),
            );
            None
        });
    }
    let dataset = gathered.dataset.as_deref().or_else(|| gathered.layers.find_text(&["dataset"]));
    let dataset = dataset
        .and_then(TenantName::from_entry_id)
        .filter(|_| context.has_single_tenant() || is_generic_export_name(&entry.id));
    let name = dataset.or_else(|| TenantName::from_entry_id(&entry.id));
    if name.is_none() {
        let missing = Diagnostic::error("bad-name", "the file's name does not give a valid tenant name")
            .help("rename the file, for instance to acme.zip, or write name: into a .yaml beside it");
        report.push(match gathered.layers.location() {
            Some(location) => missing.at(location),
            None => missing,
        });
    }
    name
}

/// Whether a stem is the export's default name: `mcp_export`, `mcp_export (1)`, `server`.
fn is_generic_export_name(stem: &str) -> bool {
    let stem = stem.to_ascii_lowercase().replace(['-', ' '], "_");
    let stem = stem.strip_prefix("copy_of_").unwrap_or(&stem);
    let rest = stem.strip_prefix("mcp_export").or_else(|| stem.strip_prefix("server"));
    let counter = |rest: &str| rest.is_empty() || rest.starts_with(['_', '(', '.']);
    rest.is_some_and(|rest| {
        let rest = rest.strip_suffix("_copy").unwrap_or(rest);
        counter(rest) && rest.chars().all(|c| c.is_ascii_digit() || "_().".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unrenamed_exports_say_nothing() {
        for stem in [
            "mcp_export",
            "mcp_export (1)",
            "mcp-export",
            "MCP_Export_2",
            "server",
            "Copy of mcp_export",
            "mcp_export - Copy",
        ] {
            assert!(is_generic_export_name(stem), "{stem}");
        }
        for stem in ["acme", "mcp_exports", "server-room", "servers"] {
            assert!(!is_generic_export_name(stem), "{stem}");
        }
    }
}
