//! The order of a certificate with instant-acme: account, order, domain validation, chain,
//! verification.
//!
//! Every order is recorded before it is placed, so that a crash leaves it counted. TLS-ALPN-01 is
//! tried first, or the type that succeeded last. A failed authorization cannot be reused, so the
//! other type needs a new order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use instant_acme::{
    Account, CertificateIdentifier, Error as AcmeError, Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;

use super::bad_nonce::retry_bad_nonce;
use super::http::AcmeHttpClient;
use super::order_attempt::{AttemptError, ObtainedCertificate, OrderAttempt, OrderPurpose, POLL_POLICY};
use super::pending_order::PendingOrder;
use super::{account, domain_validation, failure, verify};
use crate::certs::schedule::{ChallengeKind, FailureKind, IssuanceFailure, RenewalState};

/// The profile under which CAs issue for IP addresses.
const IP_PROFILE: &str = "shortlived";

/// Obtains a certificate, at staging first after a failed validation. `replaces` is the current
/// one.
pub(super) async fn obtain(
    attempt: &OrderAttempt,
    renewal: &mut RenewalState,
    replaces: Option<CertificateDer<'static>>,
) -> Result<ObtainedCertificate, IssuanceFailure> {
    if renewal.needs_staging && attempt.purpose == OrderPurpose::Serve && attempt.ca.staging.is_some() {
        stage(attempt, renewal).await?;
    }
    try_each_challenge(attempt, renewal, replaces).await
}

/// Obtains a certificate at staging and discards it. Only a failed validation prevents the real
/// order: a staging directory that does not work proves nothing.
async fn stage(attempt: &OrderAttempt, renewal: &mut RenewalState) -> Result<(), IssuanceFailure> {
    match try_each_challenge(&attempt.to_staging(), renewal, None).await {
        Ok(obtained) => renewal.apply_staging_success(obtained.challenge),
        Err(failure) if failure.kind == FailureKind::Validation => return Err(failure),
        Err(failure) => {
            let (name, trouble) = (&attempt.name, failure.message());
            tracing::warn!(name, trouble, "staging gives no result; ordering anyway");
        }
    }
    attempt.persist_renewal_state(renewal).await
}

/// Places orders until one succeeds, with one challenge type after the other.
async fn try_each_challenge(
    attempt: &OrderAttempt,
    renewal: &mut RenewalState,
    mut replaces: Option<CertificateDer<'static>>,
) -> Result<ObtainedCertificate, IssuanceFailure> {
    let http = attempt.new_http_client()?;
    let mut challenges = domain_validation::challenges_to_try(attempt, renewal).into_iter().peekable();
    let (mut reasons, mut helps) = (Vec::new(), BTreeSet::new());
    let mut is_account_new = false;
    while let Some(&challenge) = challenges.peek() {
        let outcome = match account::load_or_open(attempt, &http).await {
            Ok(account) => {
                let order = SingleOrder { attempt, http: &http, account: &account, challenge };
                order.run(renewal, replaces.as_ref()).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(obtained) => return Ok(obtained),
            // The CA does not know the stored account: try once more with a new one.
            Err(AttemptError::UnknownAccount(failure)) if !is_account_new => {
                is_account_new = true;
                account::set_aside(attempt, failure.text).await;
            }
            // Order again without naming the certificate to replace.
            Err(AttemptError::ReplacesRejected(_)) if replaces.is_some() => replaces = None,
            Err(AttemptError::Failed(failure)) if failure.kind == FailureKind::Validation => {
                reasons.push(format!("{}: {}", challenge.as_str(), failure.text));
                helps.extend(failure.help);
                challenges.next();
            }
            Err(error) => return Err(error.into_failure()),
        }
        if !renewal.is_order_allowed(attempt.clock.now()) {
            reasons.push("no more orders for now, to stay within the CA's limits".into());
            break;
        }
    }
    Err(domain_validation::new_failure(attempt, &reasons, helps))
}

/// One order with one challenge type.
struct SingleOrder<'a> {
    attempt: &'a OrderAttempt,
    http: &'a AcmeHttpClient,
    account: &'a Account,
    challenge: ChallengeKind,
}

