//! Files that were checked on the page, until they are accepted or forgotten.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::random;
use crate::base::sync::lock;

/// The maximum number kept, each of which may have 33 MiB; the oldest is dropped.
const MAX_DRAFTS: usize = 4;
/// How long a file waits to be accepted.
pub(super) const MAX_AGE: Duration = Duration::from_mins(10);

/// A file that was checked.
#[derive(Debug, Clone)]
pub(super) struct CheckedFile {
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// The files that wait.
#[derive(Debug, Default)]
pub(super) struct Drafts(Mutex<VecDeque<(String, Instant, CheckedFile)>>);

impl Drafts {
    /// Keeps a file and returns its id, which cannot be guessed.
    pub(super) fn add(&self, file: CheckedFile, now: Instant) -> String {
        let id = random::hex::<16>();
        let mut drafts = lock(&self.0);
        drafts.retain(|(_, since, _)| is_fresh(*since, now));
        if drafts.len() >= MAX_DRAFTS {
            drafts.pop_front();
        }
        drafts.push_back((id.clone(), now, file));
        id
    }

    /// Takes the file with this id, if it still waits.
    pub(super) fn take(&self, id: &str, now: Instant) -> Option<CheckedFile> {
        let mut drafts = lock(&self.0);
        drafts.retain(|(_, since, _)| is_fresh(*since, now));
        let at = drafts.iter().position(|(known, ..)| known == id)?;
        drafts.remove(at).map(|(.., file)| file)
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn a_file_is_taken_once_and_in_time() {
        let (drafts, clock) = (Drafts::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let add = || {
            let file = CheckedFile { name: "a.zip".to_owned(), bytes: Bytes::from_static(b"zip") };
            drafts.add(file, clock.monotonic())
        };
        let first = add();
        assert!(drafts.take(&first, clock.monotonic()).is_some_and(|file| file.name == "a.zip"));
        assert!(drafts.take(&first, clock.monotonic()).is_none(), "it was taken");
        let late = add();
        clock.advance(MAX_AGE);
        assert!(drafts.take(&late, clock.monotonic()).is_none(), "it is late");
        let oldest = add();
        (0..MAX_DRAFTS).for_each(|_| drop(add()));
        assert!(drafts.take(&oldest, clock.monotonic()).is_none(), "there were too many");
    }
}
