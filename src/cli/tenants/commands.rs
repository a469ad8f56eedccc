//! The commands that change a tenant, and the queries about its history.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::super::admin_client::{AdminClient, Error};
use super::super::args::{AdminArgs, TenantsAction};
use super::super::healthcheck::client;
use super::super::{Exit, output};
use super::finding;
use crate::base::file as disk;
use crate::telemetry::printable::printable;

/// The largest file to send; the gateway accepts no larger one.
const LARGEST_FILE: u64 = 33 << 20;

/// Runs the command.
pub(super) fn run(question: &TenantsAction) -> anyhow::Result<Exit> {
    use TenantsAction as Ask;
    match question {
        Ask::List { .. } | Ask::Show { .. } => unreachable!("they are questions about the present"),
        Ask::History { name, question } => {
            let revisions = get(&question.admin, &AdminClient::path_of(name, "/history"));
            print_answer(revisions, |revisions| output::rendered(question.format, revisions, history))
        }
        Ask::Diff { name, from, to, admin } => {
            let number = |name: &str, number: &Option<u64>| number.map(|number| format!("{name}={number}"));
            let query: Vec<_> = [number("from", from), number("to", to)].into_iter().flatten().collect();
            print_answer(
                get(admin, &AdminClient::path_of(name, &format!("/diff?{}", query.join("&")))),
                difference,
            )
        }
        Ask::Rollback { name, revision, admin } => {
            let path = AdminClient::path_of(name, &format!("/rollback?revision={revision}"));
            let said = format!("{name}: revision {revision} is in force until its files change\n");
            done(order(admin, Method::POST, &path), &said)
        }
        Ask::Pause { name, admin } => {
            let said = format!("{name} is paused; `tenantd tenants resume {name}` lets it go on\n");
            done(order(admin, Method::POST, &AdminClient::path_of(name, "/pause")), &said)
        }
        Ask::Resume { name, admin } => {
            let outcome = order(admin, Method::POST, &AdminClient::path_of(name, "/resume"));
            done(outcome, &format!("{name} goes on\n"))
        }
        Ask::Accept { name, admin } => {
            let outcome = order(admin, Method::POST, &AdminClient::path_of(name, "/accept"));
            done(outcome, &format!("{name} is accepted: what its files claim is its own now\n"))
        }
        Ask::Remove { name, admin } => {
            let outcome = order(admin, Method::DELETE, &AdminClient::path_of(name, ""));
            done(outcome, &format!("{name} is removed, with its files and all that was kept of it\n"))
        }
        Ask::Add { file, replace, admin } => add(file, *replace, admin),
        Ask::Reload { admin } => {
            let generation =
                |answer: &Value| format!("looked at all tenants; generation {}\n", answer["generation"]);
            print_answer(client(admin)?.reload(), generation)
        }
    }
}

type AdminAnswer = Result<Value, Error>;

fn get(admin: &AdminArgs, path: &str) -> AdminAnswer {
    order(admin, Method::GET, path)
}

fn order(admin: &AdminArgs, method: Method, path: &str) -> AdminAnswer {
    let client = client(admin).map_err(|error| Error::Rejected(format!("{error:#}"), Vec::new()))?;
    client.order(method, path, Bytes::new())
}

/// Prints a response, or the gateway's refusal with its findings.
fn print_answer(answer: AdminAnswer, text: impl FnOnce(&Value) -> String) -> anyhow::Result<Exit> {
    match answer {
        Ok(answer) => {
            output::print(&text(&answer))?;
            Ok(Exit::Fine)
        }
        Err(Error::Rejected(detail, findings)) => {
            output::print_error(detail);
            findings.iter().for_each(|it| output::print_error_lines(&finding(it)));
            Ok(Exit::Findings)
        }
        Err(error @ Error::NotFound(_)) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints a confirmation, with a warning if the change would not survive a restart.
fn done(answer: AdminAnswer, said: &str) -> anyhow::Result<Exit> {
    print_answer(answer, |answer| {
        let lost = "This would not survive a restart: the state folder cannot be written.\n";
        let lost = if answer["kept"] == false { lost } else { "" };
        format!("{said}{lost}")
    })
}

fn add(file: &Path, replace: bool, admin: &AdminArgs) -> anyhow::Result<Exit> {
    let name =
        file.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8 text")?;
    let bytes =
        disk::read(file, LARGEST_FILE).with_context(|| format!("{} cannot be read", file.display()))?;
    let answer = client(admin)?.order(Method::PUT, &AdminClient::path_of_file(name, replace), bytes.into());
    print_answer(answer, |answer| {
        let tenant = &answer["tenant"];
        let text = |name: &str| printable(tenant[name].as_str().unwrap_or("-"));
        let mut out = format!("{}: {}, {}\n", text("name"), text("state"), text("connector_url"));
        out.extend(tenant["findings"].as_array().into_iter().flatten().map(finding));
        out
    })
}

/// Formats the table of revisions.
fn history(revisions: &Value) -> String {
    let row = |revision: &Value| {
        let text = |name: &str| revision[name].as_str().unwrap_or_default().to_owned();
        let in_force = if revision["in_force"] == true { "in force" } else { "" };
        vec![revision["number"].to_string(), text("digest"), text("accepted_at"), in_force.to_owned()]
    };
    let rows: Vec<_> = revisions.as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "No revision is kept.\n".to_owned(),
        false => output::table(&["REVISION", "DIGEST", "ACCEPTED", ""], &rows),
    }
}

fn difference(comparison: &Value) -> String {
    let mut out = format!("revision {} -> {}\n", comparison["from"], comparison["to"]);
    let documents = comparison["documents"].as_array().into_iter().flatten();
    for document in documents {
        out += &format!("\n{}\n", printable(document["document"].as_str().unwrap_or_default()));
        for line in document["lines"].as_array().into_iter().flatten() {
            let text = |name: &str| printable(line[name].as_str().unwrap_or_default());
            out += &format!("{} {:>4}  {}\n", text("sign"), line["number"].to_string(), text("text"));
        }
    }
    match comparison["documents"].as_array().is_some_and(|documents| documents.is_empty()) {
        true => out + "They say the same.\n",
        false => out,
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
        insta::assert_snapshot!(history(&revisions), @r"
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
        insta::assert_snapshot!(difference(&comparison), @r"
        revision 1 -> 2

        acme.yaml
        -    2  api_key: [hidden]
        +    2  api_key: [hidden]
        ");
    }
}
