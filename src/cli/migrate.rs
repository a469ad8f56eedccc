//! `tenantd migrate`: turns an old installation of the vendor's servers into tenants' files.
//!
//! Reads what was given ([`source`]), understands it as servers and routes ([`installation`]),
//! decides what tenants they become ([`plan`]), writes their files ([`mod@write`]) and accounts for
//! everything found ([`report`]). The old files are only read. [`compare`] asks the old and the new
//! server the same questions.

mod compare;
mod compose;
mod container;
mod docker_run;
mod environment;
mod exports;
mod installation;
mod inventory;
mod kubernetes;
mod nginx;
mod nginx_routes;
mod overlay;
mod plan;
mod proxy_rules;
mod report;
mod source;
mod systemd;
#[cfg(test)]
mod tests;
mod values;
mod words;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::args::{AdminAccessArgs, MigrateArgs};
use super::check::{self, CheckOutput, CheckReport};
use super::{Exit, configuration, output};
use crate::base::disk::why;
use crate::settings::{Flags, SettingKey};
use installation::Installation;
use plan::Plan;
use source::{Content, Locator};
use write::{WriteMode, Written};

/// Moves an installation.
pub(super) fn run(args: &MigrateArgs) -> anyhow::Result<Exit> {
    if let Some(old) = &args.compare {
        return compare::run(old, args);
    }
    let mut checking = load_settings(args, &BTreeSet::new())?;
    let folder = args.to.clone().unwrap_or_else(|| checking.settings.tenants.clone());
    let plan = plan::plan(read(&args.from, &folder)?);
    if checking.is_host_unknown && !plan.shared_hosts.is_empty() {
        checking = load_settings(args, &plan.shared_hosts)?;
    }
    if plan.tenants.is_empty() {
        output::print(&report::inventory(&plan))?;
        anyhow::bail!("nothing that was given runs the vendor's server or is its export");
    }
    let mode = WriteMode { is_dry_run: args.dry_run, overwrites: args.overwrite };
    let outcomes = write::write(&plan.tenants, &folder, mode)
        .map_err(|error| anyhow::anyhow!("{} cannot be written to: {}", folder.display(), why(&error)))?;
    output::print(&report::tenants(&plan, &outcomes, &folder))?;
    output::print(&report::inventory(&plan))?;
    let mut checked = CheckReport::default();
    if !args.dry_run {
        checked = check_result(&plan, &folder, &checking)?;
        output::print("\n")?;
        check::print(
            &checked,
            CheckOutput { is_host_unknown: checking.is_host_unknown, ..CheckOutput::default() },
        )?;
    }
    let redirect_uris: Vec<_> =
        checked.tenants.iter().filter_map(|tenant| tenant.redirect_uri.clone()).collect();
    let owner = owner_advice(&plan, &folder, args.dry_run);
    output::print(&format!("\n{}", report::next_steps(&plan, &folder, &redirect_uris, owner)))?;
    let is_blocked = outcomes.iter().flatten().any(|outcome| *outcome == Written::Differs);
    let is_refused = checked.tenants.iter().any(|tenant| tenant.findings.has_errors());
    Ok(match plan.inventory.needs_a_person() || is_blocked || is_refused {
        true => Exit::Findings,
        false => Exit::Fine,
    })
}

/// Reads everything that was given, except for what is in the folder to write to.
fn read(from: &[PathBuf], to: &Path) -> anyhow::Result<Installation> {
    let mut into = Installation::default();
    let sources = source::find_sources(from, to, &mut into.inventory)?;
    let locator = Locator::new(&sources);
    for source in &sources {
        let path = source.path.as_path();
        match &source.content {
            Content::Compose(root) => compose::read(path, root, &sources, &locator, &mut into),
            Content::Unit(text) => systemd::read(path, text, &sources, &locator, &mut into),
            Content::DockerRun(text) => docker_run::read(path, text, &sources, &locator, &mut into),
            _ => {}
        }
    }
    for source in &sources {
        if let (Content::Env(env), false) = (&source.content, into.is_used(&source.path)) {
            compose::read_lone_env(&source.path, env, &sources, &locator, &mut into);
        }
    }
    kubernetes::read(&sources, &mut into);
    nginx_routes::read(&sources, &mut into);
    exports::assign_rest(&sources, &mut into);
    Ok(into)
}

/// Returns the settings by which the result is judged, with `hosts` as hosts of the gateway, too:
/// hosts that several tenants share are the gateway's, if no source names any.
fn load_settings(
    args: &MigrateArgs,
    hosts: &BTreeSet<String>,
) -> anyhow::Result<configuration::CheckSettings> {
    let flags = args.validation.flags(Flags::new()).with(SettingKey::HOST, hosts);
    configuration::load_for_check(flags, args.validation.config.as_deref(), &AdminAccessArgs::default())
}

fn check_result(
    plan: &Plan,
    folder: &Path,
    checking: &configuration::CheckSettings,
) -> anyhow::Result<CheckReport> {
    let context = configuration::load_context(&checking.settings);
    let checked = check::validate_paths(&[folder.to_owned()], &context);
    let mut checked = checked
        .map_err(|(path, error)| anyhow::anyhow!("{} cannot be read: {}", path.display(), why(&error)))?;
    checked.tenants.retain(|tenant| plan.tenants.iter().any(|planned| planned.name == tenant.stem));
    if checking.is_host_unknown {
        checked.forget_host(&context.public_base);
    }
    Ok(checked)
}

/// Returns what to do if the gateway runs as another user than the one who wrote the files.
fn owner_advice(plan: &Plan, folder: &Path, is_dry_run: bool) -> Option<String> {
    let names = plan.tenants.iter().flat_map(|tenant| &tenant.files).map(|file| folder.join(&file.name));
    let file = names.into_iter().find(|path| path.exists()).filter(|_| !is_dry_run)?;
    let group = write::other_owner(folder, &file)?;
    Some(format!(
        "The files are readable by you alone (mode 0600). Give them to the gateway's user: `chown USER \
         FILES`, or \
         `chgrp {group}` and `chmod 640`."
    ))
}
