//! `--tls acme`: certificates that a public (or private) authority issues, one per name, by themselves.
//!
//! One task owns everything here: which names are wanted, what is held for each, what is remembered of each. Orders run
//! beside it, a few at once, and report back. A certificate is verified, then written down, then served. What is served
//! stays until something better is there: nothing a CA, a disk or a clock does takes a certificate away.

mod eab;
mod fault;
mod http;
mod order;
mod status;
mod store;
mod verify;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

use self::order::{Attempt, Obtained};
use self::store::{Loaded, Store, Unusable};
use super::challenges::Challenges;
use super::local_ca::LocalCa;
use super::material::Material;
use super::schedule::{self, Failure, Fault, Held, Memory, Next, State, Step, Window};
use super::table::Table;
use super::{Error, Status};
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;
use crate::settings;
use crate::spec::HostName;
use crate::telemetry::metrics::Metrics;

/// Orders under way at once.
const AT_ONCE: usize = 4;
/// One attempt, both ways to prove a name included.
const ATTEMPT: Duration = Duration::from_secs(300);
/// The wall clock may jump, so nobody sleeps longer than this.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_secs(30);
/// How often the log repeats that a certificate nears its end or is past it.
const REMIND_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// A certificate for what is not obtained yet has room for so many names.
const BOOTSTRAP_NAMES: usize = 100;
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Authorities that issue for public names and addresses only.
const PUBLIC_CAS: [&str; 5] = ["letsencrypt.org", "zerossl.com", "pki.goog", "buypass.com", "ssl.com"];

/// Takes how an order that somebody asked for ended: why it failed, for people.
pub(super) type Reply = oneshot::Sender<Result<(), String>>;

/// What the mode works with.
pub(super) struct Parts {
    pub(super) settings: Arc<settings::Acme>,
    pub(super) folder: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    /// Whether anything of ours listens for HTTP-01.
    pub(super) http01: bool,
}

/// The mode's state.
pub(super) struct Acme {
    parts: Parts,
    store: Arc<Store>,
    /// What keeps the folder from being written.
    unwritable: Option<String>,
    /// In the order wanted, the first being the default.
    wanted: Vec<String>,
    sets: BTreeMap<String, Set>,
    bootstrap: Option<Arc<Material>>,
    /// Who is to be told how an order ended, once what it brought is served.
    told: Vec<(Reply, Result<(), String>)>,
    reports: mpsc::Sender<Report>,
}

/// One certificate: what is held, what is remembered, what is under way.
#[derive(Default)]
struct Set {
    held: Option<Arc<Material>>,
    memory: Memory,
    busy: Option<Step>,
    reminded: Option<Timestamp>,
    /// An operator wants it renewed after what is under way.
    wanted_anew: bool,
    /// Those who want to be told how the order under way ends.
    waiting: Vec<Reply>,
}

/// How a job ended.
pub(super) struct Report {
    name: String,
    memory: Memory,
    outcome: Outcome,
}

enum Outcome {
    Ordered(Result<Box<Obtained>, Failure>),
    Asked(Result<Option<(Window, SignedDuration)>, Failure>),
}

