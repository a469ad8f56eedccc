//! `tenantd nodes`: shows the gateways of a cluster, and the tenants on which they disagree.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::admin_request::{print_answer, send};
use super::args::NodesArgs;
use super::{Exit, output};
use crate::telemetry::printable::printable;
use crate::tenants::cluster_view::{Disagreement, NodeStatus};

/// What `/api/nodes` answers.
#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<NodeStatus>,
    disagreements: Vec<Disagreement>,
}

pub(super) fn run(args: &NodesArgs) -> anyhow::Result<Exit> {
    let answer = send(&args.query.admin, Method::GET, "/api/nodes", Bytes::new())?;
    print_answer(answer, |nodes| output::rendered(args.query.format, nodes, show))
}

fn show(answer: &Value) -> String {
    let Ok(Nodes { nodes, disagreements }) = Nodes::deserialize(answer) else {
        return "The gateway's answer cannot be read; is it of another version?\n".to_owned();
    };
    if nodes.is_empty() {
        return "This gateway shares its store with no other: it is a file (see --store).\n".to_owned();
    }
    let row = |node: &NodeStatus| {
        let this = if node.is_this { " (this one)" } else { "" };
        let entries = node.entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
        let seen = format!("{} s ago", node.seen_seconds_ago);
        let state = node.state.as_str().to_owned();
        vec![format!("{}{this}", printable(&node.name)), state, node.version.clone(), seen, entries]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let nodes = output::table(&["NODE", "STATE", "VERSION", "SEEN", "ENTRIES"], &rows);
    if disagreements.is_empty() {
        return nodes;
    }
    let row = |disagreement: &Disagreement| {
        let since = disagreement.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        vec![
            printable(&disagreement.tenant).into_owned(),
            since,
            printable(&disagreement.summary).into_owned(),
        ]
    };
    let rows: Vec<_> = disagreements.iter().map(row).collect();
    format!("{nodes}\n{}", output::table(&["TENANT", "DIFFERS SINCE", "WHAT IS WHERE"], &rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_a_table_and_so_is_what_they_disagree_on() {
        let north = json!({"name": "north", "version": "1.2.0", "state": "live", "seen_seconds_ago": 2,
                           "entries": 7, "is_this": true});
        let south = json!({"name": "south", "version": "1.2.0", "state": "silent", "seen_seconds_ago": 40});
        let differs = json!({"tenant": "acme", "entry": "Acme", "since": "2026-11-27T08:00:00.5Z",
                             "summary": "missing on south; revision 0123456789ab on north"});
        let shown = show(&json!({"nodes": [north, south], "disagreements": [differs]}));
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["north", "(this", "one)", "live", "1.2.0", "2", "s", "ago", "7"], "{shown}");
        assert_eq!(lines[2], ["south", "silent", "1.2.0", "40", "s", "ago", "-"], "{shown}");
        assert_eq!(lines[5][..3], ["acme", "2026-11-27T08:00:00Z", "missing"], "{shown}");
        assert!(!show(&json!({"nodes": [], "disagreements": []})).contains("NODE"));
    }
}
