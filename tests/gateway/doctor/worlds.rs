//! Worlds that are broken in the ways that need a network, a mount, a user or a server of their own.

use std::fs;
use std::net::TcpListener as StdListener;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::harness::entra::{Endpoint, FakeEntra, Fault};
use super::super::harness::front::{Front, free_ports};
use super::super::harness::gateway::may_mount;
use super::super::harness::login::App;
use super::super::harness::secret::secret;
use super::super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant};
use super::super::state;
use super::{Doctor, KEY, Said, digest, serve_with_login};

/// An admin address at which nobody listens.
const NO_GATEWAY: [&str; 2] = ["--admin", "127.0.0.1:1"];

/// Namespaces for a network in which servers run, which end with the doctor.
const NETWORK_WITH_SERVERS: [&str; 3] = ["-npf", "--kill-child", "--mount-proc"];

async fn gateway(tenant: Tenant) -> Gateway {
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    gateway
}

/// A tenant that asks for [`KEY`].
fn keyed(backend: &FakeBackend) -> Tenant {
    Tenant::new("a", backend).with(&format!("api_keys: [{{label: c, sha256: {}}}]", digest(KEY)))
}

fn key_file(key: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), key).expect("written");
    file
}

fn has_namespaces() -> bool {
    let may = may_mount();
    if !may {
        eprintln!("skipped: a namespace needs root");
    }
    may
}

#[tokio::test]
async fn what_an_older_gateway_that_drains_says_is_told() {
    let backend = FakeBackend::start().await;
    let gateway = gateway(Tenant::new("a", &backend)).await;
    let ask = async |path: &str| -> Value {
        let (status, text) = gateway.admin(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    };
    let (mut about, mut tenants) = (ask("/api/gateway").await, ask("/api/tenants").await);
    about["version"] = json!("0.0.1");
    tenants[0]["state"] = json!("loading");
    let older = FakeBackend::start().await;
    older.answer("/api/gateway", Reply::Json(about));
    older.answer("/api/tenants", Reply::Json(tenants));
    let detail = json!({ "ready": false, "draining": true, "tenants_read": true });
    older.answer("/readyz", Reply::Status(503, detail));
    let said = Doctor::new(&["a", "--admin", &older.address().to_string()]).ask().await;
    assert_eq!(said.verdict("version-differs")["outcome"], "warning");
    assert_eq!(said.verdict("tenant-loading")["outcome"], "warning");
    let why = said.assert_fault("gateway-not-ready")["found"].to_string();
    assert!(why.contains("being stopped"), "{why}");
}

#[tokio::test]
async fn each_state_of_a_tenant_has_its_verdict() {
    let (backend, slow) = (FakeBackend::start().await, FakeBackend::start().await);
    slow.answer("/nlp-context", Reply::Status(503, json!({})));
    let edition = |text: &str| Tenant::new("h", &backend).with(&format!("description: {text}")).yaml();
    let guarded = keyed(&backend).with("name: guarded").with("path_prefix: /guarded");
    let gateway = Setup::new()
        .settings("hold_changes: tools\n")
        .file("paused.yaml", Tenant::new("paused", &backend).yaml())
        .file("guarded.yaml", guarded.yaml())
        .file("slow.yaml", Tenant::new("slow", &slow).yaml())
        .file("h.yaml", edition("First"))
        .start()
        .await;
    for name in ["paused", "guarded", "h"] {
        gateway.until_state(name, "serving").await;
    }
    gateway.until_state("slow", "degraded").await;
    state::fine(&gateway, &["pause", "paused"]);
    gateway.put("h.yaml", edition("Second"));
    gateway.until_state("h", "held").await;
    gateway.put("guarded.yaml", guarded.with("api_keys: [{label: c, sha256: nonsense}]").yaml());
    super::super::harness::until("it is closed", async || {
        (gateway.status("guarded").await?["closed"] == true).then_some(())
    })
    .await;
    let ask = async |name: &'static str| Doctor::beside(&gateway, &[name]).ask().await;
    ask("paused").await.assert_fault("tenant-paused");
    ask("guarded").await.assert_fault("tenant-closed");
    let slow = ask("slow").await;
    assert_eq!(slow.verdict("tenant-degraded")["outcome"], "warning");
    slow.assert_fault("live-context");
    assert_eq!(ask("h").await.verdict("tenant-held")["outcome"], "warning");
}

#[tokio::test]
async fn what_cannot_be_examined_is_said_and_is_no_fault() {
    let backend = FakeBackend::start().await;
    // Another program's admin address, and this gateway's port.
    let plain = Setup::new().flag("--tls", "off").file("a.yaml", keyed(&backend).yaml()).start().await;
    plain.until_state("a", "serving").await;
    let said = Doctor::beside(&plain, &["a"]).ask().await;
    for code in ["no-certificate", "no-login", "calls-not-checked"] {
        assert_eq!(said.verdict(code)["outcome"], "not-checked", "{code}");
    }
    let listen = plain.address().to_string();
    let said = Doctor::new(&[&NO_GATEWAY[..], &["--listen", &listen, "--tls", "off"]].concat()).ask().await;
    assert_eq!(said.verdict("port-has-gateway")["outcome"], "warning");
    assert_eq!(said.verdict("gateway-silent")["outcome"], "not-checked");
    let empty = tempfile::tempdir().expect("a folder");
    let (folder, other) = (empty.path().display().to_string(), tempfile::tempdir().expect("a folder"));
    let state = other.path().display().to_string();
    let said =
        Doctor::new(&[&NO_GATEWAY[..], &["--tenants", &folder, "--state", &state]].concat()).ask().await;
    for code in ["clock-unknown", "backend-unknown", "sequence-not-run"] {
        assert_eq!(said.verdict(code)["outcome"], "not-checked", "{code}");
    }
    for code in ["folder-good", "watches-enough", "tenants-counted"] {
        assert_eq!(said.verdict(code)["outcome"], "ok", "{code}");
    }
    let missing = |name: &str| other.path().join(name).display().to_string();
    let (tenants, state) = (missing("tenants"), missing("state"));
    let said =
        Doctor::new(&[&NO_GATEWAY[..], &["--tenants", &tenants, "--state", &state]].concat()).ask().await;
    assert_eq!(said.verdict("files-unreadable")["outcome"], "not-checked");
    assert_eq!(said.verdict("folder-new")["outcome"], "ok");
}

#[tokio::test]
async fn more_logins_and_backends_than_are_asked_are_counted() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let names: Vec<String> = (0..17).map(|number| format!("t{number}")).collect();
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let gateway = names.iter().fold(setup, |setup, name| {
        let tenant = Tenant::new(name, &backend).with(&entra.lines());
        setup.file(&format!("{name}.yaml"), tenant.yaml())
    });
    let gateway = gateway.start().await;
    gateway.until_state("t16", "serving").await;
    let said = Doctor::beside(&gateway, &[]).ask().await;
    for code in ["login-unknown", "backend-unknown", "sequence-not-run"] {
        assert_eq!(said.verdict(code)["outcome"], "not-checked", "{code}");
    }
}