/// What an operator asks for.
#[derive(Debug)]
pub(super) struct Renew {
    pub(super) name: String,
    /// Only to see whether it would work: with the CA's staging directory where it has one, and nothing kept.
    pub(super) rehearsal: bool,
    pub(super) reply: Reply,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Acme {
    /// Takes the folder. Errors when another process has it; a folder that cannot be written is served from all the same.
    pub(super) fn open(parts: Parts) -> Result<(Self, mpsc::Receiver<Report>), Error> {
        let (store, unwritable) = match Store::open(&parts.folder) {
            Ok(store) => (store, None),
            Err(held @ Unusable::Held(_)) => return Err(Error(held.to_string())),
            Err(error) => (Store::read_only(&parts.folder), Some(error.to_string())),
        };
        if let Some(why) = &unwritable {
            tracing::error!(folder = %parts.folder.display(), "{why}");
        }
        let (reports, inbox) = mpsc::channel(AT_ONCE);
        let acme = Self {
            parts,
            store: Arc::new(store),
            unwritable,
            wanted: Vec::new(),
            sets: BTreeMap::new(),
            bootstrap: None,
            told: Vec::new(),
            reports,
        };
        Ok((acme, inbox))
    }

    /// Takes over which names are wanted, and loads what lies in the folder for new ones. Blocks on the disk.
    pub(super) fn want(&mut self, hosts: &[HostName]) {
        let now = self.now();
        let bare = |host: &HostName| host.as_str().trim_matches(['[', ']']).to_owned();
        self.wanted = hosts.iter().map(bare).collect();
        let ours: Vec<String> = self.wanted.iter().filter(|name| self.is_obtainable(name)).cloned().collect();
        for gone in self.sets.keys().filter(|name| !ours.contains(name)) {
            tracing::info!(name = gone, "a certificate is no longer wanted; it is not renewed any more");
            self.parts.metrics.forget_certificate(gone);
        }
        self.sets.retain(|name, _| ours.contains(name));
        for name in ours {
            if !self.sets.contains_key(&name) {
                let set = self.load(&name, now);
                self.sets.insert(name, set);
            }
        }
        self.bootstrap = None;
    }

    fn load(&self, name: &str, now: Timestamp) -> Set {
        let Loaded { material, mut memory, exposed } = self.store.load(name, now);
        memory.mend(now, self.parts.settings.cas.len());
        if let Some(material) = &material {
            tracing::info!(name, until = %material.not_after, "serving a certificate from the certs folder");
            if exposed {
                tracing::error!(
                    name,
                    "others on this machine could read the key of this certificate; it is closed to them now, and a \
                     certificate with a new key is ordered"
                );
                memory.renew_now(now);
            }
        }
        Set { held: material, memory, ..Set::default() }
    }

    /// Whether the CAs that are asked would issue for a name.
    fn is_obtainable(&self, name: &str) -> bool {
        let public = self.parts.settings.cas.iter().all(|ca| is_public_ca(&ca.directory));
        match name.parse::<IpAddr>() {
            Ok(address) => !address.is_unspecified() && (!public || is_global(address)),
            Err(_) => {
                let private = [".localhost", ".local", ".internal", ".lan", ".test", ".home.arpa"];
                let is_private = public && private.iter().any(|end| name.ends_with(end));
                name.contains('.') && !name.contains('_') && !is_private
            }
        }
    }

    /// What is served now: what is held, and a certificate nobody trusts for the rest. Makes a key if it must.
    pub(super) fn table(&mut self) -> Result<Table, Error> {
        let held = self.wanted.iter().filter_map(|name| self.sets.get(name)?.held.clone());
        let (addresses, names): (Vec<_>, Vec<_>) =
            held.partition(|material| material.names.iter().any(|name| name.parse::<IpAddr>().is_ok()));
        // Clients that connect by address send no SNI, and get the first.
        let mut served: Vec<_> = addresses.into_iter().chain(names).collect();
        let without: Vec<String> = self.wanted.iter().filter(|name| !self.holds(name)).cloned().collect();
        if !without.is_empty() || served.is_empty() {
            served.push(self.bootstrap(&without)?);
        }
        Ok(Table::new(served))
    }

    fn holds(&self, name: &str) -> bool {
        self.sets.get(name).is_some_and(|set| set.held.is_some())
    }

    fn bootstrap(&mut self, names: &[String]) -> Result<Arc<Material>, Error> {
        if let Some(made) = &self.bootstrap {
            return Ok(made.clone());
        }
        let now = self.now();
        let mut names: Vec<String> = names.iter().take(BOOTSTRAP_NAMES).cloned().collect();
        names.extend(LOOPBACK.map(str::to_owned));
        names.sort();
        names.dedup();
        let pem = LocalCa::make(now)?.issue(&names, now)?;
        let made = Arc::new(Material::from_pem(pem.as_bytes())?);
        self.bootstrap = Some(made.clone());
        Ok(made)
    }

    /// Starts what is due. Says until when there is nothing to do.
    pub(super) fn start_due(&mut self) -> Timestamp {
        let now = self.now();
        let mut wake = now + LONGEST_SLEEP;
        self.try_folder_again();
        self.remind(now);
        let mut free = AT_ONCE.saturating_sub(self.sets.values().filter(|set| set.busy.is_some()).count());
        let mut due: Vec<(Timestamp, String, Step)> = Vec::new();
        for (name, set) in self.sets.iter_mut().filter(|(_, set)| set.busy.is_none()) {
            set.memory.mend(now, self.parts.settings.cas.len());
            let Next { step, at } = schedule::next(set.span(), &set.memory, now);
            if at <= now {
                due.push((at, name.clone(), step));
            } else {
                wake = wake.min(at);
            }
        }
        if self.unwritable.is_some() {
            return wake;
        }
        due.sort_by_key(|(at, ..)| *at);
        for (_, name, step) in due {
            if free == 0 {
                break;
            }
            free -= 1;
            self.start(name, step);
        }
        wake
    }

    fn start(&mut self, name: String, step: Step) {
        let Some(set) = self.sets.get(&name) else { return };
        let Some(ca) = self.parts.settings.cas.get(set.memory.ca).cloned() else { return };
        let attempt = self.attempt(name.clone(), ca);
        let Some(set) = self.sets.get_mut(&name) else { return };
        set.busy = Some(step);
        let held = set.held.as_ref().and_then(|held| held.key.cert.first().cloned());
        let (mut memory, reports) = (set.memory.clone(), self.reports.clone());
        let soft = self.parts.tasks.soft().clone();
        self.parts.tasks.spawn("certificate order", async move {
            let work = async {
                match (step, held) {
                    (Step::AskWindow, Some(held)) => Outcome::Asked(ask(&attempt, held).await),
                    (_, held) => Outcome::Ordered(obtain(&attempt, &mut memory, held).await),
                }
            };
            // An order that is broken off by the end of the process stays counted.
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = soft.cancelled() => return,
            };
            // Nobody listens any more only at the end of the process.
            _ = reports.send(Report { name: attempt.name, memory, outcome }).await;
        });
    }

