//! No files of one folder import each other in a cycle, not even through re-exports. A parent and
//! its child do not count: they are one module in two files.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// The known cycles, by folder. A new one is fixed, not listed.
const LISTED: &[(&str, &[&str])] = &[];

type Path = Vec<String>;
type Edges = BTreeMap<String, BTreeSet<String>>;
/// Paths, each with the name that it is given.
type Named = Vec<(Path, String)>;

/// The graph of modules.
struct Modules {
    known: BTreeSet<Path>,
    /// The re-exports of each module, by the name under which they are exported.
    exports: BTreeMap<Path, Path>,
}

fn path(text: &str) -> Path {
    text.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The paths of a `use` tree, each with the name that it gives.
fn tree(text: &str, prefix: &[String], found: &mut Named) {
    let text = text.trim();
    if let Some((head, rest)) = text.split_once('{') {
        let prefix = [prefix, &path(head)].concat();
        let inner = rest.trim_end().trim_end_matches('}');
        let (mut depth, mut start) = (0, 0);
        for (at, sign) in inner.char_indices().chain([(inner.len(), ',')]) {
            match sign {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    tree(&inner[start..at], &prefix, found);
                    start = (at + 1).min(inner.len());
                }
                _ => {}
            }
        }
        return;
    }
    let (target, name) = text.split_once(" as ").unwrap_or((text, ""));
    let mut target = [prefix, &path(target)].concat();
    if target.len() > 1 && target.last().is_some_and(|last| last == "self") {
        target.pop();
    }
    if let Some(last) = target.last().cloned() {
        let name = if name.trim().is_empty() { last } else { name.trim().to_owned() };
        found.push((target, name));
    }
}

/// The paths that a file names: by `use`, and in its code from `crate`, `super` or `self` on; and those that it exports.
fn named(code: &str) -> (Named, Named) {
    let (mut used, mut exported, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let is_public = line.trim_start().starts_with("pub");
        let Some((_, after)) = line.split_once("use ").filter(|(before, _)| {
            before.trim().is_empty() || (is_public && before.trim_end().ends_with([')', 'b']))
        }) else {
            rest += line;
            rest.push('\n');
            continue;
        };
        let mut statement = after.to_owned();
        while !statement.contains(';') {
            statement += lines.next().expect("a `use` ends");
        }
        let statement = statement.split(';').next().expect("some text");
        tree(statement, &[], &mut used);
        if is_public {
            tree(statement, &[], &mut exported);
        }
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(start) {
            if rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let end = rest[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            let target = path(&rest[at..end.map_or(rest.len(), |end| at + end)]);
            let name = target.last().cloned().unwrap_or_default();
            used.push((target, name));
        }
    }
    (used, exported)
}

impl Modules {
    /// Resolves `target`, as written in `module`, to a path from the crate root. `None` for other
    /// crates.
    fn absolute(&self, module: &Path, target: &[String]) -> Option<Path> {
        let mut base = module.clone();
        let mut rest = target;
        loop {
            match rest.first().map(String::as_str)? {
                "crate" => base.clear(),
                "super" => _ = base.pop(),
                "self" => {}
                _ => break,
            }
            rest = &rest[1..];
        }
        let whole = [base, rest.to_vec()].concat();
        let is_ours = rest.len() < target.len() || self.known.contains(&whole[..module.len() + 1]);
        is_ours.then_some(whole)
    }

    /// Returns the module that a path leads to, following re-exports.
    fn resolve(&self, target: &[String], depth: usize) -> Option<Path> {
        let longest = (1..=target.len()).rev().find(|&length| {
            self.known.contains(&target[..length]) || self.exports.contains_key(&target[..length])
        })?;
        let (head, rest) = target.split_at(longest);
        match self.exports.get(head).filter(|_| !self.known.contains(head)) {
            Some(to) if depth < 8 => self.resolve(&[to, rest].concat(), depth + 1),
            _ => Some(head.to_vec()),
        }
    }
}

/// Returns the files that each file uses.
fn uses(sources: &[Source]) -> BTreeMap<Path, BTreeSet<Path>> {
    let files: Vec<_> = sources.iter().filter(|source| !source.is_test()).collect();
    let named: Vec<_> = files.iter().map(|source| (source.module_path(), named(&source.code()))).collect();
    let known = named.iter().map(|(module, _)| module.clone()).filter(|module| !module.is_empty()).collect();
    let mut modules = Modules { known, exports: BTreeMap::new() };
    for (module, (_, exported)) in &named {
        for (target, name) in exported {
            if let Some(target) = modules.absolute(module, target) {
                let exported = [module.clone(), vec![name.clone()]].concat();
                modules.exports.insert(exported, target);
            }
        }
    }
    named
        .iter()
        .map(|(module, (used, _))| {
            let targets = used.iter().filter_map(|(target, _)| modules.absolute(module, target));
            (module.clone(), targets.filter_map(|target| modules.resolve(&target, 0)).collect())
        })
        .collect()
}

/// Returns the sets of siblings below `parent` that form a cycle.
fn circles(parent: &Path, uses: &BTreeMap<Path, BTreeSet<Path>>) -> BTreeSet<BTreeSet<String>> {
    let depth = parent.len();
    let child =
        |module: &Path| (module.len() > depth && module.starts_with(parent)).then(|| module[depth].clone());
    let mut edges = Edges::new();
    for (module, targets) in uses {
        let Some(from) = child(module) else { continue };
        edges
            .entry(from.clone())
            .or_default()
            .extend(targets.iter().filter_map(child).filter(|to| *to != from));
    }
    let reach = |from: &String| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = waiting.pop() {
            let new = edges.get(&next).into_iter().flatten().filter(|to| seen.insert((*to).clone()));
            waiting.extend(new.cloned().collect::<Vec<_>>());
        }
        seen
    };
    let reached: BTreeMap<_, _> = edges.keys().map(|from| (from.clone(), reach(from))).collect();
    let mutual = |from: &String| {
        let both = |to: &&String| reached.get(*to).is_some_and(|back| back.contains(from));
        reached[from].iter().filter(both).cloned().collect::<BTreeSet<_>>()
    };
    edges.keys().map(mutual).filter(|circle| circle.len() > 1).collect()
}

#[test]
fn files_of_a_folder_do_not_import_each_other() {
    let uses = uses(&super::sources());
    let main = &uses[&path("tenants::reconcile")];
    assert!(main.contains(&path("tenants::watch")), "imports were not understood: {main:?}");
    let parents: BTreeSet<_> = uses
        .keys()
        .filter(|module| !module.is_empty())
        .map(|module| module[..module.len() - 1].to_vec())
        .collect();
    let mut listed = LISTED.to_vec();
    for parent in parents {
        for circle in circles(&parent, &uses) {
            let parent = parent.join("::");
            let names: Vec<_> = circle.iter().map(String::as_str).collect();
            let place = listed.iter().position(|(folder, files)| *folder == parent && **files == *names);
            let place =
                place.unwrap_or_else(|| panic!("below `{parent}` these import each other: {names:?}"));
            listed.remove(place);
        }
    }
    assert!(listed.is_empty(), "these circles are gone, so they need not be listed: {listed:?}");
}
