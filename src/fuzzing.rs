//! Fuzz targets: functions over bytes that panic if the code breaks a promise.
//!
//! They exist only in builds with the feature `fuzzing`, so none of this ships. `fuzz/` runs the
//! targets in libFuzzer under a counting allocator; an ordinary test below runs them over the seeds
//! in `fuzz/corpus/`. Where possible, the oracle is a second reading of the same bytes (by the URL
//! standard, or of a snapshot), which finds more than panics.

mod json;

use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::base::body::{self, Body};
use crate::bundle::{self, LoadOutcome, Snapshot, sample};
use crate::mcp::protocol::message as mcp;
use crate::oauth::client::RedirectUri;
use crate::oauth::parameters::Parameters;
use crate::routing::{Endpoint, Router, check_path};
use crate::server::{forwarded as hops, precheck as server};
use crate::spec::{HostName, Mount, Prefix};

/// The verdict on an input. A corpus has inputs of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FuzzOutcome {
    /// The input is accepted.
    Accepted,
    /// The input is rejected.
    Rejected,
}

/// A fuzz target.
#[derive(Debug)]
pub struct FuzzTarget {
    /// The name of its binary and of its folder in `fuzz/corpus/`.
    pub name: &'static str,
    /// Checks an input, and panics if a promise is broken.
    pub check: fn(&[u8]) -> FuzzOutcome,
    /// The maximum of bytes allocated at once while an input is checked.
    pub most_bytes: usize,
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "archive", check: archive, most_bytes: 64 << 20 },
    FuzzTarget { name: "yaml", check: yaml, most_bytes: 64 << 20 },
    FuzzTarget { name: "dotenv", check: dotenv, most_bytes: 64 << 20 },
    FuzzTarget { name: "request", check: request, most_bytes: 4 << 20 },
    FuzzTarget { name: "jsonrpc", check: jsonrpc, most_bytes: 16 << 20 },
    FuzzTarget { name: "json", check: json::json, most_bytes: 1 << 20 },
    FuzzTarget { name: "parameters", check: parameters, most_bytes: 4 << 20 },
    FuzzTarget { name: "forwarded", check: forwarded, most_bytes: 1 << 20 },
    FuzzTarget { name: "redirect_uri", check: redirect_uri, most_bytes: 1 << 20 },
];

/// Returns the target of this name.
pub fn target(name: &str) -> Option<&'static FuzzTarget> {
    TARGETS.iter().find(|target| target.name == name)
}

impl FuzzOutcome {
    fn taken_if(taken: bool) -> Self {
        if taken { Self::Accepted } else { Self::Rejected }
    }
}

/// An export, as `acme.zip` alone.
fn archive(bytes: &[u8]) -> FuzzOutcome {
    FuzzOutcome::taken_if(load_checked("acme.zip", bytes).spec.is_some())
}

/// Lines that require authentication; some of them are incomplete.
const GUARDS: [&str; 5] = [
    "api_keys: [{label: a, sha256: 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f}]",
    "api_keys:",
    "oauth_enabled: true",
    "access: {}",
    "machine_clients: []",
];

/// An operator's YAML, as `acme.yaml` alone.
///
/// With a guard before or after it, it never yields an open tenant; inside an export it then yields
/// no tenant at all.
fn yaml(bytes: &[u8]) -> FuzzOutcome {
    let loaded = load_checked("acme.yaml", bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        for guard in GUARDS {
            assert_closed("acme.yaml", &format!("{guard}\n{text}"));
            assert_closed("acme.yaml", &format!("{text}\n{guard}\n"));
        }
        let export = sample::build_export("sales", &format!("{text}\napi_keys:\n"));
        assert!(load_checked("acme.zip", &export).spec.is_none(), "an export with a guard was loaded");
    }
    FuzzOutcome::taken_if(loaded.spec.is_some())
}

/// A `.env`, as `acme.env` alone.
///
/// With the login enabled in its last line, it never yields an open tenant. The same holds for the
/// first line, unless a later line overrides it.
fn dotenv(bytes: &[u8]) -> FuzzOutcome {
    const GUARD: &str = "OAUTH_ENABLED=true";
    let loaded = load_checked("acme.env", bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert_closed("acme.env", &format!("{text}\n{GUARD}\n"));
        if !text.to_ascii_lowercase().contains("oauth_enabled") {
            assert_closed("acme.env", &format!("{GUARD}\n{text}"));
        }
    }
    FuzzOutcome::taken_if(loaded.spec.is_some())
}

