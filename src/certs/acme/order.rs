//! One attempt at one certificate with instant-acme: account, order, challenge, chain,
//! verification.
//!
//! Every order is recorded before it is placed, so that a crash leaves it counted. TLS-ALPN-01 is
//! tried first, or the type that succeeded last. A failed authorization cannot be reused, so the
//! other type needs a new order.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, CertificateIdentifier, Error as AcmeError, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;

use super::bad_nonce::patiently;
use super::http::AcmeHttpClient;
use super::order_attempt::{ObtainedCertificate, OrderAttempt, OrderError, OrderPurpose, challenge_name};
use super::{failure, verify};
use crate::certs::schedule::{ChallengeKind, FailureKind, IssuanceFailure, RenewalState, RenewalWindow};

/// The profile under which CAs issue for IP addresses.
const IP_PROFILE: &str = "shortlived";
/// How long a CA may take to validate a challenge, and to sign.
const POLL_POLICY: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(100))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

impl OrderAttempt {
    /// Orders a certificate. `replaces` is the current one.
    pub(super) async fn obtain(
        &self,
        memory: &mut RenewalState,
        replaces: Option<CertificateDer<'static>>,
    ) -> Result<ObtainedCertificate, IssuanceFailure> {
        if memory.unproved && self.purpose == OrderPurpose::Serve && self.ca.staging.is_some() {
            self.stage(memory).await?;
        }
        self.order_with_fallback(memory, replaces).await
    }

    /// Obtains a certificate at staging and discards it. Only a failed validation prevents the real
    /// order: a staging directory that does not work proves nothing.
    async fn stage(&self, memory: &mut RenewalState) -> Result<(), IssuanceFailure> {
        let proof = Self { ca: self.ca.to_staging(), purpose: OrderPurpose::Stage, ..self.clone() };
        match proof.order_with_fallback(memory, None).await {
            Ok(obtained) => memory.apply_staging_success(obtained.challenge),
            Err(failure) if failure.kind == FailureKind::Validation => return Err(failure),
            Err(failure) => {
                tracing::warn!(
                    name = self.name,
                    trouble = failure.message(),
                    "staging is of no help; ordering all the same"
                );
            }
        }
        self.persist_renewal_state(memory).await
    }

    /// Orders a certificate, trying one challenge type after the other.
    async fn order_with_fallback(
        &self,
        memory: &mut RenewalState,
        mut replaces: Option<CertificateDer<'static>>,
    ) -> Result<ObtainedCertificate, IssuanceFailure> {
        let http = self.new_http_client()?;
        let mut ways = self.challenge_preference(memory).into_iter().peekable();
        let (mut found, mut helps) = (Vec::new(), BTreeSet::new());
        let mut account_dropped = false;
        while let Some(&way) = ways.peek() {
            let outcome = match self.load_or_open_account(&http).await {
                Ok(account) => self.place_order(&http, &account, way, memory, replaces.as_ref()).await,
                Err(trouble) => Err(trouble),
            };
            match outcome {
                Ok(obtained) => return Ok(obtained),
                // The CA does not know the stored account: try once more with a new one.
                Err(OrderError::UnknownAccount(failure)) if !account_dropped => {
                    account_dropped = true;
                    let (ca, now) = (self.ca.directory.clone(), self.clock.now());
                    self.with_folder(move |store| store.set_account_aside(&ca, &failure.text, now)).await;
                }
                // Order again without naming the certificate to replace.
                Err(OrderError::ReplacesRejected(_)) if replaces.is_some() => replaces = None,
                Err(OrderError::Failed(failure)) if failure.kind == FailureKind::Validation => {
                    found.push(format!("{}: {}", challenge_name(way), failure.text));
                    helps.extend(failure.help);
                    ways.next();
                }
                Err(
                    OrderError::Failed(failure)
                    | OrderError::UnknownAccount(failure)
                    | OrderError::ReplacesRejected(failure),
                ) => {
                    return Err(failure);
                }
            }
            if !memory.is_order_allowed(self.clock.now()) {
                found.push("no more orders for now, so as not to use up the CA's limits".into());
                break;
            }
        }
        Err(self.validation_failure(&found, helps))
    }

