//! The lines of one `server` of NGINX, to which the lines that the doctor prints are applied as a
//! person would do it.

use std::fmt::{self, Write};

/// Directives, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NginxLines(Vec<Directive>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Directive {
    /// Name and arguments, each followed by one space.
    words: String,
    block: Option<NginxLines>,
}

impl NginxLines {
    pub(super) fn parse(text: &str) -> Self {
        let mut rest = text;
        let lines = Self::parse_until_end(&mut rest);
        assert!(rest.is_empty(), "a brace too many: {text}");
        lines
    }

    fn parse_until_end(rest: &mut &str) -> Self {
        let mut directives = Vec::new();
        let mut words = String::new();
        while let Some(c) = rest.chars().next() {
            let token = match c {
                '\'' | '"' => &rest[..rest[1..].find(c).expect("a closing quote") + 2],
                // A variable's braces are not used here.
                _ => &rest[..c.len_utf8()],
            };
            *rest = &rest[token.len()..];
            match token {
                ";" => directives.push(Directive { words: normalize(&words), block: None }),
                "{" => {
                    let block = Some(Self::parse_until_end(rest));
                    directives.push(Directive { words: normalize(&words), block });
                }
                "}" => break,
                word => {
                    words.push_str(word);
                    continue;
                }
            }
            words.clear();
        }
        assert!(words.trim().is_empty(), "no directive: {words}");
        Self(directives)
    }

    /// Does what printed lines say: removes what comments have in backticks, and writes the
    /// directives in place of those that are there.
    pub(super) fn apply(&mut self, printed: &str) {
        let mut written = String::new();
        for line in printed.lines() {
            let (directives, comment) = line.split_once('#').unwrap_or((line, ""));
            comment.split('`').skip(1).step_by(2).for_each(|removed| self.remove(removed));
            written += directives;
        }
        Self::parse(&written).0.into_iter().for_each(|directive| self.put(directive));
    }

    /// Removes all directives that begin with these words, up to what is left open.
    fn remove(&mut self, words: &str) {
        let is_open = words.contains('…');
        let start = words.split(['…', ';']).next().unwrap_or_default();
        let start = if is_open { start.trim_end().to_owned() } else { normalize(start) };
        self.0.retain(|directive| !directive.words.starts_with(&start));
        self.0
            .iter_mut()
            .filter_map(|directive| directive.block.as_mut())
            .for_each(|block| block.remove(words));
    }

    /// Writes a directive in place of those with its name, or else where it belongs.
    fn put(&mut self, directive: Directive) {
        if directive.block.is_some() {
            self.0.retain(|own| own.words != directive.words);
            self.0.push(directive);
        } else if !self.replace(&directive) {
            match directive.is_header() {
                // Those of a location stand for all from outside of it.
                true => self.forwarding().for_each(|block| block.0.push(directive.clone())),
                false => self.0.push(directive),
            }
        }
    }

    fn replace(&mut self, directive: &Directive) -> bool {
        let mut is_replaced = false;
        for own in &mut self.0 {
            if let Some(block) = &mut own.block {
                is_replaced |= block.replace(directive);
            } else if own.key() == directive.key() {
                own.clone_from(directive);
                is_replaced = true;
            }
        }
        is_replaced
    }

    /// Returns the blocks that forward requests.
    fn forwarding(&mut self) -> impl Iterator<Item = &mut Self> {
        let blocks = self.0.iter_mut().filter_map(|directive| directive.block.as_mut());
        blocks.filter(|block| block.0.iter().any(|own| own.words.starts_with("proxy_pass ")))
    }
}

impl Directive {
    fn is_header(&self) -> bool {
        self.words.starts_with("proxy_set_header ")
    }

    /// What only one directive of a block has: its name, and that of the header.
    fn key(&self) -> Vec<&str> {
        self.words.split(' ').take(1 + usize::from(self.is_header())).collect()
    }
}

impl fmt::Display for NginxLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Directive { words, block } in &self.0 {
            match block {
                None => write!(f, "{}; ", words.trim_end())?,
                Some(block) => writeln!(f, "{words}{{ {block}}}")?,
            }
        }
        Ok(())
    }
}

/// Writes one space after each word.
fn normalize(words: &str) -> String {
    words.split_whitespace().fold(String::new(), |mut all, word| {
        write!(all, "{word} ").expect("writing to a String cannot fail");
        all
    })
}

#[test]
fn lines_are_replaced_removed_and_added_where_they_belong() {
    let mut lines = NginxLines::parse(
        "rewrite ^(.*)$ $1/ permanent; location / { proxy_pass http://a; proxy_set_header Host x; auth_basic 'a b'; } \
         location /b { return 403; }",
    );
    lines.apply("# remove `rewrite …` and `auth_basic`\nproxy_set_header Host $http_host;\ngzip off;");
    lines.apply(
        "proxy_set_header X-Forwarded-For $remote_addr;\nlocation /b { deny all; }   # no `proxy_pass y`",
    );
    let expected = "location / { proxy_pass http://a; proxy_set_header Host $http_host; proxy_set_header \
                    X-Forwarded-For $remote_addr; } gzip off; location /b { deny all; }";
    assert_eq!(lines, NginxLines::parse(expected), "{lines}");
    assert_eq!(NginxLines::parse(&lines.to_string()), lines);
}
