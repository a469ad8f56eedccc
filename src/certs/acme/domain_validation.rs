//! Proof of control over a name: the challenge types, the responses that the CA looks for, and its
//! reasons when validation fails.

use std::collections::BTreeSet;

use instant_acme::{AuthorizationStatus, ChallengeType, Error as AcmeError, Order};

use super::bad_nonce::patiently;
use super::failure;
use super::http::AcmeHttpClient;
use super::order_attempt::{OrderAttempt, OrderPurpose, challenge_name};
use crate::certs::challenges::ChallengeGuard;
use crate::certs::schedule::{ChallengeKind, IssuanceFailure, RenewalState};

impl OrderAttempt {
    /// Returns the challenge types to try, the most promising first.
    pub(super) fn challenge_preference(&self, memory: &RenewalState) -> Vec<ChallengeKind> {
        let mut ways = vec![ChallengeKind::TlsAlpn];
        if self.is_http01_available {
            ways.push(ChallengeKind::Http);
        }
        if memory.challenge == Some(ChallengeKind::Http) {
            ways.reverse();
        }
        ways
    }

    /// Publishes the responses to the challenges, then tells the CA to validate them.
    pub(super) async fn respond_to_challenges(
        &self,
        http: &AcmeHttpClient,
        order: &mut Order,
        way: ChallengeKind,
    ) -> Result<Vec<ChallengeGuard>, IssuanceFailure> {
        patiently!(fetch_authorizations(order)).map_err(|error| failure::from_acme_error(error, http))?;
        let mut answering = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(|error| failure::from_acme_error(error, http))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let kind = match way {
                ChallengeKind::TlsAlpn => ChallengeType::TlsAlpn01,
                ChallengeKind::Http => ChallengeType::Http01,
            };
            let mut challenge = authorization.challenge(kind).ok_or_else(|| {
                failure::new_validation(format!(
                    "the CA does not offer {} for {}",
                    challenge_name(way),
                    self.name
                ))
            })?;
            let key = challenge.key_authorization();
            answering.push(match way {
                ChallengeKind::TlsAlpn => self
                    .challenges
                    .add_tls_alpn01(&self.name, key.digest().as_ref())
                    .map_err(|error| failure::new_refused(error.to_string()))?,
                ChallengeKind::Http => self.challenges.add_http01(&challenge.token, key.as_str()),
            });
            patiently!(challenge.set_ready()).map_err(|error| failure::from_acme_error(error, http))?;
        }
        Ok(answering)
    }

    /// Returns why the CA's validation failed; the order itself does not say.
    pub(super) async fn fetch_validation_errors(
        &self,
        http: &AcmeHttpClient,
        order: &mut Order,
        error: Option<AcmeError>,
    ) -> IssuanceFailure {
        let mut found = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = patiently!(authorization.refresh()) else { break };
            let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            found.extend(errors.map(failure::from_problem));
        }
        let texts: Vec<_> = found.iter().map(|failure| failure.text.as_str()).collect();
        match (texts.is_empty(), error) {
            (true, Some(error)) => failure::from_acme_error(error, http),
            (true, None) => failure::new_validation("the CA did not accept the answer and does not say why"),
            (false, _) => {
                let help = found.iter().find_map(|failure| failure.help.clone());
                IssuanceFailure { help, ..failure::new_validation(texts.join("; ")) }
            }
        }
    }

    pub(super) fn validation_failure(
        &self,
        found: &[String],
        mut helps: BTreeSet<String>,
    ) -> IssuanceFailure {
        if helps.is_empty() {
            helps.insert("See that ports 443 and 80 of this name reach this gateway".into());
        }
        if !self.is_http01_available {
            helps.insert(
                "Where 443 cannot reach it, let it answer on port 80 too (--listen-http 0.0.0.0:80)".into(),
            );
        }
        let (ca, so) = match self.purpose {
            OrderPurpose::Stage => ("the CA's staging", ", so nothing is ordered"),
            OrderPurpose::Serve | OrderPurpose::DryRun => ("the CA", ""),
        };
        let found = format!("{ca} could not see that {} is ours{so}: {}", self.name, found.join("; "));
        failure::new_validation(found).with_help(helps.into_iter().collect::<Vec<_>>().join(". "))
    }
}

/// Fetches all authorizations, so that iterating over them afterwards sends no request.
async fn fetch_authorizations(order: &mut Order) -> Result<(), AcmeError> {
    let mut identifiers = order.identifiers();
    while let Some(next) = identifiers.next().await {
        next?;
    }
    Ok(())
}
