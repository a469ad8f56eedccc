//! The `.env` that completes a tenant's export.

use crate::bundle::notation;

/// The lines of an overlay.
pub(super) struct Overlay {
    title: String,
    lines: Vec<(String, String)>,
}

impl Overlay {
    /// Creates an overlay without lines; `title` says what it was made of.
    pub(super) fn new(title: &str) -> Self {
        let title = title.chars().filter(|c| !c.is_control()).collect();
        Self { title, lines: Vec::new() }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.lines.push((name.to_owned(), value.to_owned()));
    }

    /// Returns the text; `None` if there are no lines. An error is the name of a variable whose
    /// value cannot be written so that it is read as the same.
    pub(super) fn render(&self) -> Option<Result<String, String>> {
        if self.lines.is_empty() {
            return None;
        }
        let mut text = format!("# Made by `tenantd migrate` of {}. It is yours to edit.\n", self.title);
        for (name, value) in &self.lines {
            let Some(written) = quote(name, value) else { return Some(Err(name.clone())) };
            text += &format!("{name}={written}\n");
        }
        Some(Ok(text))
    }
}

/// Writes a value so that it is read as the same.
fn quote(name: &str, value: &str) -> Option<String> {
    let spellings = [value.to_owned(), format!("'{value}'")];
    spellings.into_iter().find(|written| {
        let read = notation::parse_env(&format!("{name}={written}\n")).ok();
        let read = read.as_ref().and_then(|root| root.member(&name.to_ascii_lowercase()));
        read.is_some_and(|(_, node)| node.text() == Some(value)) && !written.contains('\n')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were() {
        assert_eq!(quote("A", "https://mcp.test/a?b=c").as_deref(), Some("https://mcp.test/a?b=c"));
        assert_eq!(quote("A", "a #b $c").as_deref(), Some("'a #b $c'"));
        assert_eq!(quote("A", "a\nb"), None);
        assert!(Overlay::new("x").render().is_none());
    }
}
