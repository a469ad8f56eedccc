//! Proof of control over a name: the challenge types, the responses that the CA looks for, and its
//! reasons when validation fails.

use std::collections::BTreeSet;

use instant_acme::{AuthorizationStatus, ChallengeType, Error as AcmeError, Order, OrderStatus};

use super::bad_nonce::retry_bad_nonce;
use super::failure;
use super::http::AcmeHttpClient;
use super::order_attempt::{OrderAttempt, OrderPurpose, POLL_POLICY};
use crate::certs::challenge_certificate::challenge_sni;
use crate::certs::challenges::ChallengeGuard;
use crate::certs::schedule::{ChallengeKind, IssuanceFailure, RenewalState};
use crate::store::SharedChallenge;

/// Returns the challenge types to try, the most promising first.
pub(super) fn challenges_to_try(attempt: &OrderAttempt, renewal: &RenewalState) -> Vec<ChallengeKind> {
    let mut challenges = vec![ChallengeKind::TlsAlpn];
    if attempt.is_http01_available {
        challenges.push(ChallengeKind::Http);
    }
    if renewal.challenge == Some(ChallengeKind::Http) {
        challenges.reverse();
    }
    challenges
}

/// Responds to the challenges of an order, and waits until the CA has validated them.
pub(super) async fn validate(
    attempt: &OrderAttempt,
    http: &AcmeHttpClient,
    order: &mut Order,
    challenge: ChallengeKind,
) -> Result<(), IssuanceFailure> {
    let mut published = Vec::new();
    let outcome = match respond(attempt, http, order, challenge, &mut published).await {
        Ok(()) => wait_for_validation(http, order).await,
        Err(failure) => Err(failure),
    };
    // Nothing asks for the responses any more once the authorizations are decided.
    if let Some(shared) = &attempt.shared {
        for PublishedResponse { shared: SharedChallenge { kind, key, .. }, .. } in &published {
            shared.remove(*kind, key).await;
        }
    }
    outcome
}

async fn wait_for_validation(http: &AcmeHttpClient, order: &mut Order) -> Result<(), IssuanceFailure> {
    match retry_bad_nonce!(order.poll_ready(&POLL_POLICY)) {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => Ok(()),
        Ok(_) => Err(fetch_errors(http, order, None).await),
        Err(error @ AcmeError::Api(_)) => Err(fetch_errors(http, order, Some(error)).await),
        Err(error) => Err(failure::from_acme_error(error, http)),
    }
}

/// A response to a challenge, given by this gateway until it is dropped and by others until it is
/// removed.
struct PublishedResponse {
    shared: SharedChallenge,
    _given: ChallengeGuard,
}

/// Publishes the responses to the challenges, then tells the CA to validate them.
async fn respond(
    attempt: &OrderAttempt,
    http: &AcmeHttpClient,
    order: &mut Order,
    challenge: ChallengeKind,
    published: &mut Vec<PublishedResponse>,
) -> Result<(), IssuanceFailure> {
    let fail = |error| failure::from_acme_error(error, http);
    retry_bad_nonce!(fetch_authorizations(order)).map_err(fail)?;
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.map_err(fail)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offered = match challenge {
            ChallengeKind::TlsAlpn => authorization.challenge(ChallengeType::TlsAlpn01),
            ChallengeKind::Http => authorization.challenge(ChallengeType::Http01),
        };
        let (name, way) = (&attempt.name, challenge.as_str());
        let mut offered = offered
            .ok_or_else(|| failure::new_validation(format!("the CA does not offer {way} for {name}")))?;
        let key = offered.key_authorization();
        let (given, response) = match challenge {
            ChallengeKind::TlsAlpn => {
                let digest = key.digest().as_ref().to_vec();
                let given = attempt
                    .challenges
                    .add_tls_alpn01(name, &digest)
                    .map_err(|error| failure::new_refused(error.to_string()))?;
                (given, SharedChallenge::new_tls_alpn01(challenge_sni(name), digest))
            }
            ChallengeKind::Http => {
                let given = attempt.challenges.add_http01(&offered.token, key.as_str());
                (given, SharedChallenge::new_http01(offered.token.clone(), key.as_str()))
            }
        };
        if let Some(shared) = &attempt.shared {
            shared.publish(&response).await?;
        }
        published.push(PublishedResponse { shared: response, _given: given });
        retry_bad_nonce!(offered.set_ready()).map_err(fail)?;
    }
    Ok(())
}

/// Fetches all authorizations, so that iterating over them afterwards sends no request.
async fn fetch_authorizations(order: &mut Order) -> Result<(), AcmeError> {
    let mut identifiers = order.identifiers();
    while let Some(next) = identifiers.next().await {
        next?;
    }
    Ok(())
}

/// Returns why the CA's validation failed; the order itself does not say.
async fn fetch_errors(http: &AcmeHttpClient, order: &mut Order, error: Option<AcmeError>) -> IssuanceFailure {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = retry_bad_nonce!(authorization.refresh()) else { break };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(failure::from_problem));
    }
    let texts: Vec<_> = reasons.iter().map(|failure| failure.text.as_str()).collect();
    match (texts.is_empty(), error) {
        (true, Some(error)) => failure::from_acme_error(error, http),
        (true, None) => failure::new_validation("the CA did not accept the answer and gives no reason"),
        (false, _) => {
            let help = reasons.iter().find_map(|failure| failure.help.clone());
            IssuanceFailure { help, ..failure::new_validation(texts.join("; ")) }
        }
    }
}

/// Builds the failure of an attempt in which the CA validated none of the challenges. `reasons`
/// says of each why.
pub(super) fn new_failure(
    attempt: &OrderAttempt,
    reasons: &[String],
    mut helps: BTreeSet<String>,
) -> IssuanceFailure {
    if helps.is_empty() {
        helps.insert("Check that ports 443 and 80 of this name reach this gateway".into());
    }
    if !attempt.is_http01_available {
        helps.insert("If port 443 cannot reach it, serve port 80 too (--listen-http 0.0.0.0:80)".into());
    }
    let (ca, so) = match attempt.purpose {
        OrderPurpose::Stage => ("the CA's staging", ", so nothing is ordered"),
        OrderPurpose::Serve | OrderPurpose::DryRun => ("the CA", ""),
    };
    let text = format!("{ca} could not validate {}{so}: {}", attempt.name, reasons.join("; "));
    failure::new_validation(text).with_help(helps.into_iter().collect::<Vec<_>>().join(". "))
}
