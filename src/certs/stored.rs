//! The certificates in a folder, from whichever mode.

use std::path::Path;

use jiff::Timestamp;

use super::status::{Status, of_materials};
use super::{acme, manual, self_signed};
use crate::settings::Ca;

/// Returns the statuses of the certificates stored in a folder, from whichever mode. Only reads the
/// folder.
pub fn stored(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<Status> {
    let mut statuses = acme::status::of_folder(folder, cas, now);
    let files = manual::look(folder).good.into_values().chain(self_signed::look(folder));
    statuses.extend(of_materials(&files.collect::<Vec<_>>(), now));
    statuses
}
