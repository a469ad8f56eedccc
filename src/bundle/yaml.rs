//! Reads YAML into a [`ConfigNode`], within a budget.
//!
//! Built on the parser under `serde-saphyr`, because findings need the
//! position of every key and value, the text of a scalar as written (`0123`, `yes`), and all
//! duplicate keys at once; and because that crate's messages quote source lines. Nothing is ever
//! executed, included or interpolated: a tag of another tool (`!secret`) is only recorded, for the
//! validation of the value. Aliases and merge keys work as in PyYAML, within the budget.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle};

use super::fields::is_field_name;
use super::tree::{ConfigKey, ConfigNode, ConfigValue, MAX_BYTES, Position, SyntaxError, ValueStyle};

/// What a text may cost.
#[derive(Clone, Copy)]
struct YamlLimits {
    documents: usize,
    nodes: usize,
    /// The limit on text after aliases and merge keys are expanded, in bytes: a reader of the tree
    /// may copy each of them.
    text: usize,
}

/// The limits of a tenant's configuration.
const TENANT_LIMITS: YamlLimits = YamlLimits { documents: 1, nodes: 10_000, text: 2 * MAX_BYTES };
/// The limits of other programs' files. A Kubernetes Secret of 1 MiB is longer in base64, and one
/// file may have several.
const FOREIGN_LIMITS: YamlLimits = YamlLimits { documents: 1_000, nodes: 200_000, text: 32 << 20 };

const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 100;
const MAX_ERRORS: usize = 20;

/// The size of a node with its aliases expanded.
#[derive(Clone, Copy, Default)]
struct NodeCost {
    nodes: usize,
    text: usize,
    depth: usize,
}

impl NodeCost {
    fn of(node: &ConfigNode) -> Self {
        let inside = match &node.value {
            ConfigValue::Scalar { text, .. } => return Self { nodes: 1, text: text.len(), depth: 1 },
            ConfigValue::List(items) => items.iter().map(Self::of).fold(Self::default(), Self::beside),
            ConfigValue::Map(pairs) => pairs.iter().map(Self::of_pair).fold(Self::default(), Self::beside),
        };
        Self { nodes: inside.nodes + 1, depth: inside.depth + 1, ..inside }
    }

    /// Returns the cost of a pair; a key counts as a node.
    fn of_pair((key, node): &(ConfigKey, ConfigNode)) -> Self {
        let cost = Self::of(node);
        Self { nodes: cost.nodes + 1, text: cost.text + key.text.len(), ..cost }
    }

    fn beside(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            text: self.text + other.text,
            depth: self.depth.max(other.depth),
        }
    }
}

/// Parses one document. An empty text is an empty mapping.
pub(super) fn parse(text: &str) -> Result<ConfigNode, Vec<SyntaxError>> {
    let root = parse_within(text, TENANT_LIMITS)?.into_iter().next().filter(|root| !root.is_blank());
    let at = Position { line: 1, column: 1 };
    Ok(root.unwrap_or_else(|| ConfigNode::usual(at, ConfigValue::map(Vec::new()))))
}

/// Parses all documents of a file that is not a tenant's configuration. Empty ones are left out.
pub(super) fn parse_documents(text: &str) -> Result<Vec<ConfigNode>, Vec<SyntaxError>> {
    let roots = parse_within(text, FOREIGN_LIMITS)?;
    Ok(roots.into_iter().filter(|root| !root.is_blank()).collect())
}

fn parse_within(text: &str, limits: YamlLimits) -> Result<Vec<ConfigNode>, Vec<SyntaxError>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = TreeBuilder { text, limits, ..TreeBuilder::default() };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.handle(event, position(&span.start)),
            Err(error) => Err(syntax_error(text, &error)),
        };
        if let Err(error) = step {
            builder.errors.push(error);
            break;
        }
    }
    builder.finish()
}

