//! Error chains: an error and its sources.

use std::error::Error;
use std::iter::successors;

/// Iterates over the error, its source, the source of that, and so on.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Formats the error and its sources in one line. A source that the text already contains is left
/// out.
pub fn format_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).map(ToString::to_string) {
        match text.as_str() {
            "" => text = cause,
            said if said.contains(&cause) => {}
            _ => text = format!("{text}: {cause}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_repeated_cause_is_left_out() {
        let deepest = Link("no route", None);
        let middle = Link("not connected: no route", Some(Box::new(deepest)));
        let error = Link("the CA is silent", Some(Box::new(middle)));
        assert_eq!(format_chain(&error), "the CA is silent: not connected: no route");
        assert_eq!(causes(&error).count(), 3);
    }
}