/// Loads bytes as the only file of a tenant. The result is a tenant or an error, and a tenant is
/// restored unchanged from its snapshot.
fn load_checked(file: &str, bytes: &[u8]) -> LoadOutcome {
    let context = sample::sample_context();
    let root = Path::new("/nowhere/tenants.d");
    let loaded = bundle::load_bytes(root.join(file), bytes.to_vec(), &context);
    assert_eq!(loaded.spec.is_none(), loaded.report.has_errors(), "a refusal says why: {:?}", loaded.report);
    if let Some(snapshot) = &loaded.snapshot {
        let snapshot = Snapshot::decode(&snapshot.encode()).expect("what is stored is read");
        let again = bundle::load_snapshot(&snapshot, root, &context);
        assert_eq!(
            (again.digest, again.access_fingerprint),
            (loaded.digest, loaded.access_fingerprint),
            "of a snapshot"
        );
        assert_eq!(again.spec, loaded.spec, "of a snapshot");
    }
    loaded
}

fn assert_closed(file: &str, text: &str) {
    let is_open = load_checked(file, text.as_bytes()).spec.is_some_and(|spec| spec.access.is_open());
    assert!(!is_open, "a document with a guard made an open tenant:\n{text}");
}

/// What a caller sends as `Forwarded` and as `X-Forwarded-For`.
///
/// Whatever that is, the entry that a proxy appends is the first from the right, or the header says
/// nothing.
fn forwarded(bytes: &[u8]) -> FuzzOutcome {
    let appended = |entry: &str| {
        let value = [bytes, b", ", entry.as_bytes()].concat();
        HeaderValue::from_bytes(&value).ok()
    };
    let (Some(common), Some(standard)) = (appended("192.0.2.1"), appended("for=192.0.2.1")) else {
        return FuzzOutcome::Rejected;
    };
    let proxy = "192.0.2.1".parse().map_err(|_| hops::NoAddress);
    let headers = [(HeaderName::from_static("x-forwarded-for"), common)].into_iter().collect();
    assert_eq!(hops::x_forwarded_for(&headers).next(), Some(proxy), "a caller hides a proxy's entry");
    let headers = [(header::FORWARDED, standard)].into_iter().collect();
    let Ok(mut read) = hops::forwarded(&headers) else { return FuzzOutcome::Rejected };
    assert_eq!(read.next(), Some(proxy), "a caller hides a proxy's element");
    FuzzOutcome::Accepted
}

/// A request target, a Host header and the prefix of an additional tenant, one per line.
///
/// A request that passes the front check reads the same to every parser, and goes to the tenant
/// with the longest whole-segment prefix or to none.
fn request(bytes: &[u8]) -> FuzzOutcome {
    let mut lines = bytes.splitn(3, |&byte| byte == b'\n');
    let (target, host) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let prefix = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let prefix = prefix.and_then(|prefix| Prefix::parse(prefix).ok());
    let mounts = mounts(prefix);
    let mut router = Router::new();
    mounts.iter().for_each(|mount| router.insert(mount, mount));
    mounts.iter().for_each(|mount| assert_reachable(&router, &mounts, mount));

    let (Ok(uri), Ok(host)) = (Uri::try_from(target), HeaderValue::from_bytes(host)) else {
        return FuzzOutcome::Rejected;
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::HOST, host);
    let Ok(server::CheckedTarget { host, path }) = server::check(&request) else {
        return FuzzOutcome::Rejected;
    };
    assert!(
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@\\?#".contains(&byte))
    );
    assert_eq!(host, host.to_ascii_lowercase());
    assert_reads_the_same(path);
    assert_routed(&router, &mounts, &host, path);
    FuzzOutcome::Accepted
}

/// Returns tenants of the gateway's host, tenants with a host of their own, and the additional one.
fn mounts(further: Option<Prefix>) -> Vec<Mount> {
    let own = HostName::parse("own.example");
    let fixed = [(None, "/a"), (None, "/a/b"), (None, "/tenant-a"), (own.clone(), "/"), (own, "/x")];
    let fixed = fixed.into_iter().map(|(host, prefix)| Mount {
        listener: None,
        host,
        prefix: Prefix::parse(prefix).expect("a prefix is written here"),
    });
    fixed.chain(further.map(|prefix| Mount { listener: None, host: None, prefix })).collect()
}

fn assert_reachable(router: &Router<&Mount>, mounts: &[Mount], mount: &Mount) {
    let host = mount.host.as_ref().map_or("gateway.example", HostName::as_str);
    let path = format!("{}/mcp", mount.prefix.as_str());
    assert_eq!(check_path(&path), Ok(()), "{path}");
    // Published tenants never have a prefix that is another's connector URL; here the additional
    // one may.
    if mounts.iter().any(|other| other.host == mount.host && other.prefix.as_str() == path) {
        return;
    }
    let found = router.main().find(host, &path);
    assert!(found.is_some_and(|(found, endpoint)| found == &mount && endpoint == Endpoint::Mcp), "{path}");
}