    /// Takes over how a job ended. Says whether there is something new to serve. Blocks on the disk.
    pub(super) fn finished(&mut self, report: Report) -> bool {
        let now = self.now();
        let cas = self.parts.settings.cas.len();
        let Report { name, memory, outcome } = report;
        let Some(set) = self.sets.get_mut(&name) else { return false };
        set.busy = None;
        set.memory = memory;
        let wanted_anew = std::mem::take(&mut set.wanted_anew);
        let mut changed = false;
        match outcome {
            Outcome::Ordered(Ok(obtained)) => {
                changed = true;
                self.parts.metrics.certificate_order("ok");
                set.install(&name, *obtained, now);
                self.told.extend(set.waiting.drain(..).map(|waiting| (waiting, Ok(()))));
                self.bootstrap = None;
            }
            Outcome::Ordered(Err(failure)) => {
                self.parts.metrics.certificate_order(word(failure.fault));
                self.told.extend(set.waiting.drain(..).map(|waiting| (waiting, Err(failure.text.clone()))));
                set.fail(&name, failure, cas, now);
            }
            Outcome::Asked(answer) => {
                set.told(&name, answer, now);
                if wanted_anew {
                    set.memory.renew_now(now);
                }
            }
        }
        if let Some(set) = self.sets.get(&name)
            && let Err(error) = self.store.keep_memory(&name, &set.memory)
        {
            tracing::error!(name, %error, "what is known of a certificate cannot be kept");
        }
        changed
    }

    /// Tells those who waited how their order ended.
    pub(super) fn tell(&mut self) {
        for (waiting, outcome) in self.told.drain(..) {
            // Whoever asked may have gone.
            _ = waiting.send(outcome);
        }
    }

    /// An operator wants a certificate renewed now.
    pub(super) fn renew(&mut self, Renew { name, rehearsal, reply }: Renew) {
        let now = self.now();
        if rehearsal && self.unwritable.is_none() && self.sets.contains_key(&name) {
            return self.rehearse(name, reply);
        }
        let refusal = match (self.sets.get_mut(&name), &self.unwritable) {
            (None, _) => {
                format!("no certificate is obtained for {name}; `tenantd certs list` names them all")
            }
            (_, Some(why)) => why.clone(),
            (Some(set), None) if !set.memory.may_order(now) => {
                format!("too many orders for {name} came to nothing; the next is at {}", set.next(now).at)
            }
            (Some(set), None) => {
                set.memory.renew_now(now);
                set.wanted_anew = set.busy.is_some();
                return set.waiting.push(reply);
            }
        };
        // Whoever asked may have gone.
        _ = reply.send(Err(refusal));
    }

