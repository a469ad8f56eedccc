//! Proof of control over a name: the challenge types, the responses that the CA looks for, and its
//! reasons when validation fails.

use std::collections::BTreeSet;

use instant_acme::{AuthorizationStatus, ChallengeType, Error as AcmeError, Order};

use super::attempt::{Attempt, Purpose, word};
use super::fault;
use super::http::Http;
use super::patience::patiently;
use crate::certs::challenges::Answering;
use crate::certs::schedule::{Challenge, Failure, Memory};

impl Attempt {
    /// Returns the challenge types to try, the most promising first.
    pub(super) fn ways(&self, memory: &Memory) -> Vec<Challenge> {
        let mut ways = vec![Challenge::TlsAlpn];
        if self.http01 {
            ways.push(Challenge::Http);
        }
        if memory.challenge == Some(Challenge::Http) {
            ways.reverse();
        }
        ways
    }

    /// Publishes the responses to the challenges, then tells the CA to validate them.
    pub(super) async fn answer(
        &self,
        http: &Http,
        order: &mut Order,
        way: Challenge,
    ) -> Result<Vec<Answering>, Failure> {
        patiently!(fetch_authorizations(order)).map_err(|error| fault::of(error, http))?;
        let mut answering = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(|error| fault::of(error, http))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let kind = match way {
                Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
                Challenge::Http => ChallengeType::Http01,
            };
            let mut challenge = authorization.challenge(kind).ok_or_else(|| {
                fault::validation(format!("the CA does not offer {} for {}", word(way), self.name))
            })?;
            let key = challenge.key_authorization();
            answering.push(match way {
                Challenge::TlsAlpn => self
                    .challenges
                    .answer_tls(&self.name, key.digest().as_ref())
                    .map_err(|error| fault::refused(error.to_string()))?,
                Challenge::Http => self.challenges.answer_http(&challenge.token, key.as_str()),
            });
            patiently!(challenge.set_ready()).map_err(|error| fault::of(error, http))?;
        }
        Ok(answering)
    }

    /// Returns why the CA's validation failed; the order itself does not say.
    pub(super) async fn reasons(&self, http: &Http, order: &mut Order, error: Option<AcmeError>) -> Failure {
        let mut found = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = patiently!(authorization.refresh()) else { break };
            let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            found.extend(errors.map(fault::of_problem));
        }
        let texts: Vec<_> = found.iter().map(|failure| failure.text.as_str()).collect();
        match (texts.is_empty(), error) {
            (true, Some(error)) => fault::of(error, http),
            (true, None) => fault::validation("the CA did not accept the answer and does not say why"),
            (false, _) => {
                let help = found.iter().find_map(|failure| failure.help.clone());
                Failure { help, ..fault::validation(texts.join("; ")) }
            }
        }
    }

    pub(super) fn not_validated(&self, found: &[String], mut helps: BTreeSet<String>) -> Failure {
        if helps.is_empty() {
            helps.insert("See that ports 443 and 80 of this name reach this gateway".into());
        }
        if !self.http01 {
            helps.insert(
                "Where 443 cannot reach it, let it answer on port 80 too (--listen-http 0.0.0.0:80)".into(),
            );
        }
        let (ca, so) = match self.purpose {
            Purpose::Prove => ("the CA's staging", ", so nothing is ordered"),
            Purpose::Serve | Purpose::Show => ("the CA", ""),
        };
        let found = format!("{ca} could not see that {} is ours{so}: {}", self.name, found.join("; "));
        fault::validation(found).help(helps.into_iter().collect::<Vec<_>>().join(". "))
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
