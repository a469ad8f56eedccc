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

use super::attempt::{Attempt, Obtained, Purpose, Trouble, word};
use super::http::Http;
use super::patience::patiently;
use super::{fault, verify};
use crate::certs::schedule::{Challenge, Failure, Fault, Memory, Window};

/// The profile under which CAs issue for IP addresses.
const FOR_ADDRESSES: &str = "shortlived";
/// How long a CA may take to validate a challenge, and to sign.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(100))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

impl Attempt {
    /// Orders a certificate. `replaces` is the current one.
    pub(super) async fn obtain(
        &self,
        memory: &mut Memory,
        replaces: Option<CertificateDer<'static>>,
    ) -> Result<Obtained, Failure> {
        if memory.unproved && self.purpose == Purpose::Serve && self.ca.staging.is_some() {
            self.prove(memory).await?;
        }
        self.convince(memory, replaces).await
    }

    /// Obtains a certificate at staging and discards it. Only a failed validation prevents the real
    /// order: a staging directory that does not work proves nothing.
    async fn prove(&self, memory: &mut Memory) -> Result<(), Failure> {
        let proof = Self { ca: self.ca.rehearsal(), purpose: Purpose::Prove, ..self.clone() };
        match proof.convince(memory, None).await {
            Ok(obtained) => memory.proved(obtained.challenge),
            Err(failure) if failure.fault == Fault::Validation => return Err(failure),
            Err(failure) => {
                tracing::warn!(
                    name = self.name,
                    trouble = failure.said(),
                    "staging is of no help; ordering all the same"
                );
            }
        }
        self.write_down(memory).await
    }

    /// Orders a certificate, trying one challenge type after the other.
    async fn convince(
        &self,
        memory: &mut Memory,
        mut replaces: Option<CertificateDer<'static>>,
    ) -> Result<Obtained, Failure> {
        let http = self.http()?;
        let mut ways = self.ways(memory).into_iter().peekable();
        let (mut found, mut helps) = (Vec::new(), BTreeSet::new());
        let mut account_dropped = false;
        while let Some(&way) = ways.peek() {
            let outcome = match self.account(&http).await {
                Ok(account) => self.order(&http, &account, way, memory, replaces.as_ref()).await,
                Err(trouble) => Err(trouble),
            };
            match outcome {
                Ok(obtained) => return Ok(obtained),
                // The CA does not know the stored account: try once more with a new one.
                Err(Trouble::NoAccount(failure)) if !account_dropped => {
                    account_dropped = true;
                    let (ca, now) = (self.ca.directory.clone(), self.clock.now());
                    self.on_disk(move |store| store.drop_account(&ca, &failure.text, now)).await;
                }
                // Order again without naming the certificate to replace.
                Err(Trouble::Replaces(_)) if replaces.is_some() => replaces = None,
                Err(Trouble::Failed(failure)) if failure.fault == Fault::Validation => {
                    found.push(format!("{}: {}", word(way), failure.text));
                    helps.extend(failure.help);
                    ways.next();
                }
                Err(Trouble::Failed(failure) | Trouble::NoAccount(failure) | Trouble::Replaces(failure)) => {
                    return Err(failure);
                }
            }
            if !memory.may_order(self.clock.now()) {
                found.push("no more orders for now, so as not to use up the CA's limits".into());
                break;
            }
        }
        Err(self.not_validated(&found, helps))
    }