#[tokio::test]
async fn what_entra_does_not_tell_is_no_fault() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = serve_with_login(&entra, &backend).await;
    entra.fault(Endpoint::Token, Fault::Refusal("invalid_request", 50_194));
    entra.fault(Endpoint::Authorize, Fault::Answer(200, "<html>Pick an account</html>"));
    let said = Doctor::beside(&gateway, &["a"]).ask().await;
    for code in ["secret-unknown", "redirect-uri-unknown"] {
        assert_eq!(said.verdict(code)["outcome"], "not-checked", "{code}");
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_is_not_blamed_on_a_proxy() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let closed = Tenant::new("closed", &backend).with(&entra.lines()).with("registration: {dynamic: false}");
    let gateway = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", keyed(&backend).yaml())
        .file("closed.yaml", closed.yaml())
        .file("in.yaml", Tenant::new("in", &backend).with(&entra.lines()).yaml())
        .start()
        .await;
    for name in ["a", "closed", "in"] {
        gateway.until_state(name, "serving").await;
    }
    let wrong = key_file("another-key-0123456789");
    let path = wrong.path().display().to_string();
    let said = Doctor::beside(&gateway, &["a", "--key-file", &path]).ask().await;
    let advice = said.assert_fault("gateway-refuses")["advice"].to_string();
    assert!(advice.contains("wrong, expired, or of another tenant"), "{advice}");
    Doctor::beside(&gateway, &["closed"]).ask().await.assert_fault("registration-off");
    // A person who has all the streams that are theirs gets no further one.
    let tokens = App::registered(&gateway, "/in").await.tokens(&entra).await;
    let client = gateway.client().bearer(&tokens.access);
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let mut streams = Vec::new();
    for _ in 0..16 {
        let request = client.ask(Era::Modern, "/in/mcp", "subscriptions/listen", params.clone());
        streams.push(request.send().await.expect("an answer"));
    }
    let token = key_file(&tokens.access);
    let path = token.path().display().to_string();
    let said = Doctor::beside(&gateway, &["in", "--key-file", &path]).ask().await;
    assert_eq!(said.verdict("stream-not-opened")["outcome"], "not-checked");
}

