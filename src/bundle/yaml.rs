//! Reads YAML into a tree with positions, within a budget.
//!
//! Owns: text → [`Node`]. Built on the parser under `serde-saphyr`, because findings need the
//! position of every key and value, the text of a scalar as written (`0123`, `yes`), and all
//! duplicate keys at once; and because that crate's messages quote source lines. Nothing is ever
//! executed, included or interpolated: a tag of another tool (`!secret`) is only recorded, for the
//! validation of the value. Aliases and merge keys work as in PyYAML, within the budget.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle};

/// The largest YAML text that is parsed, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;
const MAX_NODES: usize = 10_000;
/// The limit on text after aliases and merge keys are expanded, in bytes: a reader of the tree may
/// copy each of them.
const MAX_TEXT: usize = 2 * MAX_BYTES;
const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 100;
const MAX_FAULTS: usize = 20;

/// A position in a text, counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and its position. Has no `Debug`, since it may hold secrets. Clones share their
/// contents, so an alias costs no memory.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
    pub(super) manner: Manner,
}

/// Whether the notation of a value is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Usual,
    /// It has a tag that means something to other tools.
    Tagged,
    /// Its line contains something but no value: an anchor, a tag, a comment sign without a space.
    Hollow,
    /// It contains no reference: a dollar sign stands for itself.
    Literal,
}

/// The contents of a node.
#[derive(Clone)]
pub(super) enum Value {
    /// `plain`: written without quotes, so it may be meant as a number, a boolean or null.
    Scalar {
        text: Arc<str>,
        plain: bool,
    },
    List(Arc<Vec<Node>>),
    Map(Arc<Vec<(Key, Node)>>),
}

/// A key of a mapping.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) text: Arc<str>,
}

/// The size of a node with its aliases expanded.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    text: usize,
    depth: usize,
}

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: &'static str,
    pub(super) at: Mark,
}

impl Node {
    pub(super) fn usual(at: Mark, value: Value) -> Self {
        Self { at, value, manner: Manner::Usual }
    }

    /// Whether the value is unset: `~`, `null` or blank text.
    pub(super) fn is_blank(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                text.trim().is_empty() || (*plain && matches!(&**text, "~" | "null" | "Null" | "NULL"))
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// Returns the text of a scalar as written, trimmed.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text.trim()),
            _ => None,
        }
    }

    /// Returns the pairs of a mapping; none for any other node.
    pub(super) fn pairs(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Returns the value of a key, with the key.
    pub(super) fn member(&self, name: &str) -> Option<&(Key, Node)> {
        self.pairs().iter().find(|(key, _)| *key.text == *name)
    }

    /// Describes the kind of the node, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn weight(&self) -> Weight {
        let inside = match &self.value {
            Value::Scalar { text, .. } => return Weight { nodes: 1, text: text.len(), depth: 1 },
            Value::List(items) => items.iter().map(Node::weight).fold(Weight::default(), Weight::beside),
            Value::Map(pairs) => pairs.iter().map(Weight::of_pair).fold(Weight::default(), Weight::beside),
        };
        Weight { nodes: inside.nodes + 1, depth: inside.depth + 1, ..inside }
    }
}

impl Weight {
    /// Returns the weight of a pair; a key counts as a node.
    fn of_pair((key, node): &(Key, Node)) -> Self {
        let weight = node.weight();
        Self { nodes: weight.nodes + 1, text: weight.text + key.text.len(), ..weight }
    }

    fn beside(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            text: self.text + other.text,
            depth: self.depth.max(other.depth),
        }
    }
}

impl Value {
    /// Creates a mapping.
    pub(super) fn map(pairs: Vec<(Key, Node)>) -> Self {
        Self::Map(Arc::new(pairs))
    }
}

/// Parses one document. An empty text is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder { text, ..Builder::default() };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, mark(&span.start)),
            Err(error) => Err(syntax(&error)),
        };
        if let Err(fault) = step {
            builder.faults.push(fault);
            break;
        }
    }
    builder.finish()
}

