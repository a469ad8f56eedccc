//! NGINX's configuration language: words, quotes, escapes, comments and blocks
//! (`ngx_conf_file.c`; NGINX's own `crossplane` reads it the same way).
//!
//! Only the grammar. What directives mean is left to [`super::nginx_routes`]. Bodies of
//! `…_by_lua_block` are skipped.

use std::iter::Peekable;
use std::str::Chars;

const MAX_DEPTH: usize = 64;

/// A directive: `name arg arg;` or `name arg { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) line: usize,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    pub(super) fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Why a text is not a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrammarError {
    pub(super) line: usize,
    pub(super) what: &'static str,
}

/// Parses a configuration file.
///
/// # Errors
/// The first thing that NGINX would not read either.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, GrammarError> {
    let mut parser = Parser { chars: text.chars().peekable(), line: 1 };
    parser.block(0)
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
    Eof,
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Parser<'_> {
    fn error(&self, what: &'static str) -> GrammarError {
        GrammarError { line: self.line, what }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Reads directives up to the end of the block, at depth 0 up to the end of the text.
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(self.error("blocks are nested too deep"));
        }
        let mut directives = Vec::new();
        loop {
            let name = match self.token()? {
                Token::Word(name) => name,
                Token::Close if depth > 0 => return Ok(directives),
                Token::Eof if depth == 0 => return Ok(directives),
                Token::Close => return Err(self.error("unexpected \"}\"")),
                Token::Eof => return Err(self.error("a block is not closed: \"}\" is missing")),
                Token::Open => return Err(self.error("unexpected \"{\"")),
                Token::End => return Err(self.error("unexpected \";\"")),
            };
            directives.push(self.directive(name, depth)?);
        }
    }

    fn directive(&mut self, name: String, depth: usize) -> Result<Directive, GrammarError> {
        let (line, mut args) = (self.line, Vec::new());
        loop {
            let block = match self.token()? {
                Token::Word(word) => {
                    args.push(word);
                    continue;
                }
                Token::End => None,
                Token::Open if name.ends_with("_by_lua_block") => {
                    self.skip_lua()?;
                    Some(Vec::new())
                }
                Token::Open => Some(self.block(depth + 1)?),
                Token::Close | Token::Eof => {
                    return Err(GrammarError { line, what: "the directive is not ended: \";\" is missing" });
                }
            };
            return Ok(Directive { name, args, line, block });
        }
    }

    fn token(&mut self) -> Result<Token, GrammarError> {
        loop {
            match self.chars.peek() {
                None => return Ok(Token::Eof),
                Some(c) if c.is_whitespace() => drop(self.next()),
                Some('#') => while self.next().is_some_and(|c| c != '\n') {},
                Some(_) => break,
            }
        }
        match self.chars.peek() {
            Some('{') => self.sign(Token::Open),
            Some('}') => self.sign(Token::Close),
            Some(';') => self.sign(Token::End),
            Some(&quote @ ('"' | '\'')) => self.read_quoted(quote).map(Token::Word),
            _ => self.word().map(Token::Word),
        }
    }

    fn sign(&mut self, token: Token) -> Result<Token, GrammarError> {
        self.next();
        Ok(token)
    }

    fn word(&mut self) -> Result<String, GrammarError> {
        let mut word = String::new();
        while let Some(&c) = self.chars.peek() {
            match c {
                // `${name}` is part of the word.
                '{' if word.ends_with('$') => {
                    while let Some(c) = self.next() {
                        word.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                '{' | ';' => break,
                c if c.is_whitespace() => break,
                '\\' => {
                    self.next();
                    word.push_str(&self.read_escaped());
                }
                c => {
                    self.next();
                    word.push(c);
                }
            }
        }
        Ok(word)
    }

    fn read_quoted(&mut self, quote: char) -> Result<String, GrammarError> {
        let line = self.line;
        self.next();
        let mut word = String::new();
        loop {
            match self.next() {
                None => return Err(GrammarError { line, what: "a quote is not closed" }),
                Some(c) if c == quote => break,
                Some('\\') => word.push_str(&self.read_escaped()),
                Some(c) => word.push(c),
            }
        }
        match self.chars.peek() {
            None | Some(';' | '{' | ')') => Ok(word),
            Some(c) if c.is_whitespace() => Ok(word),
            Some(_) => Err(self.error("there is text directly behind a closing quote")),
        }
    }

    /// Returns what a backslash and the next character stand for: NGINX keeps those that it does
    /// not know, which are of regular expressions.
    fn read_escaped(&mut self) -> String {
        match self.next() {
            None => "\\".to_owned(),
            Some(c @ ('"' | '\'' | '\\' | ' ' | ';' | '{' | '}')) => c.to_string(),
            Some('t') => "\t".to_owned(),
            Some('r') => "\r".to_owned(),
            Some('n') => "\n".to_owned(),
            Some(c) => format!("\\{c}"),
        }
    }

    /// Skips a block of Lua, whose strings and comments may contain braces.
    fn skip_lua(&mut self) -> Result<(), GrammarError> {
        let (line, mut depth) = (self.line, 1_usize);
        while let Some(c) = self.next() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return Ok(()),
                '}' => depth -= 1,
                '-' if self.chars.peek() == Some(&'-') => while self.next().is_some_and(|c| c != '\n') {},
                '"' | '\'' => {
                    while let Some(inside) = self.next() {
                        match inside {
                            '\\' => drop(self.next()),
                            end if end == c => break,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Err(GrammarError { line, what: "a block of Lua is not closed" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes directives so that they are read as the same.
    fn render(directives: &[Directive]) -> String {
        let quote = |word: &str| {
            let mut quoted = String::from("\"");
            for c in word.chars() {
                match c {
                    '"' | '\\' => quoted.extend(['\\', c]),
                    c => quoted.push(c),
                }
            }
            quoted + "\""
        };
        let mut out = String::new();
        for directive in directives {
            out += &quote(&directive.name);
            directive.args.iter().for_each(|arg| out += &format!(" {}", quote(arg)));
            out += &match &directive.block {
                Some(block) => format!(" {{ {} }}\n", render(block)),
                None => ";\n".to_owned(),
            };
        }
        out
    }

    fn without_lines(directives: Vec<Directive>) -> Vec<Directive> {
        let plain = |directive: Directive| Directive {
            line: 0,
            block: directive.block.map(without_lines),
            ..directive
        };
        directives.into_iter().map(plain).collect()
    }

    #[test]
    fn quotes_escapes_comments_and_blocks_are_read() {
        let text = "# c\nhttp {\n  log_format x '$a \"b\" ' 'it\\'s;';\n  server { # x\n    location ~ \
                    \\.php$ \
                    { return 200 \"a;{}\"; }\n    set $u ${v}w;\n  }\n}\n";
        let read = parse(text).expect("read");
        let http = &read[0];
        assert_eq!((http.name.as_str(), http.line), ("http", 2));
        assert_eq!(http.children()[0].args, ["x", "$a \"b\" ", "it's;"]);
        let server = &http.children()[1];
        assert_eq!(server.children()[0].args, ["~", "\\.php$"]);
        assert_eq!(server.children()[0].children()[0].args, ["200", "a;{}"]);
        assert_eq!((server.children()[1].arg(1), server.children()[1].line), ("${v}w", 6));
    }

    #[test]
    fn lua_is_skipped() {
        let text =
            "location / { content_by_lua_block {\n ngx.say(\"}\") -- }\n local t = {a = '}'}\n}\n}\nx y;";
        let read = parse(text).expect("read");
        assert_eq!((read[1].name.as_str(), read[1].line), ("x", 6));
    }

    #[test]
    fn what_nginx_does_not_read_is_refused_with_its_line() {
        for (text, line) in [
            ("a b", 1),
            ("a;\nb {\nc;", 3),
            ("a;\n}", 2),
            ("a \"b", 1),
            ("a 'b'c;", 1),
            ("x;\n;", 2),
            ("x;\n{ }", 2),
            ("a_by_lua_block {\n", 1),
        ] {
            assert_eq!(parse(text).expect_err(text).line, line, "{text}");
        }
        assert!(parse(&"a {".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_the_same_again(text in "[ab{};$#'\"\\\\ \\n\\t\u{e4}]{0,80}") {
            if let Ok(read) = parse(&text) {
                let read = without_lines(read);
                let again = parse(&render(&read)).map(without_lines);
                proptest::prop_assert_eq!(again, Ok(read));
            }
        }
    }
}
