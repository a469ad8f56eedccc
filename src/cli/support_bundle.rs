//! `tenantd support-bundle`: what others need to help, in one archive that is shown before it is
//! written.
//!
//! Secrets are left out by their types, where the values are made: settings as they print
//! themselves, states and findings as the gateway gives them, the log and the audit as they are
//! written. No file of a tenant, no key and no part of the store is read.

mod members;
mod people;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use anyhow::Context as _;

use self::members::Member;
use super::args::SupportBundleArgs;
use super::{Exit, output};
use crate::base::clock::{Clock, SystemClock};
use crate::base::disk;
use crate::bundle;

/// The lines of a member that are shown before it is written.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARS: usize = 110;
/// Only the owner may read it: it names hosts, tenants and people.
const MODE: u32 = 0o600;

/// Collects everything, shows it, and writes it if the operator agrees.
pub(super) fn run(args: &SupportBundleArgs) -> anyhow::Result<Exit> {
    let mut members = members::collect(args)?;
    if args.without_people {
        people::replace(&mut members);
    }
    let path = args.out.clone().unwrap_or_else(default_path);
    output::print(&describe(&members))?;
    if !args.yes && !is_agreed(&path)? {
        output::print("nothing was written\n")?;
        return Ok(Exit::Fine);
    }
    let files = members.iter().map(|member| (member.name, member.text.as_bytes()));
    let archive = bundle::pack(files).context("the archive cannot be made")?;
    let written = disk::replace(&path, &archive, MODE);
    written
        .with_context(|| format!("{} cannot be written; give another place with --out", path.display()))?;
    output::print(&format!("{} written, {} bytes\n", path.display(), archive.len()))?;
    Ok(Exit::Fine)
}

fn default_path() -> PathBuf {
    format!("tenantd-support-{}.zip", SystemClock.now().strftime("%Y%m%d-%H%M%S")).into()
}

/// Lists the members with their sizes and first lines.
fn describe(members: &[Member]) -> String {
    let shown = |member: &Member| {
        let head = format!("{} ({} bytes): {}\n", member.name, member.text.len(), member.purpose);
        let lines = member.text.lines().take(SHOWN_LINES);
        let lines = lines.map(|line| format!("    {}\n", line.chars().take(SHOWN_CHARS).collect::<String>()));
        head + &lines.collect::<String>()
    };
    members.iter().map(shown).collect()
}

/// Asks on the terminal; without one, `--yes` is needed.
fn is_agreed(path: &std::path::Path) -> anyhow::Result<bool> {
    anyhow::ensure!(
        io::stdin().is_terminal(),
        "there is no terminal to ask on; look at the list above, and agree with --yes"
    );
    output::print(&format!("Write this to {}? [y/N] ", path.display()))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
