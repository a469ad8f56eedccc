//! The requests that a client makes before it can call, in its order: through the public URL as the
//! client sends them, and beside that to the gateway's own listener. The first answer that differs
//! says what stands between.
//!
//! Nothing is granted: the sequence ends at the page that asks for consent.

mod clients;
mod differences;
mod exchange;
mod login;
mod protocol;
mod remedies;

use std::net::SocketAddr;

use http::{StatusCode, header};
use url::Url;

use self::clients::ClientProfile;
use self::differences::AnswerDifference;
use self::exchange::{Destination, HttpAnswer, Question};
use self::remedies::{Interference, ProxyPlace};
use super::super::args::ClientKind;
use super::names;
use super::patient::{Patient, PatientTenant};
use super::verdict::{DoctorVerdict, Examination};
use crate::base::secret::Secret;

const CLIENT: Examination = Examination::Client;

/// One client on its way to one tenant.
struct Sequence<'a> {
    client: ClientKind,
    profile: ClientProfile,
    tenant: &'a PatientTenant,
    connector: Url,
    key: Option<&'a Secret>,
    public: Destination,
    /// The gateway's own listener, if it can be asked.
    direct: Option<Destination>,
    verdicts: Vec<DoctorVerdict>,
    /// The steps whose answers were the same.
    agreed: Vec<&'static str>,
}

/// What became of a step. The sequence ends at the first fault.
enum Step {
    /// The answer, which is the gateway's own.
    Done(Box<HttpAnswer>),
    Ended,
}

/// How a difference weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Necessity {
    /// The client goes no further.
    Needed,
    /// The client has another way.
    Optional,
}

/// Repeats the client's requests.
pub(super) async fn examine(
    patient: &Patient,
    open: &[SocketAddr],
    client: ClientKind,
) -> Vec<DoctorVerdict> {
    let not_checked =
        |why: &str| vec![DoctorVerdict::not_checked(CLIENT, "sequence-not-run", client.title(), why)];
    let Some(tenant) = patient.tenant() else {
        return not_checked("its requests are for one tenant; name one: tenantd doctor TENANT");
    };
    let Some(connector) = tenant.connector.clone() else {
        return not_checked("the tenant has no connector URL, since its files are refused");
    };
    let Some(address) = open.first() else {
        return not_checked("no public address accepts connections");
    };
    let public = Destination {
        address: *address,
        is_tls: patient.is_https(),
        host: patient.host().to_owned(),
        authority: make_authority(&connector),
        is_direct: false,
    };
    let mut sequence = Sequence {
        client,
        profile: ClientProfile::find(client),
        tenant,
        connector,
        key: None,
        direct: None,
        public,
        verdicts: Vec::new(),
        agreed: Vec::new(),
    };
    sequence.take_key(patient).await;
    sequence.find_direct(patient).await;
    sequence.run().await;
    sequence.verdicts
}

/// Returns the value of the Host header for a URL.
fn make_authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

impl<'a> Sequence<'a> {
    /// Takes the key, unless it would go to somebody who did not prove who he is.
    async fn take_key(&mut self, patient: &'a Patient) {
        let Some(key) = &patient.key else { return };
        if names::is_own(self.public.address.ip()) || self.public.is_trusted().await {
            self.key = Some(key);
            return;
        }
        self.verdicts.push(DoctorVerdict::not_checked(
            CLIENT,
            "key-withheld",
            self.public.address.to_string(),
            "the key was not sent: the server there has no certificate that is trusted here",
        ));
    }
}