/// Finds a comment that an older program would end earlier, so that the text after it would be in
/// force.
pub(super) fn find_hidden_line(text: &str) -> Option<SyntaxError> {
    let hides = |line: &str| {
        let comment = line.find('#').map(|at| &line[at..]);
        comment.is_some_and(|comment| comment.contains(['\u{85}', '\u{2028}', '\u{2029}']))
    };
    let index = text.lines().flat_map(|line| line.split('\r')).position(hides)?;
    Some(SyntaxError {
        code: "yaml-line-end",
        message: "some programs read a character in this comment as the end of the line, so the text after \
                  it may be intended to count"
            .into(),
        help: "remove the character, or write the text after it on a new line",
        at: Position { line: index + 1, column: 1 },
    })
}

fn position(marker: &granit_parser::Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn syntax_error(text: &str, error: &granit_parser::ScanError) -> SyntaxError {
    let at = position(error.marker());
    let mut near = text.lines().skip(at.line.saturating_sub(2)).take(2);
    SyntaxError {
        code: "yaml-syntax",
        message: format!("this is not YAML: {}", error.info()),
        help: match near.any(lacks_space_after_colon) {
            true => "write a space after the colon that follows the name, in this line or the one before it",
            false => "check this line and the one before it for a missing quote, bracket, colon or space",
        },
        at,
    }
}

/// Whether a line is `name:value`, which is one word to YAML.
fn lacks_space_after_colon(line: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let pair = line.trim_start().split_once(':');
    pair.is_some_and(|(name, value)| {
        is_name(name) && !value.starts_with([' ', '\t', '/']) && !value.is_empty()
    })
}

impl Default for YamlLimits {
    fn default() -> Self {
        TENANT_LIMITS
    }
}

/// A collection whose end was not read yet.
struct CollectionFrame {
    at: Position,
    style: ValueStyle,
    anchor: usize,
    content: FrameContent,
}

/// The contents of a collection so far.
enum FrameContent {
    List(Vec<ConfigNode>),
    Map {
        pairs: Vec<(ConfigKey, ConfigNode)>,
        /// The key whose value comes next.
        key: Option<ConfigKey>,
        /// The keys and their lines.
        seen: HashMap<Arc<str>, usize>,
    },
}

#[derive(Default)]
struct TreeBuilder<'a> {
    text: &'a str,
    /// The text's lines, split on first use.
    lines: Vec<&'a str>,
    frames: Vec<CollectionFrame>,
    roots: Vec<ConfigNode>,
    limits: YamlLimits,
    anchors: HashMap<usize, ConfigNode>,
    documents: usize,
    total_cost: NodeCost,
    aliases: usize,
    errors: Vec<SyntaxError>,
}

