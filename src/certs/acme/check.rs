//! What `certs doctor` looks at of this mode, without ordering anything.

use std::path::Path;

use super::store::{Store, Unusable};
use super::{eab, http};
use crate::settings::{Acme, Eab};

/// Whether the folder can be written, or is in use by a gateway that can.
pub(in crate::certs) fn folder(folder: &Path) -> Result<(), String> {
    match Store::open(folder) {
        Ok(_) | Err(Unusable::Held(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the key of an external account can be read.
pub(in crate::certs) fn eab(eab: &Eab) -> Result<String, String> {
    let read = eab::read(eab).map_err(|error| error.to_string())?;
    Ok(format!("the key of {} can be read", read.kid))
}

/// Whether a CA answers, and whether our clocks agree.
pub(in crate::certs) async fn ca(acme: &Acme, directory: &str) -> Result<String, String> {
    let http = http::Http::new(acme.ca_root.as_deref()).map_err(|error| error.to_string())?;
    http.look_at(directory).await
}