impl Sequence<'_> {
    /// Finds the gateway's own listener, and says what is missing without it.
    async fn find_direct(&mut self, patient: &Patient) {
        let direct = patient.direct_addresses();
        let Some(address) = direct.first().copied() else { return };
        let is_tls = patient.is_direct_tls();
        let target = Destination { address, is_tls, is_direct: true, ..self.public.clone() };
        match target.ask(&Question::get("/-/healthz")).await {
            Ok(answer) if answer.is_of_gateway() || answer.status == StatusCode::OK => {
                self.direct = Some(target)
            }
            Ok(_) | Err(_) => self.verdicts.push(DoctorVerdict::not_checked(
                CLIENT,
                "gateway-not-compared",
                address.to_string(),
                "the gateway's own listener does not answer from here, so the answers are judged alone",
            )),
        }
    }

    async fn run(&mut self) {
        let begun = self.verdicts.len();
        if self.go_all_the_way().await.is_none() || self.verdicts[begun..].iter().any(is_fault) {
            return;
        }
        let beside = match self.direct {
            Some(_) => "is answered as the gateway answers directly",
            None => "is answered as the gateway would",
        };
        let found = format!("each step of {} {beside}: {}", self.client.title(), self.agreed.join(", "));
        self.verdicts.push(DoctorVerdict::ok(CLIENT, "sequence-good", self.connector.as_str(), found));
    }

    /// Makes all steps; `None` if the sequence ended before its end.
    async fn go_all_the_way(&mut self) -> Option<()> {
        let first = self.ask_first().await?;
        if first.status == StatusCode::UNAUTHORIZED {
            if first.header(header::WWW_AUTHENTICATE).is_some_and(|it| it.contains("resource_metadata")) {
                self.log_in(&first).await?;
            }
            if self.key.is_none() {
                self.say_key_is_missing();
                return self.send_much().await;
            }
        }
        self.call().await?;
        self.send_much().await
    }

    fn say_key_is_missing(&mut self) {
        let hint = match ClientProfile::has_key_field(self.client) {
            true => "give a key or access token with --key-file",
            false => "give an access token with --key-file",
        };
        self.verdicts.push(DoctorVerdict::not_checked(
            CLIENT,
            "calls-not-checked",
            self.connector.as_str(),
            format!("initialize, tools/list and streams need a credential: {hint}"),
        ));
    }

    /// Asks both, and compares the answers. `is_expected` decides what the gateway itself may
    /// answer.
    async fn step(
        &mut self,
        name: &'static str,
        kind: differences::PathKind,
        question: &Question,
        weight: Necessity,
        is_expected: impl Fn(&HttpAnswer) -> bool,
    ) -> Step {
        let question = &question.clone().with_default_agent(self.profile.metadata_agent);
        let direct = match &self.direct {
            Some(direct) => direct.ask(question).await.ok(),
            None => None,
        };
        if let Some(direct) = direct.as_ref().filter(|direct| !is_expected(direct)) {
            self.say_gateway_refuses(name, question, direct);
            return Step::Ended;
        }
        let public = self.public.ask(question).await;
        match differences::find(kind, direct.as_ref(), &public, is_expected) {
            None => {
                self.agreed.push(name);
                match direct.or(public.ok()) {
                    Some(answer) => Step::Done(Box::new(answer)),
                    None => Step::Ended,
                }
            }
            Some(difference) => {
                self.say_difference(name, question, &difference, public.ok().as_ref(), weight);
                match (weight, direct) {
                    (Necessity::Optional, Some(direct)) => Step::Done(Box::new(direct)),
                    _ => Step::Ended,
                }
            }
        }
    }

    /// The gateway's own answer is not what the client needs: no proxy is to blame.
    fn say_gateway_refuses(&mut self, name: &str, question: &Question, direct: &HttpAnswer) {
        let detail = direct.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let advice = match direct.status {
            StatusCode::NOT_FOUND => {
                "compare the path and the tenant's state (above): the URL ends in /mcp, and case matters"
            }
            StatusCode::MISDIRECTED_REQUEST => "add the name of the URL to --host (or extra_host)",
            StatusCode::FORBIDDEN => {
                "an open tenant answers private networks only: give it keys or a login, or `public: true`"
            }
            StatusCode::UNAUTHORIZED => "the key or token is wrong, expired, or of another tenant",
            StatusCode::SERVICE_UNAVAILABLE => "see the tenant's state above",
            StatusCode::TOO_MANY_REQUESTS => "wait a minute, and run the doctor again",
            _ => "see the gateway's log at this moment",
        };
        self.verdicts.push(
            DoctorVerdict::fault(
                CLIENT,
                "gateway-refuses",
                self.place(question),
                format!("step \"{name}\": the gateway itself answers {}{detail}", direct.describe()),
            )
            .meaning(format!("{} goes no further", self.client.title()))
            .advice(advice),
        );
    }

    fn say_difference(
        &mut self,
        name: &str,
        question: &Question,
        difference: &AnswerDifference,
        public: Option<&HttpAnswer>,
        weight: Necessity,
    ) {
        let AnswerDifference { interference, found } = difference;
        let found = format!("step \"{name}\": {found}");
        let place = self.place(question);
        let verdict = match weight {
            Necessity::Needed => DoctorVerdict::fault(CLIENT, interference.code(), place, found)
                .meaning(format!("{} goes no further: {}", self.client.title(), interference.meaning())),
            Necessity::Optional => {
                DoctorVerdict::warning(CLIENT, interference.code(), place, found).meaning(format!(
                    "{} goes on another way, but others do not: {}",
                    self.client.title(),
                    interference.meaning()
                ))
            }
        };
        let changes = self.changes(*interference, public);
        self.verdicts.push(verdict.advice(interference.advice()).changes(changes));
    }

    fn changes(
        &self,
        interference: Interference,
        public: Option<&HttpAnswer>,
    ) -> Vec<super::verdict::ProxyChange> {
        let upstream = match &self.direct {
            Some(direct) if direct.is_tls => format!("https://{}", direct.address),
            Some(direct) => format!("http://{}", direct.address),
            None => "http://the-gateway:8000".to_owned(),
        };
        interference.changes(&ProxyPlace {
            prefix: self.tenant.prefix(),
            host: &self.public.host,
            upstream: &upstream,
            server: public.and_then(|answer| answer.header(header::SERVER)),
        })
    }

    /// Returns the public URL of a question, without its query.
    fn place(&self, question: &Question) -> String {
        let path = question.path.split('?').next().unwrap_or_default();
        format!("{} {}{path}", question.method, self.connector.origin().ascii_serialization())
    }
}

fn is_fault(verdict: &DoctorVerdict) -> bool {
    verdict.outcome == super::verdict::VerdictOutcome::Fault
}
