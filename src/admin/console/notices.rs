//! What came of an action, kept until the page that follows it shows it.
//!
//! The page is named by an id that cannot be guessed, so that no link makes the console say what it
//! did not do.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::base::random;
use crate::base::sync::lock;

/// The maximum number kept; the oldest is dropped.
const MAX_NOTICES: usize = 64;

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) is_refusal: bool,
    pub(super) text: String,
    /// What was found in a tenant's files, if that is why.
    pub(super) findings: Vec<String>,
}

/// The last notices.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<VecDeque<(String, Notice)>>);

impl Notices {
    /// Keeps a notice and returns its id.
    pub(super) fn add(&self, notice: Notice) -> String {
        let id = random::hex::<16>();
        let mut notices = lock(&self.0);
        if notices.len() >= MAX_NOTICES {
            notices.pop_front();
        }
        notices.push_back((id.clone(), notice));
        id
    }

    /// Returns the notice with this id, if it is still kept.
    pub(super) fn find(&self, id: &str) -> Option<Notice> {
        lock(&self.0).iter().find(|(known, _)| known == id).map(|(_, notice)| notice.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_notices_are_kept() {
        let notices = Notices::default();
        let notice = |text: &str| Notice { is_refusal: false, text: text.to_owned(), findings: Vec::new() };
        let first = notices.add(notice("first"));
        assert_eq!(notices.find(&first), Some(notice("first")));
        let last = (0..MAX_NOTICES).map(|_| notices.add(notice("more"))).last().expect("some");
        assert_eq!((notices.find(&first), notices.find(&last)), (None, Some(notice("more"))));
        assert_eq!(notices.find(""), None);
    }
}