    fn rehearse(&self, name: String, reply: Reply) {
        let Some(ca) = self.parts.settings.cas.first() else { return };
        let ca = settings::Ca { directory: ca.rehearsal_directory(), eab: ca.eab.clone() };
        let mut attempt = self.attempt(name, ca);
        attempt.rehearsal = true;
        self.parts.tasks.spawn("certificate rehearsal", async move {
            let mut memory = Memory::default();
            let obtained = tokio::time::timeout(ATTEMPT, attempt.obtain(&mut memory, None)).await;
            let outcome = match obtained {
                Ok(obtained) => obtained.map(drop).map_err(|failure| failure.text),
                Err(_) => Err("the CA was not done in time".to_owned()),
            };
            // Whoever asked may have gone.
            _ = reply.send(outcome);
        });
    }

    fn attempt(&self, name: String, ca: settings::Ca) -> Attempt {
        Attempt {
            name,
            ca,
            acme: self.parts.settings.clone(),
            store: self.store.clone(),
            challenges: self.parts.challenges.clone(),
            clock: self.parts.clock.clone(),
            http01: self.parts.http01,
            rehearsal: false,
        }
    }

    fn try_folder_again(&mut self) {
        if self.unwritable.is_none() {
            return;
        }
        match Store::open(&self.parts.folder) {
            Ok(store) => {
                tracing::info!(folder = %self.parts.folder.display(), "the certs folder can be written again");
                (self.store, self.unwritable) = (Arc::new(store), None);
            }
            Err(error) => self.unwritable = Some(error.to_string()),
        }
    }

    /// Says every hour what is over or nearly so. It is served all the same.
    fn remind(&mut self, now: Timestamp) {
        for (name, set) in &mut self.sets {
            let state = set.state(now);
            let loud = matches!(state, State::Degraded | State::Expired | State::Refused);
            if !loud || set.reminded.is_some_and(|last| now < last + REMIND_EVERY) {
                continue;
            }
            set.reminded = Some(now);
            let until = set.held.as_ref().map(|held| held.not_after.to_string());
            let trouble = set.memory.last_failure.as_ref().map_or("none yet", |failed| failed.text.as_str());
            tracing::error!(
                name,
                until,
                trouble,
                "certificate {}; `tenantd certs doctor` says more",
                said(state)
            );
        }
    }

    /// How every certificate stands, and the same for the metrics.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let now = self.now();
        let names = self.wanted.iter().filter(|name| self.sets.contains_key(*name));
        let statuses: Vec<Status> = names.map(|name| status::of(name, &self.sets[name], self, now)).collect();
        for status in &statuses {
            let until = status.not_after.map_or(0, Timestamp::as_second);
            self.parts.metrics.certificate(&status.name, until, status.failures);
        }
        statuses
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

impl Set {
    fn span(&self) -> Option<Held> {
        self.held.as_ref().map(|held| Held { from: held.not_before, until: held.not_after })
    }

    fn next(&self, now: Timestamp) -> Next {
        schedule::next(self.span(), &self.memory, now)
    }

    fn state(&self, now: Timestamp) -> State {
        schedule::state(self.span(), &self.memory, self.busy == Some(Step::Order), now)
    }

    fn install(&mut self, name: &str, obtained: Obtained, now: Timestamp) {
        let material = obtained.material;
        let held = Held { from: material.not_before, until: material.not_after };
        self.memory.succeeded(held, obtained.challenge, now, chance());
        tracing::info!(
            name, serial = material.serial, until = %material.not_after, issuer = material.issuer,
            way = order::word(obtained.challenge), "a new certificate is served"
        );
        self.held = Some(Arc::new(material));
        self.reminded = None;
    }

    fn fail(&mut self, name: &str, failure: Failure, cas: usize, now: Timestamp) {
        let (text, span) = (failure.text.clone(), self.span());
        self.memory.failed(failure, span, cas, now, chance());
        let served = if self.held.is_some() { "the one that is held" } else { "one that nobody trusts" };
        let next = self.next(now).at;
        tracing::warn!(name, trouble = text, served, %next, "no certificate was obtained");
    }

