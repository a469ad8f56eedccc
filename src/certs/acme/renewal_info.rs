//! ACME Renewal Information (RFC 9773): when the CA wants a certificate to be renewed.

use instant_acme::{CertificateIdentifier, Error as AcmeError};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;

use super::bad_nonce::retry_bad_nonce;
use super::order_attempt::{AttemptError, OrderAttempt};
use super::{account, failure};
use crate::certs::schedule::{IssuanceFailure, RenewalWindow};

/// Requests the CA's suggested window, and how long to wait before the next request. `None` if the
/// CA has no renewal information.
pub(super) async fn fetch(
    attempt: &OrderAttempt,
    held: &CertificateDer<'static>,
) -> Result<Option<(RenewalWindow, SignedDuration)>, IssuanceFailure> {
    let http = attempt.new_http_client()?;
    let Ok(id) = CertificateIdentifier::try_from(held) else { return Ok(None) };
    let account = account::load_or_open(attempt, &http).await.map_err(AttemptError::into_failure)?;
    match retry_bad_nonce!(account.renewal_info(&id)) {
        Ok((info, retry_after)) => {
            let moment = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MIN);
            let (start, end) = (info.suggested_window.start, info.suggested_window.end);
            let window =
                RenewalWindow { start: moment(start.unix_timestamp()), end: moment(end.unix_timestamp()) };
            if let Some(why) = info.explanation_url {
                tracing::info!(name = attempt.name, why, "the CA explains its renewal window");
            }
            Ok(Some((window, SignedDuration::try_from(retry_after).unwrap_or(SignedDuration::MAX))))
        }
        Err(AcmeError::Unsupported(_) | AcmeError::Str(_)) => Ok(None),
        Err(error) => Err(failure::from_acme_error(error, &http)),
    }
}