/// Accepts connections and gives each to `serve`.
async fn accept(serve: impl AsyncFn(TcpStream)) -> (u16, impl Future<Output = ()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let accepting = async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream).await;
        }
    };
    (port, accepting)
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told() {
    let backend = FakeBackend::start().await;
    let (port, accepting) = accept(async |stream| drop(stream)).await;
    let tenant = Tenant::new("a", &backend).with(&format!("public_url: https://localhost:{port}/a"));
    let gateway = Setup::new().flag("--tls", "off").file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let said = tokio::select! {
        said = Doctor::beside(&gateway, &["a"]).ask() => said,
        () = accepting => unreachable!("it goes on"),
    };
    said.assert_fault("public-unreachable");
    said.assert_fault("no-tls");
}

/// Passes a request on, and the answer back as an old server writes it.
async fn relay_as_http_1_0(mut client: TcpStream, gateway: std::net::SocketAddr) {
    let mut server = TcpStream::connect(gateway).await.expect("the gateway");
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            length = client.read(&mut request) => match length {
                Ok(0) | Err(_) => return,
                Ok(length) => server.write_all(&request[..length]).await.expect("sent"),
            },
            length = server.read(&mut answer) => {
                let Ok(length @ 1..) = length else { return };
                let text = String::from_utf8_lossy(&answer[..length]).replacen("HTTP/1.1", "HTTP/1.0", 1);
                // The client may have read enough.
                let _sent = client.write_all(text.as_bytes()).await;
            }
        }
    }
}

#[tokio::test]
async fn an_old_protocol_is_told() {
    let backend = FakeBackend::start().await;
    let holder = StdListener::bind("127.0.0.1:0").expect("a port");
    let inside = holder.local_addr().expect("an address");
    drop(holder);
    let (port, accepting) = accept(async move |client| relay_as_http_1_0(client, inside).await).await;
    let tenant = Tenant::new("a", &backend).with(&format!("public_url: http://localhost:{port}/a"));
    let setup = Setup::listening(inside.port()).flag("--tls", "off").file("a.yaml", tenant.yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    let said = tokio::select! {
        said = Doctor::beside(&gateway, &["a"]).ask() => said,
        () = accepting => unreachable!("it goes on"),
    };
    said.assert_fault("old-protocol");
}

/// A chain for `localhost` by a CA of its own: leaf, key and root.
fn issue(adjust: impl FnOnce(&mut CertificateParams)) -> [String; 3] {
    let keys = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let mut above = CertificateParams::default();
    above.distinguished_name.push(DnType::CommonName, "Some CA");
    above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = above.self_signed(&keys[0]).expect("a root").pem();
    let mut leaf = CertificateParams::new(["localhost".to_owned()]).expect("names");
    leaf.distinguished_name.push(DnType::CommonName, "leaf");
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2090, 1, 1);
    adjust(&mut leaf);
    let leaf = leaf.signed_by(&keys[1], &Issuer::new(above, &keys[0])).expect("a certificate").pem();
    [leaf, keys[1].serialize_pem(), root]
}

