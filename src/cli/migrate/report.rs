//! Prints what became of everything, and what is left to do.

use std::fmt::Write as _;
use std::path::Path;

use super::inventory::{Disposition, InventoryRow};
use super::plan::Plan;
use super::write::Written;
use crate::base::shell;
use crate::cli::output;
use crate::telemetry::printable::printable;

/// The tenants with their files.
pub(super) fn tenants(plan: &Plan, outcomes: &[Vec<Written>], folder: &Path) -> String {
    let mut text = String::new();
    for (tenant, outcomes) in plan.tenants.iter().zip(outcomes) {
        let title = printable(&tenant.title).into_owned();
        let _ = writeln!(text, "{}: was {title} ({})", tenant.name, printable(&tenant.place.to_string()));
        for (file, outcome) in tenant.files.iter().zip(outcomes) {
            let path = folder.join(&file.name).display().to_string();
            let _ = writeln!(text, "  {}: {}", printable(&path), outcome.as_str());
        }
        text.push('\n');
    }
    text
}

/// The inventory, what needs a person last.
pub(super) fn inventory(plan: &Plan) -> String {
    let mut rows: Vec<InventoryRow> = Vec::new();
    for row in plan.inventory.rows() {
        // Things of one file that have no purpose any more share a row.
        let is_alike = |other: &&mut InventoryRow| {
            other.outcome == Disposition::NotNeeded
                && other.note == row.note
                && other.place.file == row.place.file
        };
        match rows.iter_mut().find(is_alike).filter(|_| row.outcome == Disposition::NotNeeded) {
            Some(other) => other.what = format!("{}, {}", other.what, row.what),
            None => rows.push(row.clone()),
        }
    }
    rows.sort_by_key(|row| (row.outcome == Disposition::ByHand, row.place.clone()));
    let cells = |row: &InventoryRow| {
        vec![row.outcome.as_str().to_owned(), row.place.to_string(), row.what.clone(), row.note.clone()]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    output::table(&["OUTCOME", "WHERE", "WHAT", "WHY"], &rows)
}

/// What is left to do, in order. `redirect_uris` are those of tenants with a login.
pub(super) fn next_steps(
    plan: &Plan,
    folder: &Path,
    redirect_uris: &[String],
    owner: Option<String>,
) -> String {
    let mut steps = Vec::new();
    if plan.inventory.needs_a_person() {
        steps.push("Do what the rows BY HAND say.".to_owned());
    }
    steps.extend(owner);
    if !plan.shared_hosts.is_empty() {
        let hosts: Vec<_> = plan.shared_hosts.iter().map(|host| format!("--host {host}")).collect();
        steps.push(format!(
            "Several tenants have one host, so it must be the gateway's: `tenantd serve {}` (or host: in \
             tenantd.yaml).",
            hosts.join(" ")
        ));
    }
    if !redirect_uris.is_empty() {
        let list: Vec<_> = redirect_uris.iter().map(|uri| format!("\n     {uri}")).collect();
        steps.push(format!(
            "Redirect URIs stay as they are registered; compare them with the app registration:{}",
            list.concat()
        ));
    }
    let quoted = shell::quote(&folder.display().to_string());
    steps.push(format!("Try it beside the old one: `tenantd check {quoted}`, then serve on another port."));
    steps.push(
        "Compare the two before you switch: `tenantd migrate --compare OLD_URL --with NEW_URL` (connector \
         URLs)."
            .to_owned(),
    );
    let switches = || plan.tenants.iter().filter_map(|tenant| tenant.switch.as_ref());
    if !plan.rules.is_empty() {
        let rules: Vec<_> =
            plan.rules.iter().map(|(place, title)| format!("\n     {place}: {title}")).collect();
        steps.push(format!(
            "Switch the proxy: take these rules away, or let all of them lead to the gateway:{}",
            rules.concat()
        ));
    }
    let commands = |command: fn(&super::installation::SwitchCommands) -> &String| -> String {
        switches().map(|switch| format!("\n     {}", command(switch))).collect()
    };
    if switches().next().is_some() {
        steps.push(format!("Stop the old servers:{}", commands(|switch| &switch.stop)));
        steps.push(format!(
            "To go back, stop the gateway, restore the proxy's rules, and start them again; nothing of \
             theirs was \
             changed:{}",
            commands(|switch| &switch.start)
        ));
    }
    let mut text = String::from("Next steps\n");
    for (at, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", at + 1);
    }
    text
}
