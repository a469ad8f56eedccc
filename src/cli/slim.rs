//! `tenantd slim`: makes an export small enough for a Kubernetes Secret.

use anyhow::{Context, ensure};

use super::args::SlimArgs;
use super::{Exit, output, render};
use crate::base::diagnostic::Report;
use crate::base::disk;
use crate::bundle::{MAX_ARCHIVE, SlimExport};

/// What a Kubernetes Secret may hold, in bytes.
const SECRET_LIMIT: usize = 1 << 20;
/// The export has the backend's key in it.
const MODE: u32 = 0o600;

/// Writes the slim export and prints what became of it.
pub(super) fn run(args: &SlimArgs) -> anyhow::Result<Exit> {
    let (from, to) = (&args.file, &args.out);
    ensure!(args.overwrite || !to.exists(), "{} exists; name another file, or say --overwrite", to.display());
    let bytes =
        disk::read(from, MAX_ARCHIVE).with_context(|| format!("{} cannot be read", from.display()))?;
    let size = bytes.len();
    let slim = match SlimExport::from_export(from, bytes) {
        Ok(slim) => slim,
        Err(finding) => {
            let mut report = Report::new();
            report.push(*finding);
            output::print_error_lines(&render::human(&report));
            return Ok(Exit::Findings);
        }
    };
    disk::replace_durably(to, &slim.bytes, MODE)
        .with_context(|| format!("{} cannot be written", to.display()))?;
    let kept = slim.kept.join(", ");
    output::print(&format!(
        "{}: {} bytes ({} had {size}). It has {kept}; nothing else of an export is ever read.\n",
        to.display(),
        slim.bytes.len(),
        from.display()
    ))?;
    if slim.bytes.len() > SECRET_LIMIT {
        output::print_error(
            "warning: a Kubernetes Secret holds at most 1 MiB, so this does not fit into one",
        );
    }
    Ok(Exit::Fine)
}