impl SingleOrder<'_> {
    /// Places the order, has the CA validate the name, and fetches what it issues.
    async fn run(
        &self,
        renewal: &mut RenewalState,
        replaces: Option<&CertificateDer<'static>>,
    ) -> Result<ObtainedCertificate, AttemptError> {
        let (mut order, key) = match self.take_up().await {
            Some(left) => left,
            None => self.place(renewal, replaces).await?,
        };
        if !is_finalized(&mut order) {
            domain_validation::validate(self.attempt, self.http, &mut order, self.challenge).await?;
        }
        Ok(self.finalize(order, &key).await?)
    }

    /// Returns the order that another gateway left under way, or this one before a restart.
    async fn take_up(&self) -> Option<(Order, KeyPair)> {
        let shared = self.attempt.shared.as_ref().filter(|_| self.attempt.purpose == OrderPurpose::Serve)?;
        let left = shared.take_left_order(&self.attempt.ca.directory)?;
        let found = left.find(self.account).await?;
        tracing::info!(name = self.attempt.name, "going on with an order that was under way");
        Some(found)
    }

    async fn place(
        &self,
        renewal: &mut RenewalState,
        replaces: Option<&CertificateDer<'static>>,
    ) -> Result<(Order, KeyPair), AttemptError> {
        let Self { attempt, account, challenge, .. } = *self;
        let key = KeyPair::generate().map_err(|error| failure::new_refused(error.to_string()))?;
        let profile = select_profile(attempt, account)?;
        let is_staging = attempt.purpose == OrderPurpose::Stage;
        renewal.count_order(is_staging, attempt.clock.now());
        attempt.persist_renewal_state(renewal).await?;
        let identifiers = [identifier(&attempt.name)];
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(profile) = &profile {
            wanted = wanted.profile(profile);
        }
        let replaces = replaces.and_then(|held| CertificateIdentifier::try_from(held).ok());
        let is_renewal = replaces.is_some();
        if let Some(id) = replaces {
            wanted = wanted.replaces(id);
        }
        tracing::info!(
            name = attempt.name,
            ca = attempt.ca.directory,
            way = challenge.as_str(),
            is_renewal,
            "ordering a certificate"
        );
        let placed = retry_bad_nonce!(account.new_order(&wanted)).map_err(|error| {
            // instant-acme reports this before it sends anything.
            if matches!(error, AcmeError::Unsupported(_)) {
                renewal.uncount_order(is_staging);
            }
            self.classify_error(error, is_renewal)
        });
        let order = placed?;
        if let (Some(lease), OrderPurpose::Serve) = (attempt.lease(), attempt.purpose) {
            let pending = PendingOrder::new(&attempt.ca.directory, &order, &key);
            lease.save_pending_order(Some(&pending.serialize())).await?;
        }
        Ok((order, key))
    }

    fn classify_error(&self, error: AcmeError, is_renewal: bool) -> AttemptError {
        let about_replaces = is_renewal && failure::is_replaces_rejected(&error);
        let no_account = failure::is_unknown_account(&error);
        let failure = failure::from_acme_error(error, self.http);
        match (about_replaces, no_account) {
            (true, _) => AttemptError::ReplacesRejected(failure),
            (_, true) => AttemptError::UnknownAccount(failure),
            _ => AttemptError::Failed(failure),
        }
    }

    /// Has the CA sign a new key, and verifies what it sends.
    async fn finalize(
        &self,
        mut order: Order,
        key: &KeyPair,
    ) -> Result<ObtainedCertificate, IssuanceFailure> {
        let Self { attempt, challenge, .. } = *self;
        let fail = |error| failure::from_acme_error(error, self.http);
        if !is_finalized(&mut order) {
            let csr =
                build_csr(&attempt.name, key).map_err(|error| failure::new_refused(error.to_string()))?;
            attempt.confirm_lease().await?;
            retry_bad_nonce!(order.finalize_csr(&csr)).map_err(fail)?;
        }
        let chain = retry_bad_nonce!(order.poll_certificate(&POLL_POLICY)).map_err(fail)?;
        let pem = format!("{}{chain}", key.serialize_pem());
        let root = attempt.acme.ca_root.as_deref();
        let certificate = verify::verify_bundle(&pem, &attempt.name, root, attempt.clock.now())
            .map_err(|error| failure::new_bad_answer(&error))?;
        Ok(ObtainedCertificate { pem, certificate, challenge })
    }
}

/// Returns the profile to request. A CA would silently ignore one that it does not have.
fn select_profile(attempt: &OrderAttempt, account: &Account) -> Result<Option<String>, IssuanceFailure> {
    let offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
    let wanted = match attempt.name.parse::<IpAddr>() {
        Ok(_) if offered.is_empty() => return Ok(None),
        Ok(_) if !offered.contains(&IP_PROFILE) => {
            let text = format!(
                "the CA has no profile `{IP_PROFILE}`, under which certificates for addresses are issued (it has {}); \
                 use a host name, or another CA (acme_directory)",
                offered.join(", ")
            );
            return Err(failure::new_refused(text));
        }
        Ok(_) => Some(IP_PROFILE.to_owned()),
        Err(_) => attempt.acme.profile.clone(),
    };
    if let Some(profile) = wanted.as_ref().filter(|profile| !offered.contains(&profile.as_str())) {
        let offered = offered.join(", ");
        tracing::warn!(profile, offered, "the CA has no such profile (acme_profile); its default is ordered");
        return Ok(None);
    }
    Ok(wanted)
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Returns whether the CA has a CSR for an order already, so that only its answer is missing.
fn is_finalized(order: &mut Order) -> bool {
    matches!(order.state().status, OrderStatus::Processing | OrderStatus::Valid)
}

/// Builds a CSR. There is no common name, because long names and addresses do not fit into one.
fn build_csr(name: &str, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}