#[tokio::test]
async fn certificates_that_are_refused_for_rarer_reasons_are_told() {
    let backend = FakeBackend::start().await;
    let port = free_ports(1)[0];
    // Nobody watches the streams of a tenant whose key is not given.
    let tenant = keyed(&backend).with(&format!("public_url: https://localhost:{port}/a"));
    let gateway = Setup::new().flag("--tls", "off").file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let pass = format!(
        "location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; }}",
        gateway.address()
    );
    let soon =
        jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72));
    let soon = rcgen::date_time_ymd(soon.year().into(), soon.month() as u8, soon.day() as u8);
    let later = |leaf: &mut CertificateParams| leaf.not_before = rcgen::date_time_ymd(2080, 1, 1);
    let ending = |leaf: &mut CertificateParams| leaf.not_after = soon;
    let above = |leaf: &mut CertificateParams| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let with_root = |[leaf, key, root]: [String; 3]| [leaf + &root, key, root];
    for (chain, trusts, code, outcome) in [
        (issue(later), true, "certificate-not-yet-valid", "fault"),
        (issue(ending), true, "certificate-expires-soon", "warning"),
        (issue(above), true, "certificate-invalid", "fault"),
        (with_root(issue(|_| ())), false, "certificate-untrusted", "fault"),
    ] {
        let [leaf, key, root] = chain;
        let _front = Front::start_with(&[(port, pass.clone())], &leaf, &key).await;
        let file = key_file(&root);
        let doctor = Doctor::beside(&gateway, &["a"]);
        let doctor = if trusts { doctor.trusting(file.path()) } else { doctor };
        assert_eq!(doctor.ask().await.verdict(code)["outcome"], outcome, "{code}");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_had_is_told() {
    let gateway = Setup::new()
        .instead("--host", "mcp.example.com")
        .flag("--tls", "acme")
        .flag("--acme-directory", "https://127.0.0.1:1/directory")
        .variable("TENANTD_ACCEPT_TOS", "true")
        .start()
        .await;
    super::super::harness::until("the order fails", async || {
        gateway.admin("/api/certs").await.1.contains("trouble").then_some(())
    })
    .await;
    let said = Doctor::beside(&gateway, &[]).ask().await;
    assert_eq!(said.verdict("certificate-trouble")["outcome"], "warning");
}

#[tokio::test]
async fn disks_that_are_full_read_only_or_gone_after_a_restart_are_told() {
    if !has_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().display().to_string();
    let arguments = [&NO_GATEWAY[..], &["--state", &state]].concat();
    let on = async |options: &str| -> Said {
        let mount = format!("mount -t tmpfs -o {options} none {state}");
        Doctor::new(&arguments).inside(&["-m"], &mount).ask().await
    };
    let full = on("size=4m").await;
    full.assert_fault("disk-full");
    assert_eq!(full.verdict("folder-volatile")["outcome"], "warning");
    assert_eq!(on("size=50m").await.verdict("disk-nearly-full")["outcome"], "warning");
    on("ro,size=500m").await.assert_fault("folder-read-only");
    let few = "echo 100 > /tmp/few && mount --bind /tmp/few /proc/sys/fs/inotify/max_user_watches";
    let few = format!("mount -t tmpfs none /tmp && {few}");
    let said = Doctor::new(&NO_GATEWAY).inside(&["-m"], &few).ask().await;
    assert_eq!(said.verdict("watches-few")["outcome"], "warning");
}

#[tokio::test]
async fn folders_of_another_user_are_told() {
    if !has_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir_all(folder.path().join("shut/state")).expect("made");
    for name in ["own", "shop"] {
        fs::create_dir(folder.path().join(name)).expect("made");
    }
    let open = folder.path().display();
    let modes = format!("chmod 755 {open} && chmod 700 {} {} {}", at("shut"), at("own"), at("shop"));
    // The folder itself, and one above it that cannot be entered.
    let tenants = at("shop");
    for state in [at("own"), at("shut/state")] {
        let arguments = [&NO_GATEWAY[..], &["--state", &state, "--tenants", &tenants]].concat();
        let said = Doctor::new(&arguments).inside(&["-m"], &modes).run_by_nobody().ask().await;
        let found = said.assert_fault("folder-forbidden").to_string();
        assert!(found.contains("65534"), "{found}");
        assert_eq!(said.verdict("files-unreadable")["outcome"], "not-checked");
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_told() {
    if !has_namespaces() {
        return;
    }
    // Frames to the other addresses go to nobody: a firewall that swallows.
    let network = |own: &str, other: &str| {
        format!(
            "ip link set lo up
             ip link add v0 type veth peer name v1
             ip addr add {own}/24 dev v0
             ip link set v0 up; ip link set v1 up
             ip route add default dev v0
             ip neigh add {other} lladdr 02:00:00:00:00:01 dev v0
             mount -t tmpfs none /mnt; echo '{other} far.test' > /mnt/hosts
             mount --bind /mnt/hosts /etc/hosts"
        )
    };
    let arguments = [&NO_GATEWAY[..], &["--tls", "self-signed", "--url", "https://far.test:8443"]].concat();
    let ask = async |own: &str, other: &str| {
        Doctor::new(&arguments).inside(&["-mn"], &network(own, other)).ask().await
    };
    let said = ask("5.5.5.5", "5.5.6.6").await;
    assert_eq!(said.verdict("name-elsewhere")["outcome"], "warning");
    said.assert_fault("port-silent");
    let said = ask("10.9.0.1", "10.9.1.1").await;
    assert_eq!(said.verdict("name-is-in-front")["outcome"], "ok");
}

#[tokio::test]
async fn an_address_of_a_name_that_does_not_answer_is_told() {
    if !has_namespaces() {
        return;
    }
    let backend = FakeBackend::start().await;
    let gateway = gateway(Tenant::new("a", &backend)).await;
    let hosts = "mount -t tmpfs none /mnt
        printf '127.0.0.1 two.test\\n127.0.0.2 two.test\\n' > /mnt/hosts
        mount --bind /mnt/hosts /etc/hosts";
    let url = format!("https://two.test:{}", gateway.address().port());
    let said = Doctor::beside(&gateway, &["a", "--url", &url]).inside(&["-m"], hosts).ask().await;
    assert_eq!(said.verdict("address-dead")["outcome"], "warning");
}

#[tokio::test]
async fn port_80_is_told_with_whoever_has_it() {
    if !has_namespaces() {
        return;
    }
    let arguments =
        ["--listen", "127.0.0.1:443", "--listen-http", "127.0.0.1:80", "--url", "https://localhost"];
    let arguments = [&NO_GATEWAY[..], &arguments].concat();
    let alone = Doctor::new(&arguments).inside(&["-n"], "ip link set lo up").ask().await;
    assert_eq!(alone.verdict("port-80-closed")["outcome"], "ok");
    let held = "ip link set lo up
        perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 9, LocalAddr => \"127.0.0.1:80\") or die; sleep' &
        while ! ss -Hltn | grep -q ':80 '; do sleep 0.05; done";
    let said = Doctor::new(&arguments).inside(&NETWORK_WITH_SERVERS, held).ask().await;
    let taken = said.assert_fault("port-taken")["found"].to_string();
    assert!(taken.contains("Port 80 already in use (by perl, process "), "{taken}");
    assert_eq!(said.verdict("port-80-open")["outcome"], "ok");
}

#[tokio::test]
async fn a_key_is_sent_to_nobody_who_does_not_prove_who_he_is() {
    if !has_namespaces() {
        return;
    }
    let backend = FakeBackend::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), keyed(&backend).yaml()).expect("written");
    let made = rcgen::generate_simple_self_signed(["10.9.0.2".to_owned()]).expect("a certificate");
    let pem = key_file(&(made.cert.pem() + &made.signing_key.serialize_pem()));
    let key = key_file(KEY);
    // A server in a network of its own, which is not this machine for the doctor.
    let lines = format!(
        "unshare -n sleep 60 & other=$!
         while [ \"$(readlink /proc/$other/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.05; done
         ip link set lo up
         ip link add v0 type veth peer name v1 netns $other
         ip addr add 10.9.0.1/24 dev v0; ip link set v0 up
         nsenter -t $other -n sh -ec 'ip addr add 10.9.0.2/24 dev v1; ip link set v1 up'
         nsenter -t $other -n openssl s_server -accept 10.9.0.2:8443 -cert {pem} -key {pem} -www -quiet &
         while ! nsenter -t $other -n ss -Hltn | grep -q ':8443 '; do sleep 0.05; done",
        pem = pem.path().display()
    );
    let (tenants, key) = (folder.path().display().to_string(), key.path().display().to_string());
    let arguments = ["a", "--tenants", &tenants, "--url", "https://10.9.0.2:8443", "--key-file", &key];
    let said = Doctor::new(&[&NO_GATEWAY[..], &arguments].concat())
        .inside(&NETWORK_WITH_SERVERS, &lines)
        .ask()
        .await;
    for code in ["key-withheld", "gateway-not-compared"] {
        assert_eq!(said.verdict(code)["outcome"], "not-checked", "{code}");
    }
}
