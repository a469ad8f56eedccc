//! The checks of `certs doctor` for this mode. None of them orders anything.

use std::path::Path;

use http::{Request, header};
use instant_acme::{BodyWrapper, HttpClient};
use jiff::SignedDuration;

use super::certs_folder::{CertsFolder, CertsFolderError};
use super::http::AcmeHttpClient;
use super::{eab, failure};
use crate::base::clock::{Clock, SystemClock};
use crate::settings::{AcmeSettings, ExternalAccount};

/// A larger difference of clocks causes trouble with certificates.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Checks that the folder can be written, or is in use by a gateway that can write it.
pub(in crate::certs) fn check_folder(folder: &Path) -> Result<(), String> {
    match CertsFolder::open(folder) {
        Ok(_) | Err(CertsFolderError::InUse(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks that the key of an external account can be read.
pub(in crate::certs) fn check_external_account(eab: &ExternalAccount) -> Result<String, String> {
    let read = eab::read_binding(eab).map_err(|error| error.to_string())?;
    Ok(format!("the key of {} can be read", read.kid))
}

/// Checks that a CA answers, and that its clock agrees with this machine's.
pub(in crate::certs) async fn check_directory(
    acme: &AcmeSettings,
    directory: &str,
) -> Result<String, String> {
    let http = AcmeHttpClient::new(acme.ca_root.as_deref()).map_err(|error| error.to_string())?;
    let request = Request::get(directory).body(BodyWrapper::default()).map_err(|error| error.to_string())?;
    let answer = http.request(request).await;
    let answer = answer.map_err(|error| failure::from_acme_error(error, &http).message())?;
    if !answer.parts.status.is_success() {
        return Err(format!("it answers {}; check that the URL is its ACME directory", answer.parts.status));
    }
    let date = answer.parts.headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let apart = theirs.map(|theirs| SystemClock.now().duration_since(theirs.timestamp()).abs());
    match apart {
        Some(apart) if apart > MAX_CLOCK_SKEW => Err(format!(
            "its clock and this machine's differ by {} s; set this machine's clock",
            apart.as_secs()
        )),
        _ => Ok("it answers".into()),
    }
}
