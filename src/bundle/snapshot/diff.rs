//! The differences between two snapshots, line by line. Lines are compared as they are but shown
//! with their secrets hidden, so that a replaced key is seen to differ and cannot be read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Snapshot, SourceRecord};
use crate::bundle::excerpt;

/// The limit on compared pairs of lines; beyond it all lines are shown as removed and added.
const MAX_CELLS: usize = 4_000_000;
const CHANGED_SECRET: &str = "[hidden: it differs]";

/// The differences in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentDiff {
    /// The document's path or description, for instance `the variable TENANT_KEY`.
    pub document: String,
    /// The lines that differ, by their numbers.
    pub lines: Vec<DiffLine>,
}

/// A line that only one side has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// `-` for the older side, `+` for the newer.
    pub sign: char,
    /// The line number, from 1.
    pub number: usize,
    /// The line with its secrets hidden.
    pub text: String,
}

impl Snapshot {
    /// Returns the differences from this snapshot to a newer one; equal documents are omitted.
    pub fn diff(&self, newer: &Self) -> Vec<DocumentDiff> {
        let (before, after) = (self.documents(), newer.documents());
        let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let text = |of: &BTreeMap<String, (&str, bool)>, name: &String| {
            of.get(name).map(|(text, is_secret)| ((*text).to_owned(), *is_secret))
        };
        let differing = names.into_iter().filter_map(|name| {
            let (older, newer) = (text(&before, name), text(&after, name));
            let is_secret = older.as_ref().or(newer.as_ref()).is_some_and(|(_, is_secret)| *is_secret);
            let of = |side: Option<(String, bool)>| side.map(|(text, _)| text).unwrap_or_default();
            let lines = diff_lines(&of(older), &of(newer), is_secret);
            (!lines.is_empty()).then(|| DocumentDiff { document: name.clone(), lines })
        });
        differing.collect()
    }

    /// Returns each document by name, and whether all of it is a secret.
    fn documents(&self) -> BTreeMap<String, (&str, bool)> {
        let mut documents = BTreeMap::new();
        for piece in &self.pieces {
            let (name, text, is_secret) = match piece {
                SourceRecord::Text { file, text } => (file.clone(), text, false),
                SourceRecord::Config { file, entry, text, .. } => (format!("{file}!{entry}"), text, false),
                SourceRecord::Secret { path, text, .. } => (format!("the secret in {path}"), text, true),
                SourceRecord::Variable { name, value } => (format!("the variable {name}"), value, true),
                SourceRecord::Given(given) => (given.place.clone(), &given.text, true),
            };
            documents.insert(name, (text.as_str(), is_secret));
        }
        documents
    }
}

fn diff_lines(older: &str, newer: &str, is_secret: bool) -> Vec<DiffLine> {
    let (before, after): (Vec<&str>, Vec<&str>) = (older.lines().collect(), newer.lines().collect());
    let shown = |sign, number: usize, text: &str| {
        let text = match is_secret {
            true => CHANGED_SECRET.to_owned(),
            false => excerpt::line_excerpt(text, 1).unwrap_or_default(),
        };
        DiffLine { sign, number: number + 1, text }
    };
    let (gone, new) = unmatched_lines(&before, &after);
    let gone = gone.into_iter().map(|number| shown('-', number, before[number]));
    let mut lines: Vec<_> =
        gone.chain(new.into_iter().map(|number| shown('+', number, after[number]))).collect();
    lines.sort_by_key(|line| line.number);
    lines
}

/// Returns the lines of each side that are not in a longest common subsequence.
fn unmatched_lines(before: &[&str], after: &[&str]) -> (Vec<usize>, Vec<usize>) {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (b, a) = (&before[head..], &after[head..]);
    let tail = b.iter().rev().zip(a.iter().rev()).take_while(|(x, y)| x == y).count();
    let (b, a) = (&b[..b.len() - tail], &a[..a.len() - tail]);
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    if b.len().saturating_mul(a.len()) > MAX_CELLS {
        return ((head..head + b.len()).collect(), (head..head + a.len()).collect());
    }
    // `common[i * width + j]` is the length of the longest common subsequence of `b[i..]` and
    // `a[j..]`.
    let width = a.len() + 1;
    let mut common = vec![0u32; (b.len() + 1) * width];
    for i in (0..b.len()).rev() {
        for j in (0..a.len()).rev() {
            common[i * width + j] = match b[i] == a[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < b.len() || j < a.len() {
        if i < b.len() && j < a.len() && b[i] == a[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == a.len() || (i < b.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            gone.push(head + i);
            i += 1;
        } else {
            new.push(head + j);
            j += 1;
        }
    }
    (gone, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        let piece = SourceRecord::Text { file: "acme.yaml".into(), text: text.into() };
        Snapshot {
            stem: "acme".into(),
            is_folder: false,
            files: vec!["acme.yaml".into()],
            pieces: vec![piece],
        }
    }

    #[test]
    fn a_replaced_key_differs_and_is_not_read() {
        let (older, newer) =
            ("name: a\napi_key: old-secret\nport: 1\n", "name: a\napi_key: new-secret\nport: 1\n");
        let found = snapshot(older).diff(&snapshot(newer));
        let lines: Vec<_> =
            found[0].lines.iter().map(|it| format!("{}{} {}", it.sign, it.number, it.text)).collect();
        assert_eq!(lines, ["-2 api_key: [hidden]", "+2 api_key: [hidden]"]);
        assert!(snapshot(older).diff(&snapshot(older)).is_empty());
    }

    #[test]
    fn lines_that_moved_together_are_aligned() {
        let (gone, new) = unmatched_lines(&["a", "b", "c", "d"], &["x", "a", "c", "d", "e"]);
        assert_eq!((gone, new), (vec![1], vec![0, 4]));
    }

    #[test]
    fn a_secret_in_a_file_of_its_own_is_only_said_to_differ() {
        let with = |text: &str| {
            let mut snapshot = snapshot("a: 1");
            let (beside, path) = ("acme.yaml".into(), "the.key".into());
            snapshot.pieces.push(SourceRecord::Secret { beside, path, text: text.into() });
            snapshot
        };
        let found = with("one-secret").diff(&with("two-secret"));
        assert_eq!(found[0].document, "the secret in the.key");
        assert!(!format!("{found:?}").contains("-secret"), "{found:?}");
    }
}
