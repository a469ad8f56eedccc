//! YAML as a tree with positions, read under a budget.
//!
//! Owns: text → [`Node`]. Built on the parser that `serde-saphyr` is built on, because findings need the place of every
//! key and value, the text of a scalar as it was written (`0123`, `yes`), and all duplicate keys at once; and because
//! the crate's own messages quote source lines. Tags are ignored, nothing is ever executed, included or interpolated.
//! Aliases and merge keys work as in PyYAML, within the budget.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle};

/// The largest YAML text that is looked at, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 100;
const MAX_FAULTS: usize = 20;

/// A place in a text, counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it begins. Has no `Debug`: it may hold secrets.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum Value {
    /// `plain`: written without quotes, so it may also be meant as a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) text: String,
}

/// Why a text is no YAML that we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: &'static str,
    pub(super) at: Mark,
}

impl Node {
    /// Nothing, as `~`, `null` or blank text: an unset value.
    pub(super) fn is_blank(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                text.trim().is_empty() || (*plain && matches!(text.as_str(), "~" | "null" | "Null" | "NULL"))
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// The text of a scalar as it was written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text.trim()),
            _ => None,
        }
    }

    /// The pairs of a mapping; none for anything else.
    pub(super) fn pairs(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// The value of a key.
    pub(super) fn member(&self, name: &str) -> Option<&(Key, Node)> {
        self.pairs().iter().find(|(key, _)| key.text == name)
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn size_and_depth(&self) -> (usize, usize) {
        let children: Box<dyn Iterator<Item = &Node>> = match &self.value {
            Value::Scalar { .. } => return (1, 1),
            Value::List(items) => Box::new(items.iter()),
            Value::Map(pairs) => Box::new(pairs.iter().map(|(_, node)| node)),
        };
        let (size, depth) = children
            .map(Node::size_and_depth)
            .fold((0, 0), |(size, depth), (s, d)| (size + s + 1, usize::max(depth, d)));
        (size + 1, depth + 1)
    }
}

/// Reads one document. An empty text is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::default();
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

/// A collection under way.
struct Frame {
    at: Mark,
    anchor: usize,
    value: Value,
    key: Option<Key>,
    /// The keys of a mapping and the lines they stand in.
    seen: HashMap<String, usize>,
}

#[derive(Default)]
struct Builder {
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
    aliases: usize,
    faults: Vec<Fault>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Mark) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) => self.document(at),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                self.count(1, 1, at)?;
                self.put(Node { at, value: Value::Scalar { text: text.into_owned(), plain } }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Value::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.open(Value::Map(Vec::new()), anchor, at),
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

    fn count(&mut self, nodes: usize, depth: usize, at: Mark) -> Result<(), Fault> {
        self.nodes += nodes;
        let too_much = if self.nodes > MAX_NODES {
            "more than 10,000 values once its aliases are followed"
        } else if self.frames.len() + depth > MAX_DEPTH + 1 {
            "values nested more than 32 deep"
        } else {
            return Ok(());
        };
        Err(budget(too_much, at))
    }

    fn open(&mut self, value: Value, anchor: usize, at: Mark) -> Result<(), Fault> {
        self.count(1, 1, at)?;
        if matches!(self.frames.last(), Some(Frame { value: Value::Map(_), key: None, .. })) {
            return Err(bad_key(at));
        }
        self.frames.push(Frame { at, anchor, value, key: None, seen: HashMap::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { at, anchor, mut value, .. }) = self.frames.pop() else { return Ok(()) };
        if let Value::Map(pairs) = &mut value {
            self.merge(pairs)?;
        }
        self.put(Node { at, value }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Fault> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(budget("more than 100 aliases", at));
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(budget("an alias to a value that contains it", at));
        };
        let (size, depth) = node.size_and_depth();
        let value = node.value.clone();
        self.count(size, depth, at)?;
        self.put(Node { at, value }, 0)
    }

    /// Puts a finished node where it belongs: into the collection under way, or as the root.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut frame.value, frame.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(pairs), Some(key)) => match frame.seen.insert(key.text.clone(), key.at.line) {
                None => pairs.push((key, node)),
                Some(line) if self.faults.len() < MAX_FAULTS => self.faults.push(twice(&key, line)),
                Some(_) => {}
            },
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => frame.key = Some(Key { at: node.at, text }),
                _ => return Err(bad_key(node.at)),
            },
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }

    /// `<<: *defaults` and `<<: [*a, *b]`: what the mapping says itself wins, then the first.
    fn merge(&mut self, pairs: &mut Vec<(Key, Node)>) -> Result<(), Fault> {
        let Some(index) = pairs.iter().position(|(key, _)| key.text == "<<") else { return Ok(()) };
        let (key, source) = pairs.remove(index);
        let maps = match source.value {
            Value::List(items) => items,
            _ => vec![source],
        };
        for (name, node) in maps.iter().flat_map(Node::pairs) {
            if !pairs.iter().any(|(key, _)| key.text == name.text) {
                self.count(node.size_and_depth().0, 1, key.at)?;
                pairs.push((Key { at: key.at, text: name.text.clone() }, node.clone()));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Node, Vec<Fault>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let at = Mark { line: 1, column: 1 };
        let root = self.root.filter(|root| !root.is_blank());
        Ok(root.unwrap_or(Node { at, value: Value::Map(Vec::new()) }))
    }
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
        true => key.text.clone(),
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
    fn one_document_only() {
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["yaml-documents"]);
        assert_eq!(codes(""), [""; 0]);
        assert_eq!(codes("\u{feff}a: 1\r\n"), [""; 0]);
    }
}