    /// Requests the CA's suggested window (RFC 9773), and how long to wait before the next request.
    /// `None` if the CA has no renewal information.
    pub(super) async fn fetch_renewal_info(
        &self,
        held: CertificateDer<'static>,
    ) -> Result<Option<(RenewalWindow, SignedDuration)>, IssuanceFailure> {
        let http = self.new_http_client()?;
        let Ok(id) = CertificateIdentifier::try_from(&held) else { return Ok(None) };
        let account = self.load_or_open_account(&http).await.map_err(OrderError::into_failure)?;
        match patiently!(account.renewal_info(&id)) {
            Ok((info, again)) => {
                let moment = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MIN);
                let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                let window = RenewalWindow {
                    start: moment(start.unix_timestamp()),
                    end: moment(end.unix_timestamp()),
                };
                if let Some(why) = info.explanation_url {
                    tracing::info!(name = self.name, why, "the CA explains its renewal window");
                }
                Ok(Some((window, SignedDuration::try_from(again).unwrap_or(SignedDuration::MAX))))
            }
            Err(AcmeError::Unsupported(_) | AcmeError::Str(_)) => Ok(None),
            Err(error) => Err(failure::from_acme_error(error, &http)),
        }
    }

    async fn place_order(
        &self,
        http: &AcmeHttpClient,
        account: &Account,
        way: ChallengeKind,
        memory: &mut RenewalState,
        replaces: Option<&CertificateDer<'static>>,
    ) -> Result<ObtainedCertificate, OrderError> {
        let fail = |error| OrderError::from(failure::from_acme_error(error, http));
        let profile = self.select_profile(account)?;
        let staging = self.purpose == OrderPurpose::Stage;
        memory.count_order(staging, self.clock.now());
        self.persist_renewal_state(memory).await?;
        let identifiers = [self.identifier()];
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
            name = self.name,
            ca = self.ca.directory,
            way = challenge_name(way),
            is_renewal,
            "ordering a certificate"
        );
        let mut order = match patiently!(account.new_order(&wanted)) {
            Ok(order) => order,
            Err(error) => {
                // instant-acme reports this before it sends anything.
                if matches!(error, AcmeError::Unsupported(_)) {
                    memory.uncount_order(staging);
                }
                return Err(self.classify_order_error(error, http, is_renewal));
            }
        };
        let answering = self.respond_to_challenges(http, &mut order, way).await?;
        match patiently!(order.poll_ready(&POLL_POLICY)) {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
            Ok(_) => return Err(self.fetch_validation_errors(http, &mut order, None).await.into()),
            Err(error @ AcmeError::Api(_)) => {
                return Err(self.fetch_validation_errors(http, &mut order, Some(error)).await.into());
            }
            Err(error) => return Err(fail(error)),
        }
        // The authorizations are decided, so nothing asks for the responses any more.
        drop(answering);
        let (key, csr) = self.build_csr().map_err(|error| failure::new_refused(error.to_string()))?;
        patiently!(order.finalize_csr(&csr)).map_err(fail)?;
        let chain = patiently!(order.poll_certificate(&POLL_POLICY)).map_err(fail)?;
        let pem = format!("{key}{chain}");
        let roots: Option<PathBuf> = self.acme.ca_root.clone();
        let material = verify::verify_bundle(&pem, &self.name, roots.as_deref(), self.clock.now())
            .map_err(|error| failure::new_bad_answer(&error))?;
        Ok(ObtainedCertificate { pem, certificate: material, challenge: way })
    }

    fn classify_order_error(&self, error: AcmeError, http: &AcmeHttpClient, is_renewal: bool) -> OrderError {
        let about_replaces = is_renewal && failure::is_replaces_rejected(&error);
        let no_account = failure::is_unknown_account(&error);
        let failure = failure::from_acme_error(error, http);
        match (about_replaces, no_account) {
            (true, _) => OrderError::ReplacesRejected(failure),
            (_, true) => OrderError::UnknownAccount(failure),
            _ => OrderError::Failed(failure),
        }
    }

    /// Returns the profile to request. A CA would silently ignore one that it does not have.
    fn select_profile(&self, account: &Account) -> Result<Option<String>, IssuanceFailure> {
        let offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
        let wanted = match self.name.parse::<IpAddr>() {
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
            Err(_) => self.acme.profile.clone(),
        };
        if let Some(profile) = wanted.as_ref().filter(|profile| !offered.contains(&profile.as_str())) {
            let offered = offered.join(", ");
            tracing::warn!(
                profile,
                offered,
                "the CA has no such profile (acme_profile); its default is ordered"
            );
            return Ok(None);
        }
        Ok(wanted)
    }

    fn identifier(&self) -> Identifier {
        match self.name.parse() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns(self.name.clone()),
        }
    }

    /// Generates a key and a CSR. There is no common name, because long names and addresses do not
    /// fit into one.
    fn build_csr(&self) -> Result<(String, Vec<u8>), rcgen::Error> {
        let mut params = CertificateParams::new(vec![self.name.clone()])?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let csr = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), csr.der().to_vec()))
    }

    async fn persist_renewal_state(&self, memory: &RenewalState) -> Result<(), IssuanceFailure> {
        if self.purpose == OrderPurpose::DryRun {
            return Ok(());
        }
        let (name, memory) = (self.name.clone(), memory.clone());
        let written = self.with_folder(move |store| store.persist_renewal_state(&name, &memory)).await;
        written.map_err(|error| failure::new_refused(format!("no certificate is ordered, since {error}")))
    }
}