    /// Requests the CA's suggested window (RFC 9773), and how long to wait before the next request.
    /// `None` if the CA has no renewal information.
    pub(super) async fn window(
        &self,
        held: CertificateDer<'static>,
    ) -> Result<Option<(Window, SignedDuration)>, Failure> {
        let http = self.http()?;
        let Ok(id) = CertificateIdentifier::try_from(&held) else { return Ok(None) };
        let account = self.account(&http).await.map_err(Trouble::into_failure)?;
        match patiently!(account.renewal_info(&id)) {
            Ok((info, again)) => {
                let moment = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MIN);
                let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                let window =
                    Window { start: moment(start.unix_timestamp()), end: moment(end.unix_timestamp()) };
                if let Some(why) = info.explanation_url {
                    tracing::info!(name = self.name, why, "the CA explains its renewal window");
                }
                Ok(Some((window, SignedDuration::try_from(again).unwrap_or(SignedDuration::MAX))))
            }
            Err(AcmeError::Unsupported(_) | AcmeError::Str(_)) => Ok(None),
            Err(error) => Err(fault::of(error, &http)),
        }
    }

    async fn order(
        &self,
        http: &Http,
        account: &Account,
        way: Challenge,
        memory: &mut Memory,
        replaces: Option<&CertificateDer<'static>>,
    ) -> Result<Obtained, Trouble> {
        let fail = |error| Trouble::from(fault::of(error, http));
        let profile = self.profile(account)?;
        let staging = self.purpose == Purpose::Prove;
        memory.ordering(staging, self.clock.now());
        self.write_down(memory).await?;
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
            way = word(way),
            is_renewal,
            "ordering a certificate"
        );
        let mut order = match patiently!(account.new_order(&wanted)) {
            Ok(order) => order,
            Err(error) => {
                // instant-acme reports this before it sends anything.
                if matches!(error, AcmeError::Unsupported(_)) {
                    memory.not_placed(staging);
                }
                return Err(self.refused_order(error, http, is_renewal));
            }
        };
        let answering = self.answer(http, &mut order, way).await?;
        match patiently!(order.poll_ready(&POLL)) {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
            Ok(_) => return Err(self.reasons(http, &mut order, None).await.into()),
            Err(error @ AcmeError::Api(_)) => {
                return Err(self.reasons(http, &mut order, Some(error)).await.into());
            }
            Err(error) => return Err(fail(error)),
        }
        // The authorizations are decided, so nothing asks for the responses any more.
        drop(answering);
        let (key, csr) = self.request().map_err(|error| fault::refused(error.to_string()))?;
        patiently!(order.finalize_csr(&csr)).map_err(fail)?;
        let chain = patiently!(order.poll_certificate(&POLL)).map_err(fail)?;
        let pem = format!("{key}{chain}");
        let roots: Option<PathBuf> = self.acme.ca_root.clone();
        let material = verify::verify(&pem, &self.name, roots.as_deref(), self.clock.now())
            .map_err(|error| fault::bad_answer(&error))?;
        Ok(Obtained { pem, material, challenge: way })
    }

    fn refused_order(&self, error: AcmeError, http: &Http, is_renewal: bool) -> Trouble {
        let about_replaces = is_renewal && fault::is_about_replaces(&error);
        let no_account = fault::is_unknown_account(&error);
        let failure = fault::of(error, http);
        match (about_replaces, no_account) {
            (true, _) => Trouble::Replaces(failure),
            (_, true) => Trouble::NoAccount(failure),
            _ => Trouble::Failed(failure),
        }
    }

    /// Returns the profile to request. A CA would silently ignore one that it does not have.
    fn profile(&self, account: &Account) -> Result<Option<String>, Failure> {
        let offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
        let wanted = match self.name.parse::<IpAddr>() {
            Ok(_) if offered.is_empty() => return Ok(None),
            Ok(_) if !offered.contains(&FOR_ADDRESSES) => {
                let text = format!(
                    "the CA has no profile `{FOR_ADDRESSES}`, under which certificates for addresses are issued (it has {}); \
                     use a host name, or another CA (acme_directory)",
                    offered.join(", ")
                );
                return Err(fault::refused(text));
            }
            Ok(_) => Some(FOR_ADDRESSES.to_owned()),
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
    fn request(&self) -> Result<(String, Vec<u8>), rcgen::Error> {
        let mut params = CertificateParams::new(vec![self.name.clone()])?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let csr = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), csr.der().to_vec()))
    }

    async fn write_down(&self, memory: &Memory) -> Result<(), Failure> {
        if self.purpose == Purpose::Show {
            return Ok(());
        }
        let (name, memory) = (self.name.clone(), memory.clone());
        let written = self.on_disk(move |store| store.keep_memory(&name, &memory)).await;
        written.map_err(|error| fault::refused(format!("no certificate is ordered, since {error}")))
    }
}
