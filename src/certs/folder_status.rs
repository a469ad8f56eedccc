//! The certificates in a folder, from whichever mode.

use std::path::Path;

use jiff::Timestamp;

use super::status::{CertificateStatus, from_certificates};
use super::{acme, manual, self_signed};
use crate::settings::Ca;

/// Returns the statuses of the certificates stored in a folder, from whichever mode. Only reads the
/// folder.
pub fn read_folder_statuses(folder: &Path, cas: &[Ca], now: Timestamp) -> Vec<CertificateStatus> {
    let mut statuses = acme::status::folder_statuses(folder, cas, now);
    let files = manual::inspect_folder(folder).good.into_values().chain(self_signed::load_leaf_from(folder));
    statuses.extend(from_certificates(&files.collect::<Vec<_>>(), now));
    statuses
}