    fn told(
        &mut self,
        name: &str,
        answer: Result<Option<(Window, SignedDuration)>, Failure>,
        now: Timestamp,
    ) {
        let Some(span) = self.span() else { return };
        let (window, again) = match answer {
            Ok(Some((window, again))) => (Some(window), again),
            Ok(None) => (None, SignedDuration::MAX),
            // Its last word stands, and failing to hear more is no failure of the certificate.
            Err(failure) => {
                tracing::debug!(name, trouble = failure.text, "the CA did not say when to renew");
                (self.memory.window, SignedDuration::from_mins(10))
            }
        };
        self.memory.told(span, window, again, now, chance());
    }
}

/// Obtains a certificate and writes it down.
async fn obtain(
    attempt: &Attempt,
    memory: &mut Memory,
    held: Option<rustls_pki_types::CertificateDer<'static>>,
) -> Result<Box<Obtained>, Failure> {
    let late = || Failure {
        fault: Fault::Unreachable,
        text: format!("the CA was not done within {} minutes", ATTEMPT.as_secs() / 60),
        retry_after: None,
    };
    let obtained =
        tokio::time::timeout(ATTEMPT, attempt.obtain(memory, held)).await.unwrap_or_else(|_| Err(late()))?;
    let (name, pem) = (attempt.name.clone(), obtained.pem.clone());
    let kept = attempt.on_disk(move |store| store.keep_bundle(&name, &pem)).await;
    kept.map_err(|error| fault::refused(format!("a certificate was issued but not kept, since {error}")))?;
    Ok(Box::new(obtained))
}

async fn ask(
    attempt: &Attempt,
    held: rustls_pki_types::CertificateDer<'static>,
) -> Result<Option<(Window, SignedDuration)>, Failure> {
    attempt.window(held).await
}

/// Whether the folder can be written, or is in use by a gateway that can.
pub(super) fn look_at_folder(folder: &std::path::Path) -> Result<(), String> {
    match Store::open(folder) {
        Ok(_) | Err(Unusable::Held(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the key of an external account can be read.
pub(super) fn look_at_eab(eab: &settings::Eab) -> Result<String, String> {
    let read = eab::read(eab).map_err(|error| error.to_string())?;
    Ok(format!("the key of {} can be read", read.kid))
}

/// Whether a CA answers, and whether our clocks agree.
pub(super) async fn look_at_ca(acme: &settings::Acme, ca: &settings::Ca) -> Result<String, String> {
    let http = http::Http::new(acme.ca_root.as_deref()).map_err(|error| error.to_string())?;
    http.look_at(&ca.directory).await
}

/// At least 0 and below 1.
fn chance() -> f64 {
    f64::from(u32::from_be_bytes(random::bytes::<4>())) / (f64::from(u32::MAX) + 1.0)
}

fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreachable => "unreachable",
        Fault::Validation => "validation",
        Fault::RateLimited => "rate_limited",
        Fault::Refused => "refused",
        Fault::BadAnswer => "bad_answer",
    }
}

fn said(state: State) -> &'static str {
    match state {
        State::Expired => "has expired; it is served, and clients refuse it",
        State::Refused => "cannot be obtained",
        _ => "is in the last twentieth of its life and could not be renewed yet",
    }
}

fn is_public_ca(directory: &str) -> bool {
    let url = url::Url::parse(directory).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    PUBLIC_CAS.iter().any(|ca| host == *ca || host.strip_suffix(ca).is_some_and(|sub| sub.ends_with('.')))
}

/// Whether the whole internet can reach an address.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a == 0 || a >= 240 || (a == 198 && (b == 18 || b == 19));
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation())
                && !(ip.is_multicast() || shared || reserved)
        }
        // 2000::/3 is what is given out, and 2001:db8::/32 is for documents.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_some_can_reach_are_not_global() {
        let global = |text: &str| is_global(text.parse().expect("an address"));
        for good in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(global(good), "{good}");
        }
        for bad in [
            "10.0.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!global(bad), "{bad}");
        }
    }

    #[test]
    fn a_public_ca_is_known_by_its_domain() {
        assert!(is_public_ca("https://acme-v02.api.letsencrypt.org/directory"));
        assert!(!is_public_ca("https://evilletsencrypt.org/directory"));
        assert!(!is_public_ca("https://localhost:14000/dir"));
    }

    #[test]
    fn chance_stays_in_its_bounds() {
        assert!((0..1000).map(|_| chance()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
