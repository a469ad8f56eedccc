//! `tenantd man`: writes the manual pages, one for each command, for packages.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::Exit;
use super::args::Arguments;

/// Writes all pages into a folder, which is created if it is missing.
pub(super) fn run(folder: &Path) -> anyhow::Result<Exit> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .with_context(|| format!("the manual pages cannot be written into {}", folder.display()))?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pages = folder.path().join("man1");
        run(&pages).expect("written");
        for command in Arguments::command().get_subcommands() {
            let page = pages.join(format!("tenantd-{}.1", command.get_name()));
            let text =
                fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        let top = fs::read_to_string(pages.join("tenantd.1")).expect("there");
        assert!(top.contains("tenantd\\-serve(1)"), "{top}");
    }
}