/// Finds a comment that an older program would end earlier, so that the text after it would be in
/// force.
pub(super) fn hidden_line(text: &str) -> Option<Fault> {
    let hides = |line: &str| {
        let comment = line.find('#').map(|at| &line[at..]);
        comment.is_some_and(|comment| comment.contains(['\u{85}', '\u{2028}', '\u{2029}']))
    };
    let index = text.lines().flat_map(|line| line.split('\r')).position(hides)?;
    Some(Fault {
        code: "yaml-line-end",
        message: "a character in this comment ends a line for some programs, so what follows it may be meant to count".into(),
        help: "remove the character, or write what follows it on a line of its own",
        at: Mark { line: index + 1, column: 1 },
    })
}

fn mark(marker: &granit_parser::Marker) -> Mark {
    Mark { line: marker.line(), column: marker.col() + 1 }
}

fn syntax(error: &granit_parser::ScanError) -> Fault {
    Fault {
        code: "yaml-syntax",
        message: format!("this is not YAML: {}", error.info()),
        help: "look at this line and the one before it for a missing quote, bracket, colon or space",
        at: mark(error.marker()),
    }
}

/// A collection whose end was not read yet.
struct Frame {
    at: Mark,
    manner: Manner,
    anchor: usize,
    content: Content,
}

/// The contents of a collection so far.
enum Content {
    List(Vec<Node>),
    Map {
        pairs: Vec<(Key, Node)>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// The keys and their lines.
        seen: HashMap<Arc<str>, usize>,
    },
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    /// The text's lines, split on first use.
    lines: Vec<&'a str>,
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    spent: Weight,
    aliases: usize,
    faults: Vec<Fault>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, at: Mark) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) => self.document(at),
            Event::Scalar(text, style, anchor, tag) => {
                // The parser returns "~" for an empty value.
                let is_empty = style == ScalarStyle::Plain && matches!(&*text, "" | "~");
                let is_hollow = is_empty && self.says_something(anchor != 0 || tag.is_some());
                let manner = if is_hollow { Manner::Hollow } else { Manner::Usual };
                let manner = if is_foreign(tag.as_deref()) { Manner::Tagged } else { manner };
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let node = Node { at, value: Value::Scalar { text: text.into(), plain }, manner };
                self.count(node.weight(), at)?;
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Content::List(Vec::new()), anchor, is_foreign(tag.as_deref()), at)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map { pairs: Vec::new(), key: None, seen: HashMap::new() };
                self.open(content, anchor, is_foreign(tag.as_deref()), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn document(&mut self, at: Mark) -> Result<(), Fault> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Fault {
                code: "yaml-documents",
                message: "a second document begins here (\"---\")".into(),
                help: "one file is one tenant: remove this line, or move what follows to a file of its own",
                at,
            });
        }
        Ok(())
    }

    /// Adds the weight of a value to what was spent; refuses it if that exceeds the budget.
    fn count(&mut self, weight: Weight, at: Mark) -> Result<(), Fault> {
        self.spent = self.spent.beside(weight);
        let too_much = if self.spent.nodes > MAX_NODES {
            "more than 10,000 values once its aliases are followed"
        } else if self.spent.text > MAX_TEXT {
            "more than 512 KiB of text once its aliases are followed"
        } else if self.frames.len() + weight.depth > MAX_DEPTH + 1 {
            "values nested more than 32 deep"
        } else {
            return Ok(());
        };
        Err(budget(too_much, at))
    }

    /// Whether the line of an empty value contains something: `key: &x`, `key: !x`, `key: #x`. A
    /// comment has a space after its sign.
    fn says_something(&mut self, has_properties: bool) -> bool {
        let Some(Frame { content: Content::Map { key: Some(key), .. }, .. }) = self.frames.last() else {
            return has_properties;
        };
        if self.lines.is_empty() {
            self.lines = self.text.lines().flat_map(|line| line.split('\r')).collect();
        }
        let line = self.lines.get(key.at.line - 1).copied().unwrap_or_default();
        let behind = line.split_once(&*key.text).map_or("", |(_, behind)| behind);
        let behind = behind.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix(':').unwrap_or_default();
        if has_properties {
            return !behind.contains('~');
        }
        let comment = behind.trim_start().strip_prefix('#').unwrap_or_default();
        comment.starts_with(|c: char| !c.is_whitespace() && c != '#')
    }

    fn open(&mut self, content: Content, anchor: usize, is_foreign: bool, at: Mark) -> Result<(), Fault> {
        self.count(Weight { nodes: 1, text: 0, depth: 1 }, at)?;
        if matches!(self.frames.last(), Some(Frame { content: Content::Map { key: None, .. }, .. })) {
            return Err(bad_key(at));
        }
        let manner = if is_foreign { Manner::Tagged } else { Manner::Usual };
        self.frames.push(Frame { at, manner, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { at, manner, anchor, content }) = self.frames.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Value::List(Arc::new(items)),
            Content::Map { pairs, seen, .. } => Value::map(self.merge(pairs, seen)?),
        };
        self.put(Node { at, value, manner }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Fault> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(budget("more than 100 aliases", at));
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(budget("an alias to a value that contains it", at));
        };
        let (weight, node) = (node.weight(), Node { at, ..node.clone() });
        self.count(weight, at)?;
        self.put(node, 0)
    }

    /// Puts a finished node into the open collection, or makes it the root.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { pairs, key, seen } => match (key.take(), node.value) {
                (Some(key), value) => match seen.insert(Arc::clone(&key.text), key.at.line) {
                    None => pairs.push((key, Node { at: node.at, value, manner: node.manner })),
                    Some(line) if self.faults.len() < MAX_FAULTS => self.faults.push(twice(&key, line)),
                    Some(_) => {}
                },
                (None, Value::Scalar { text, .. }) => *key = Some(Key { at: node.at, text }),
                (None, _) => return Err(bad_key(node.at)),
            },
        }
        Ok(())
    }

    /// Resolves `<<: *defaults` and `<<: [*a, *b]`: the mapping's own keys win, then the first
    /// source.
    fn merge(
        &mut self,
        mut pairs: Vec<(Key, Node)>,
        seen: HashMap<Arc<str>, usize>,
    ) -> Result<Vec<(Key, Node)>, Fault> {
        let Some(index) = pairs.iter().position(|(key, _)| &*key.text == "<<") else { return Ok(pairs) };
        let (key, source) = pairs.remove(index);
        let maps = match &source.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&source),
        };
        let mut taken: HashSet<Arc<str>> = seen.into_keys().collect();
        for pair in maps.iter().flat_map(Node::pairs) {
            let (name, node) = pair;
            if taken.insert(Arc::clone(&name.text)) {
                self.count(Weight::of_pair(pair), key.at)?;
                pairs.push((Key { at: key.at, text: Arc::clone(&name.text) }, node.clone()));
            }
        }
        Ok(pairs)
    }

    fn finish(self) -> Result<Node, Vec<Fault>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let at = Mark { line: 1, column: 1 };
        let root = self.root.filter(|root| !root.is_blank());
        Ok(root.unwrap_or_else(|| Node::usual(at, Value::map(Vec::new()))))
    }
}