impl TreeBuilder<'_> {
    fn handle(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(..) => self.start_document(at),
            Event::Scalar(text, scalar_style, anchor, tag) => {
                let is_unquoted = scalar_style == ScalarStyle::Plain;
                // The parser returns "~" for an empty value.
                let is_empty = is_unquoted && matches!(&*text, "" | "~");
                let is_valueless = is_empty && self.has_text_instead_of_value(anchor != 0 || tag.is_some());
                let style = if is_valueless { ValueStyle::Valueless } else { ValueStyle::Normal };
                let style = if is_foreign(tag.as_deref()) { ValueStyle::Tagged } else { style };
                let plain = is_unquoted && tag.is_none();
                let node = ConfigNode { at, value: ConfigValue::Scalar { text: text.into(), plain }, style };
                self.count(NodeCost::of(&node), at)?;
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(FrameContent::List(Vec::new()), anchor, is_foreign(tag.as_deref()), at)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = FrameContent::Map { pairs: Vec::new(), key: None, seen: HashMap::new() };
                self.open(content, anchor, is_foreign(tag.as_deref()), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn start_document(&mut self, at: Position) -> Result<(), SyntaxError> {
        self.documents += 1;
        if self.documents > self.limits.documents {
            return Err(SyntaxError {
                code: "yaml-documents",
                message: "a second document begins here (\"---\")".into(),
                help: "one file is one tenant: remove this line, or move the rest into another file",
                at,
            });
        }
        Ok(())
    }

    /// Adds the cost of a value to what was spent; refuses it if that exceeds the budget.
    fn count(&mut self, cost: NodeCost, at: Position) -> Result<(), SyntaxError> {
        self.total_cost = self.total_cost.beside(cost);
        let too_much = if self.total_cost.nodes > self.limits.nodes {
            &format!("more than {} values after its aliases are resolved", self.limits.nodes)
        } else if self.total_cost.text > self.limits.text {
            &format!("more than {} KiB of text after its aliases are resolved", self.limits.text >> 10)
        } else if self.frames.len() + cost.depth > MAX_DEPTH + 1 {
            "values nested more than 32 levels deep"
        } else {
            return Ok(());
        };
        Err(budget_error(too_much, at))
    }

    /// Whether the line of an empty value contains something: `key: &x`, `key: !x`, `key: #x`. A
    /// comment has a space after its sign.
    fn has_text_instead_of_value(&mut self, has_properties: bool) -> bool {
        let Some(CollectionFrame { content: FrameContent::Map { key: Some(key), .. }, .. }) =
            self.frames.last()
        else {
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

    fn open(
        &mut self,
        content: FrameContent,
        anchor: usize,
        is_foreign: bool,
        at: Position,
    ) -> Result<(), SyntaxError> {
        self.count(NodeCost { nodes: 1, text: 0, depth: 1 }, at)?;
        if matches!(
            self.frames.last(),
            Some(CollectionFrame { content: FrameContent::Map { key: None, .. }, .. })
        ) {
            return Err(bad_key_error(at));
        }
        let style = if is_foreign { ValueStyle::Tagged } else { ValueStyle::Normal };
        self.frames.push(CollectionFrame { at, style, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(CollectionFrame { at, style, anchor, content }) = self.frames.pop() else {
            return Ok(());
        };
        let value = match content {
            FrameContent::List(items) => ConfigValue::List(Arc::new(items)),
            FrameContent::Map { pairs, seen, .. } => ConfigValue::map(self.merge(pairs, seen)?),
        };
        self.put(ConfigNode { at, value, style }, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), SyntaxError> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(budget_error("more than 100 aliases", at));
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(budget_error("an alias to a value that contains it", at));
        };
        let (cost, node) = (NodeCost::of(node), ConfigNode { at, ..node.clone() });
        self.count(cost, at)?;
        self.put(node, 0)
    }

    /// Puts a finished node into the open collection, or makes it the root.
    fn put(&mut self, node: ConfigNode, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        match &mut frame.content {
            FrameContent::List(items) => items.push(node),
            FrameContent::Map { pairs, key, seen } => match (key.take(), node.value) {
                (Some(key), value) => match seen.insert(Arc::clone(&key.text), key.at.line) {
                    None => pairs.push((key, ConfigNode { at: node.at, value, style: node.style })),
                    Some(line) if self.errors.len() < MAX_ERRORS => {
                        self.errors.push(duplicate_key_error(&key, line))
                    }
                    Some(_) => {}
                },
                (None, ConfigValue::Scalar { text, .. }) => *key = Some(ConfigKey { at: node.at, text }),
                (None, _) => return Err(bad_key_error(node.at)),
            },
        }
        Ok(())
    }

    /// Resolves `<<: *defaults` and `<<: [*a, *b]`: the mapping's own keys win, then the first
    /// source.
    fn merge(
        &mut self,
        mut pairs: Vec<(ConfigKey, ConfigNode)>,
        seen: HashMap<Arc<str>, usize>,
    ) -> Result<Vec<(ConfigKey, ConfigNode)>, SyntaxError> {
        let Some(index) = pairs.iter().position(|(key, _)| &*key.text == "<<") else { return Ok(pairs) };
        let (key, source) = pairs.remove(index);
        let maps = match &source.value {
            ConfigValue::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&source),
        };
        let mut taken: HashSet<Arc<str>> = seen.into_keys().collect();
        for pair in maps.iter().flat_map(ConfigNode::pairs) {
            let (name, node) = pair;
            if taken.insert(Arc::clone(&name.text)) {
                self.count(NodeCost::of_pair(pair), key.at)?;
                pairs.push((ConfigKey { at: key.at, text: Arc::clone(&name.text) }, node.clone()));
            }
        }
        Ok(pairs)
    }

    fn finish(self) -> Result<Vec<ConfigNode>, Vec<SyntaxError>> {
        if self.errors.is_empty() { Ok(self.roots) } else { Err(self.errors) }
    }
}

/// Whether a tag is not one of YAML's own (`!!str`).
fn is_foreign(tag: Option<&granit_parser::Tag>) -> bool {
    const OWN: [&str; 7] = ["bool", "float", "int", "map", "null", "seq", "str"];
    tag.is_some_and(|tag| tag.handle() != "tag:yaml.org,2002:" || !OWN.contains(&tag.suffix()))
}

fn duplicate_key_error(key: &ConfigKey, line: usize) -> SyntaxError {
    SyntaxError {
        code: "duplicate-key",
        message: format!("{} is given a second time; line {line} has it already", displayable_name(key)),
        help: "keep one of the two lines, so that there is no doubt which one counts",
        at: key.at,
    }
}

fn displayable_name(key: &ConfigKey) -> String {
    match is_field_name(&key.text) {
        true => key.text.to_string(),
        false => "a key".to_owned(),
    }
}

fn bad_key_error(at: Position) -> SyntaxError {
    SyntaxError {
        code: "yaml-key",
        message: "a list or mapping stands where a key is expected".into(),
        help: "keys are plain words such as search_url",
        at,
    }
}

fn budget_error(what: &str, at: Position) -> SyntaxError {
    SyntaxError {
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

    fn valid(text: &str) -> ConfigNode {
        parse(text).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn text(root: &ConfigNode, name: &str) -> String {
        root.member(name).and_then(|(_, node)| node.text()).expect("a scalar").to_owned()
    }

    #[test]
    fn scalars_keep_their_spelling_and_place() {
        let root = valid("a: 0123\nb: 'x'\n");
        assert_eq!((text(&root, "a"), text(&root, "b")), ("0123".into(), "x".into()));
        let (key, node) = root.member("b").expect("b");
        assert_eq!((key.at, node.at), (Position { line: 2, column: 1 }, Position { line: 2, column: 4 }));
    }

    #[test]
    fn a_missing_space_after_a_colon_is_named() {
        let help = |text: &str| parse(text).err().expect("no YAML")[0].help;
        let typo = "search_url:https://portal.example.com/nlp-search\ncontext_url: x\n";
        assert!(help(typo).contains("a space after the colon"), "{}", help(typo));
        assert!(!help("a: 'x\nb: y\n").contains("a space after the colon"));
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
            ConfigValue::List(items) => Arc::clone(items),
            _ => panic!("no list"),
        };
        assert!(Arc::ptr_eq(&list("a"), &list("b")));
    }

    #[test]
    fn a_line_that_says_something_and_means_nothing_is_told_from_an_empty_one() {
        let style = |line: &str| valid(&format!("b: 1\n{line}\nc: 2\n")).member("a").expect("a").1.style;
        for line in ["a: &abc", "a: #abc", "a:   #abc def", "\"a\": #abc", "a: !!str"] {
            assert_eq!(style(line), ValueStyle::Valueless, "{line}");
        }
        for line in
            ["a: !abc", "a: !secret x", "a: !vault |\n  x", "a: !x [1]", "a: !x {b: 1}", "a: !!binary aGVs"]
        {
            assert_eq!(style(line), ValueStyle::Tagged, "{line}");
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
            assert_eq!(style(line), ValueStyle::Normal, "{line}");
        }
        assert_eq!(valid("x: &x\na: *x\n").member("a").expect("a").1.style, ValueStyle::Valueless);
    }

    #[test]
    fn files_of_other_programs_may_have_several_documents() {
        let roots = parse_documents("---\na: 1\n---\n# nothing\n---\nb: 2\n").expect("readable");
        let lines: Vec<_> = roots.iter().map(|root| root.pairs()[0].0.at.line).collect();
        assert_eq!(lines, [2, 6]);
        assert!(parse_documents("a: 1\n---\nb: [\n").is_err());
    }

    #[test]
    fn one_document_only() {
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["yaml-documents"]);
        assert_eq!(codes(""), [""; 0]);
        assert_eq!(codes("\u{feff}a: 1\r\n"), [""; 0]);
    }
}