/// Asserts that neither decoding a path nor normalizing it as browsers do yields another path.
fn assert_reads_the_same(path: &str) {
    let url = Url::parse(&format!("http://h{path}")).expect("a path of a URL");
    assert_eq!(url.path(), path, "the URL standard reads another path");
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    assert!(!decoded.contains(['\\', '\0']), "{path}");
    assert_eq!(decoded.split('/').count(), path.split('/').count(), "{path}");
    assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
}

fn assert_routed(router: &Router<&Mount>, mounts: &[Mount], host: &str, path: &str) {
    let Some((found, _)) = router.main().find(host, path) else { return };
    let is_own = |mount: &&Mount| mount.host.as_ref().is_some_and(|own| own.as_str() == host);
    let has_own = mounts.iter().any(|mount| is_own(&mount));
    let on_this_host = |mount: &&Mount| if has_own { is_own(mount) } else { mount.host.is_none() };
    assert!(on_this_host(found), "{host}{path} went to a tenant of another host: {found:?}");
    if path.starts_with("/.well-known/") && !found.prefix.is_root() {
        let named = path.strip_suffix('/').unwrap_or(path);
        let named = named.strip_suffix(found.prefix.as_str()).or_else(|| {
            named.strip_suffix("/mcp").and_then(|named| named.strip_suffix(found.prefix.as_str()))
        });
        return assert!(named.is_some(), "{path} does not name {found:?}");
    }
    let has = |mount: &&Mount| {
        let rest = path.strip_prefix(mount.prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let holder =
        mounts.iter().filter(on_this_host).filter(has).max_by_key(|mount| mount.prefix.as_str().len());
    assert_eq!(Some(*found), holder, "{path}");
}

/// A POST to a connector URL: header lines, an empty line, a body.
///
/// Whatever is wrong with it, the response is one JSON-RPC error with the id of the body, and not
/// much longer than the request.
fn jsonrpc(bytes: &[u8]) -> FuzzOutcome {
    let Some(mut request) = post(bytes) else { return FuzzOutcome::Rejected };
    let message = request.body().clone();
    let size = bytes.len();
    for status in
        [StatusCode::UNSUPPORTED_MEDIA_TYPE, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR]
    {
        let refusal = body::response(status, HeaderValue::from_static("text/plain"), "Bad Request: of rmcp");
        let answer = mcp::RequestSnapshot::from_request(&request)
            .explain_rejection(refusal)
            .now_or_never()
            .expect("all of it is there");
        assert_jsonrpc_error(answer, &message, size);
    }
    match mcp::check_request(&mut request) {
        Ok(_) => FuzzOutcome::Accepted,
        Err(refusal) => {
            assert_jsonrpc_error(*refusal, &message, size);
            FuzzOutcome::Rejected
        }
    }
}

fn post(bytes: &[u8]) -> Option<Request<Bytes>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let mut request = Request::post("/a/mcp").body(Bytes::copy_from_slice(&bytes[end + 2..])).ok()?;
    for line in bytes[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(64) {
        let at = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

fn assert_jsonrpc_error(answer: Response<Body>, message: &[u8], size: usize) {
    assert!(answer.status().is_client_error() || answer.status().is_server_error());
    assert_eq!(
        answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
        Some(&b"application/json"[..])
    );
    let Ok(body) = answer.into_body().collect().now_or_never().expect("all of it is there");
    let body = body.to_bytes();
    // A byte that is not UTF-8 becomes three, a control character six.
    assert!(body.len() <= 1_024 + 6 * size, "{} bytes in, {} out", size, body.len());
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["jsonrpc"], "2.0");
    assert!(answer["error"]["code"].as_i64().is_some_and(|code| code < 0));
    assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    let id = answer.get("id").expect("an id");
    let asked: Value = serde_json::from_slice(message).unwrap_or_default();
    assert!(id.is_null() || (id.is_string() || id.is_number()) && Some(id) == asked.get("id"), "{answer}");
}

/// Parameters that the authorization server reads.
const PARAMETERS: [&str; 10] = [
    "client_id",
    "redirect_uri",
    "state",
    "scope",
    "resource",
    "code",
    "code_challenge",
    "grant_type",
    "client_assertion",
    "prompt",
];

/// A query or a form.
///
/// The result equals what the URL standard reads, repeated parameters are rejected, and the result
/// survives being written and read again.
fn parameters(bytes: &[u8]) -> FuzzOutcome {
    let Ok(read) = Parameters::parse(bytes) else { return FuzzOutcome::Rejected };
    let standard: Vec<_> = form_urlencoded::parse(bytes).collect();
    let mut written = Vec::new();
    for name in PARAMETERS {
        let given: Vec<&str> =
            standard.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect();
        let values: Vec<&str> = read.get_all(name).collect();
        // An empty value counts as absent, but still as a repetition.
        assert!(
            values.iter().eq(given.iter().filter(|value| !value.is_empty())),
            "{name}: {values:?} of {given:?}"
        );
        match read.get(name) {
            Ok(None) => assert!(given.is_empty() || given == [""], "{name}"),
            Ok(Some(value)) => assert!(given == [value] && !value.is_empty(), "{name}"),
            Err(_) => assert!(given.len() > 1, "{name}"),
        }
        let write = |value: &&str| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        written.extend(values.iter().map(write));
    }
    let written = written.join("&");
    let again = Parameters::parse(written.as_bytes()).expect("what is written is read");
    for name in PARAMETERS {
        assert!(again.get_all(name).eq(read.get_all(name)), "{name}");
    }
    read.get_all("redirect_uri").for_each(assert_leads_where_it_says);
    FuzzOutcome::Accepted
}

/// A redirect URI, of a self-registered client or of one that an operator registers.
fn redirect_uri(bytes: &[u8]) -> FuzzOutcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return FuzzOutcome::Rejected };
    assert_leads_where_it_says(text);
    FuzzOutcome::taken_if(RedirectUri::parse(text).is_ok())
}

/// Schemes that execute something in the browser or read from the machine.
const DANGEROUS: [&str; 8] =
    ["javascript", "data", "vbscript", "file", "blob", "about", "view-source", "filesystem"];

/// Asserts that an accepted URI is kept verbatim, and that browsers go where the consent page says.
fn assert_leads_where_it_says(text: &str) {
    let entered = RedirectUri::parse_trusted(text);
    if let Ok(uri) = RedirectUri::parse(text) {
        assert_eq!(entered.as_ref(), Ok(&uri), "{text}");
    }
    let Ok(uri) = entered else { return };
    assert_eq!(uri.as_str(), text);
    assert_eq!(RedirectUri::parse_trusted(uri.as_str()).as_ref(), Ok(&uri));
    assert!(uri.matches(&uri) && uri.matches_text(text), "{text}");
    let Ok(url) = Url::parse(text) else {
        return assert!(!uri.is_web() && !uri.is_loopback(), "no browser reads {text}");
    };
    assert!(!DANGEROUS.contains(&url.scheme()), "{text}");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{text}");
    match uri.private_use_scheme() {
        Some(scheme) => assert_eq!(url.scheme(), scheme.to_ascii_lowercase()),
        None if uri.is_web() => {
            assert_eq!(url.scheme(), "https", "{text}");
            let place = uri.describe_destination().to_ascii_lowercase();
            let host = url.host_str().expect("https has a host").to_ascii_lowercase();
            let port = place.strip_prefix(&host).expect("the host is what people are told");
            assert!(port.is_empty() || port.starts_with(':'), "{text}");
        }
        None => {
            assert_eq!(url.scheme(), "http", "{text}");
            assert!(matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")), "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    /// Returns the verdict on each seed of a target; `None` if a promise was broken.
    fn verdicts(target: &FuzzTarget) -> Vec<(PathBuf, Option<FuzzOutcome>)> {
        let folder = root().join("corpus").join(target.name);
        let seeds = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let judge = |seed: PathBuf| {
            let bytes = fs::read(&seed).expect("read");
            let verdict = std::panic::catch_unwind(|| (target.check)(&bytes)).ok();
            (seed, verdict)
        };
        seeds.map(|seed| judge(seed.expect("an entry").path())).collect()
    }

    #[test]
    fn every_seed_keeps_what_is_promised_and_both_verdicts_occur() {
        let mut complaints = Vec::new();
        for target in TARGETS {
            let verdicts = verdicts(target);
            assert!(verdicts.len() >= 8, "{} has {} seeds", target.name, verdicts.len());
            let broken = verdicts.iter().filter(|(_, verdict)| verdict.is_none());
            complaints.extend(broken.map(|(seed, _)| format!("{}: a promise is broken", seed.display())));
            for expected in [FuzzOutcome::Accepted, FuzzOutcome::Rejected] {
                if !verdicts.iter().any(|(_, verdict)| *verdict == Some(expected)) {
                    complaints.push(format!("{}: no seed is {expected:?}", target.name));
                }
            }
        }
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    #[test]
    fn every_target_has_a_binary() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("fuzz/Cargo.toml");
        for target in TARGETS {
            let name = target.name;
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "fuzz/Cargo.toml lacks {name}");
            let binary = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).expect(name);
            assert!(binary.contains(&format!("\"{name}\"")), "fuzz_targets/{name}.rs runs another target");
        }
    }
}