/// Whether a tag is not one of YAML's own (`!!str`).
fn is_foreign(tag: Option<&granit_parser::Tag>) -> bool {
    const OWN: [&str; 7] = ["bool", "float", "int", "map", "null", "seq", "str"];
    tag.is_some_and(|tag| tag.handle() != "tag:yaml.org,2002:" || !OWN.contains(&tag.suffix()))
}

fn twice(key: &Key, line: usize) -> Fault {
    Fault {
        code: "duplicate-key",
        message: format!("{} is given a second time; line {line} has it already", named(key)),
        help: "keep one of the two lines, so that there is no doubt which one counts",
        at: key.at,
    }
}

fn named(key: &Key) -> String {
    match super::excerpt::is_name(&key.text) {
        true => key.text.to_string(),
        false => "a key".to_owned(),
    }
}

fn bad_key(at: Mark) -> Fault {
    Fault {
        code: "yaml-key",
        message: "a list or mapping stands where a key is expected".into(),
        help: "keys are plain words such as search_url",
        at,
    }
}

fn budget(what: &str, at: Mark) -> Fault {
    Fault {
        code: "yaml-budget",
        message: format!("this YAML has {what}"),
        help: "no tenant's configuration needs that; use the file as it came from the vendor",
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<&'static str> {
        parse(text).err().map(|faults| faults.iter().map(|fault| fault.code).collect()).unwrap_or_default()
    }

    fn valid(text: &str) -> Node {
        parse(text).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn text(root: &Node, name: &str) -> String {
        root.member(name).and_then(|(_, node)| node.text()).expect("a scalar").to_owned()
    }

    #[test]
    fn scalars_keep_their_spelling_and_place() {
        let root = valid("a: 0123\nb: 'x'\n");
        assert_eq!((text(&root, "a"), text(&root, "b")), ("0123".into(), "x".into()));
        let (key, node) = root.member("b").expect("b");
        assert_eq!((key.at, node.at), (Mark { line: 2, column: 1 }, Mark { line: 2, column: 4 }));
    }

    #[test]
    fn all_duplicate_keys_are_named() {
        assert_eq!(codes("a: 1\na: 2\nb: 1\nb: 2\n"), ["duplicate-key", "duplicate-key"]);
    }

    #[test]
    fn merge_keys_fill_in_what_is_missing() {
        let root = valid("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n");
        let (_, y) = root.member("y").expect("y");
        assert_eq!((text(y, "a"), text(y, "b")), ("1".into(), "3".into()));
    }

    #[test]
    fn bombs_are_refused_by_the_budget() {
        let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for i in b'b'..=b'j' {
            let before = char::from(i - 1);
            laughs.push_str(&format!(
                "{0}: &{0} [{1}]\n",
                char::from(i),
                vec![format!("*{before}"); 9].join(",")
            ));
        }
        assert_eq!(codes(&laughs), ["yaml-budget"]);
        assert_eq!(codes(&"[".repeat(20_000)), ["yaml-syntax"]);
        assert_eq!(codes("a: &a [*a]"), ["yaml-budget"]);
        assert_eq!(codes(&format!("{}x", "- ".repeat(200))).len(), 1);
    }

    #[test]
    fn the_text_of_aliases_and_merged_keys_is_counted() {
        let long = "x".repeat(200 << 10);
        assert_eq!(codes(&format!("a: &a '{long}'\nb: *a\n")), [""; 0], "400 KiB");
        assert_eq!(codes(&format!("a: &a '{long}'\nb: [*a, *a]\n")), ["yaml-budget"]);
        assert_eq!(
            codes(&format!("a: &a {{k: '{long}'}}\nb: {{<<: *a}}\n")),
            ["yaml-budget"],
            "twice by merging"
        );
        assert_eq!(
            codes(&format!("a: &a\n  ? '{long}'\n  : 1\nb: [*a, *a]\n")),
            ["yaml-budget"],
            "keys, too"
        );
    }

    #[test]
    fn an_alias_shares_what_it_stands_for() {
        let root = valid("a: &a [x, y]\nb: *a\n");
        let list = |name: &str| match &root.member(name).expect("there").1.value {
            Value::List(items) => Arc::clone(items),
            _ => panic!("no list"),
        };
        assert!(Arc::ptr_eq(&list("a"), &list("b")));
    }

    #[test]
    fn a_line_that_says_something_and_means_nothing_is_told_from_an_empty_one() {
        let manner = |line: &str| valid(&format!("b: 1\n{line}\nc: 2\n")).member("a").expect("a").1.manner;
        for line in ["a: &abc", "a: #abc", "a:   #abc def", "\"a\": #abc", "a: !!str"] {
            assert_eq!(manner(line), Manner::Hollow, "{line}");
        }
        for line in
            ["a: !abc", "a: !secret x", "a: !vault |\n  x", "a: !x [1]", "a: !x {b: 1}", "a: !!binary aGVs"]
        {
            assert_eq!(manner(line), Manner::Tagged, "{line}");
        }
        for line in [
            "a:",
            "a: ~",
            "a: # to be filled in",
            "a: ## x",
            "a: ''",
            "a: x #abc",
            "a: !!str x",
            "a: &x y",
            "a: &x ~",
        ] {
            assert_eq!(manner(line), Manner::Usual, "{line}");
        }
        assert_eq!(valid("x: &x\na: *x\n").member("a").expect("a").1.manner, Manner::Hollow);
    }

    #[test]
    fn one_document_only() {
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["yaml-documents"]);
        assert_eq!(codes(""), [""; 0]);
        assert_eq!(codes("\u{feff}a: 1\r\n"), [""; 0]);
    }
}
