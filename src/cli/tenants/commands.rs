//! The commands that change a tenant, and the queries about its history.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::super::admin_client::{Error, encode_segment, file_path, tenant_path};
use super::super::admin_request::{Answer, client, print_answer, send};
use super::super::args::{AdminArgs, TenantsAction};
use super::super::{Exit, entries, output, render};
use crate::base::disk;
use crate::telemetry::printable::printable;
use crate::tenants::reconcile::MAX_UPLOAD_BYTES;
use crate::tenants::status::TenantState;

/// Runs the command.
pub(super) fn run(action: &TenantsAction) -> anyhow::Result<Exit> {
    use TenantsAction as Action;
    match action {
        Action::List { .. } | Action::Show { .. } => unreachable!("they are queries about the present"),
        Action::History { name, query } => {
            let revisions = get(&query.admin, &tenant_path(name, "/history"));
            print_answer(revisions, |revisions| output::rendered(query.format, revisions, format_history))
        }
        Action::Diff { name, from, to, admin } => {
            let number = |name: &str, number: &Option<u64>| number.map(|number| format!("{name}={number}"));
            let query: Vec<_> = [number("from", from), number("to", to)].into_iter().flatten().collect();
            let path = tenant_path(name, &format!("/diff?{}", query.join("&")));
            print_answer(get(admin, &path), format_comparison)
        }
        Action::Rollback { name, revision, admin } => {
            let path = tenant_path(name, &format!("/rollback?revision={revision}"));
            let done = format!("{name}: revision {revision} is in force until its files change\n");
            confirm(send_command(admin, Method::POST, &path), &done)
        }
        Action::Pause { name, admin } => {
            let done = format!("{name} is paused; `tenantd tenants resume {name}` serves it again\n");
            confirm(send_command(admin, Method::POST, &tenant_path(name, "/pause")), &done)
        }
        Action::Resume { name, admin } => {
            let answer = send_command(admin, Method::POST, &tenant_path(name, "/resume"));
            confirm(answer, &format!("{name} is resumed\n"))
        }
        Action::Accept { name, admin } => {
            let answer = send_command(admin, Method::POST, &tenant_path(name, "/accept"));
            confirm(answer, &format!("{name} is accepted: it has now what its files claim\n"))
        }
        Action::Approve { name, digest, admin } => {
            let query = digest.as_ref().map(|digest| format!("?digest={}", encode_segment(digest)));
            let path = tenant_path(name, &format!("/approve{}", query.unwrap_or_default()));
            let done = format!("{name} is approved: its files are in force\n");
            confirm(send_command(admin, Method::POST, &path), &done)
        }
        Action::Remove { name, admin } => {
            let answer = send_command(admin, Method::DELETE, &tenant_path(name, ""));
            confirm(answer, &format!("{name} is removed, with its files and all its stored data\n"))
        }
        Action::Add { file, alone, replace, admin } => match find_companion(file).filter(|_| !alone) {
            Some(companion) => {
                output::print_error(describe_left_behind(file, &companion));
                Ok(Exit::Findings)
            }
            None => add(file, *replace, admin),
        },
        Action::Reload { admin } => {
            let generation =
                |answer: &Value| format!("all tenants are scanned; generation {}\n", answer["generation"]);
            print_answer(client(admin)?.reload(), generation)
        }
    }
}

fn get(admin: &AdminArgs, path: &str) -> Answer {
    send_command(admin, Method::GET, path)
}

/// Sends a command. If there is no gateway to ask, that counts as a refusal.
fn send_command(admin: &AdminArgs, method: Method, path: &str) -> Answer {
    send(admin, method, path, Bytes::new())
        .unwrap_or_else(|error| Err(Error::Rejected(format!("{error:#}"), Vec::new())))
}

/// Prints a confirmation, with a warning if the change would not survive a restart.
fn confirm(answer: Answer, done: &str) -> anyhow::Result<Exit> {
    print_answer(answer, |answer| {
        let lost = "This would not survive a restart: the state folder cannot be written.\n";
        let lost = if answer["kept"] == false { lost } else { "" };
        format!("{done}{lost}")
    })
}

fn add(file: &Path, replace: bool, admin: &AdminArgs) -> anyhow::Result<Exit> {
    let name =
        file.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8 text")?;
    let bytes = disk::read(file, MAX_UPLOAD_BYTES as u64)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let answer = send(admin, Method::PUT, &file_path(name, replace), bytes.into())?;
    let is_rejected =
        answer.as_ref().is_ok_and(|answer| answer["tenant"]["state"] == TenantState::Rejected.as_str());
    let exit = print_answer(answer, |answer| {
        let tenant = &answer["tenant"];
        let text = |name: &str| printable(tenant[name].as_str().unwrap_or("-"));
        let (name, state, url) = (text("name"), text("state"), text("connector_url"));
        let mut out = format!("{name}: {state}, {url}, {}\n", text("access"));
        out.extend(tenant["findings"].as_array().into_iter().flatten().map(render::finding_of_gateway));
        out
    })?;
    Ok(if is_rejected { Exit::Findings } else { exit })
}

/// Finds another file beside a file that is of the same tenant, or perhaps meant to be. It may say
/// who may call, so a tenant that is added without it could be open.
fn find_companion(file: &Path) -> Option<PathBuf> {
    // Whether the file can be read at all, `add` says.
    let (entries, _stray) = entries::find_entries(file).ok()?;
    let mut files = entries.into_iter().flat_map(|entry| entry.files.into_iter().chain(entry.lookalikes));
    files.find(|other| other.file_name() != file.file_name())
}

fn describe_left_behind(file: &Path, companion: &Path) -> String {
    let (file, companion) = (file.display(), companion.display());
    format!(
        "{companion} belongs to the same tenant as {file}, or has almost its name, and would not be sent; without \
         it the tenant may be open to other callers. Copy it into the tenants folder first, then add {file} with --alone"
    )
}

/// Formats the table of revisions.
fn format_history(revisions: &Value) -> String {
    let row = |revision: &Value| {
        let text = |name: &str| revision[name].as_str().unwrap_or_default().to_owned();
        let in_force = if revision["in_force"] == true { "in force" } else { "" };
        vec![revision["number"].to_string(), text("digest"), text("accepted_at"), in_force.to_owned()]
    };
    let rows: Vec<_> = revisions.as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "No revisions are stored.\n".to_owned(),
        false => output::table(&["REVISION", "DIGEST", "ACCEPTED", ""], &rows),
    }
}

fn format_comparison(comparison: &Value) -> String {
    let newer = match comparison["held"].as_str() {
        Some(digest) => format!("{} (waits for approval)", printable(digest)),
        None => comparison["to"].to_string(),
    };
    let mut out = format!("revision {} -> {newer}\n", comparison["from"]);
    out += &format_tool_changes(comparison);
    let documents = comparison["documents"].as_array().into_iter().flatten();
    for document in documents {
        out += &format!("\n{}\n", printable(document["document"].as_str().unwrap_or_default()));
        for line in document["lines"].as_array().into_iter().flatten() {
            let text = |name: &str| printable(line[name].as_str().unwrap_or_default());
            out += &format!("{} {:>4}  {}\n", text("sign"), line["number"].to_string(), text("text"));
        }
    }
    match comparison["documents"].as_array().is_some_and(|documents| documents.is_empty()) {
        true => out + "The two revisions are equal.\n",
        false => out,
    }
}

/// Formats what differs of what the model reads.
fn format_tool_changes(comparison: &Value) -> String {
    let changes = comparison["tools"].as_array().into_iter().flatten();
    let mut out = String::new();
    for change in changes {
        let text = |name: &str| change[name].as_str().map(printable);
        let tool = text("tool").map(|name| format!("{name}: ")).unwrap_or_default();
        out += &format!("\n{tool}{}\n", text("part").unwrap_or_default());
        for (sign, side) in [("-", text("before")), ("+", text("after"))] {
            out += &side.map(|side| format!("{sign}       {side}\n")).unwrap_or_default();
        }
    }
    match out.is_empty() {
        true => out,
        false => format!("\nWhat the model reads:\n{out}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_a_table() {
        let revisions = serde_json::json!([
            { "number": 2, "digest": "0123456789ab", "accepted_at": "2026-11-25T08:00:00Z", "in_force": true },
            { "number": 1, "digest": "ba9876543210", "accepted_at": "2026-11-24T08:00:00Z", "in_force": false },
        ]);
        insta::assert_snapshot!(format_history(&revisions), @r"
        REVISION  DIGEST        ACCEPTED
        2         0123456789ab  2026-11-25T08:00:00Z  in force
        1         ba9876543210  2026-11-24T08:00:00Z
        ");
    }

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let comparison = serde_json::json!({ "from": 1, "to": 2, "documents": [{ "document": "acme.yaml", "lines": [
            { "sign": "-", "number": 2, "text": "api_key: [hidden]" },
            { "sign": "+", "number": 2, "text": "api_key: [hidden]" },
        ]}]});
        insta::assert_snapshot!(format_comparison(&comparison), @r"
        revision 1 -> 2

        acme.yaml
        -    2  api_key: [hidden]
        +    2  api_key: [hidden]
        ");
    }
}
