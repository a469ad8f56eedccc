//! Debian's rsyslog takes the audit over UDP, TCP, TLS and a socket, and gets after a crash what it
//! had not taken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::front::free_ports;
use crate::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until, until_within};

/// Longer than the pauses between attempts while rsyslog is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// The inputs whose losses somebody notices.
const RELIABLE: [&str; 3] = ["tcp", "tls", "socket"];

struct Rsyslog {
    folder: TempDir,
    ports: Vec<u16>,
    child: Child,
}

impl Rsyslog {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(folder.path().join("own.pem"), made.cert.pem()).expect("written");
        fs::write(folder.path().join("own.key"), made.signing_key.serialize_pem()).expect("written");
        let ports = free_ports(3);
        fs::write(folder.path().join("rsyslog.conf"), Self::config(folder.path(), &ports)).expect("written");
        let child = Self::spawn(folder.path());
        let started = Self { folder, ports, child };
        started.until_listening().await;
        started
    }

    /// A rule set for each input, so that each has a file of its own.
    fn config(folder: &Path, ports: &[u16]) -> String {
        let place = folder.display();
        let mut config = format!(
            "global(workDirectory=\"{place}\" defaultNetstreamDriverCAFile=\"{place}/own.pem\" \
             defaultNetstreamDriverCertFile=\"{place}/own.pem\" defaultNetstreamDriverKeyFile=\"{place}/own.key\")\n\
             module(load=\"imuxsock\" sysSock.use=\"off\")\nmodule(load=\"imtcp\")\nmodule(load=\"imudp\")\n\
             template(name=\"all\" type=\"string\" string=\"%pri% %app-name% %procid% %msgid% %structured-data% %msg%\\n\")\n"
        );
        let tls = "streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\"";
        for (name, input) in [
            ("udp", format!("type=\"imudp\" address=\"127.0.0.1\" port=\"{}\"", ports[0])),
            ("tcp", format!("type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\"", ports[1])),
            ("tls", format!("type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\" {tls}", ports[2])),
            (
                "socket",
                format!(
                    "type=\"imuxsock\" socket=\"{place}/log.sock\" useSpecialParser=\"off\" parseHostname=\"on\""
                ),
            ),
        ] {
            let action =
                format!("type=\"omfile\" file=\"{place}/{name}.log\" template=\"all\" asyncWriting=\"off\"");
            config += &format!(
                "ruleset(name=\"{name}\") {{ action({action}) }}\ninput({input} ruleset=\"{name}\")\n"
            );
        }
        config
    }

    fn spawn(folder: &Path) -> Child {
        let installed = ["/usr/sbin/rsyslogd", "rsyslogd"].into_iter();
        let program = installed.map(PathBuf::from).find(|path| path.exists()).unwrap_or("rsyslogd".into());
        Command::new(program)
            .args(["-n", "-f"])
            .arg(folder.join("rsyslog.conf"))
            .arg("-i")
            .arg(folder.join("pid"))
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's rsyslog is installed; scripts/test.sh installs it")
    }

    async fn until_listening(&self) {
        let listens = async || {
            let socket = self.folder.path().join("log.sock").exists();
            let tcp =
                self.ports[1..].iter().all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok());
            (socket && tcp).then_some(())
        };
        until("rsyslog listens", listens).await;
    }

    /// Ends it without a word.
    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("ended");
        let _socket = fs::remove_file(self.folder.path().join("log.sock"));
        let _pid = fs::remove_file(self.folder.path().join("pid"));
    }

    async fn start_again(&mut self) {
        self.child = Self::spawn(self.folder.path());
        self.until_listening().await;
    }

    fn settings(&self) -> String {
        let place = self.folder.path().display();
        let [udp, tcp, tls] = self.ports[..] else { panic!("three ports") };
        format!(
            "audit_sinks:\n  - {{name: udp, syslog: 'udp://127.0.0.1:{udp}'}}\n  - {{name: tcp, syslog: \
             'tcp://127.0.0.1:{tcp}', facility: local3, app_name: gate}}\n  - {{name: tls, syslog: \
             'tls://localhost:{tls}', ca_file: {place}/own.pem}}\n  - {{name: socket, syslog: \
             'unix:{place}/log.sock'}}\n"
        )
    }

    /// Returns what an input wrote: the header's fields, and the line.
    fn received(&self, input: &str) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.folder.path().join(format!("{input}.log"))).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let message = |line: &str| {
            let start = line.find('{').expect("JSON");
            let json = serde_json::from_str(&line[start..]).expect("JSON");
            (line[..start].trim().to_owned(), json)
        };
        whole.lines().map(message).collect()
    }

    fn ids(&self, input: &str) -> BTreeSet<String> {
        self.received(input)
            .into_iter()
            .map(|(_, line)| line["id"].as_str().expect("an id").to_owned())
            .collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn written_ids(gateway: &Gateway) -> BTreeSet<String> {
    let text = fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
    let id =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
    text.lines().map(|line| id(line).expect("an id")).collect()
}

#[tokio::test]
async fn rsyslog_gets_every_line_over_each_transport_also_after_a_crash() {
    let backend = FakeBackend::start().await;
    let mut rsyslog = Rsyslog::start().await;
    let gateway = Setup::new()
        .settings(&rsyslog.settings())
        .file("a.yaml", Tenant::new("a", &backend).yaml())
        .start()
        .await;
    for _ in 0..3 {
        gateway.client().search(Era::Modern, "/a", "q").await.data();
    }
    until_within(PATIENCE, "all inputs have all lines", async || {
        let written = written_ids(&gateway);
        let has_all = |input: &&str| rsyslog.ids(input).is_superset(&written);
        (written.len() >= 3 && has_all(&"udp") && RELIABLE.iter().all(has_all)).then_some(())
    })
    .await;
    let pid = gateway.pid();
    let head = |input: &str| rsyslog.received(input)[0].0.clone();
    assert_eq!(head("tls"), format!("86 tenantd {pid} call -"));
    assert_eq!(head("tcp"), format!("{} gate {pid} call -", 19 * 8 + 6));
    assert_eq!(head("socket"), head("udp"));

    rsyslog.kill();
    for order in ["pause", "resume"] {
        let output = crate::state::tenants(&gateway, &[order, "a"]);
        assert_eq!(output.status.code(), Some(0), "{order}");
    }
    gateway.client().search(Era::Modern, "/a", "q").await.data();
    let fails = async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        let is_failing =
            |sink: &&str| metrics.contains(&format!("tenantd_audit_sink_failing{{sink=\"{sink}\"}} 1"));
        RELIABLE.iter().all(is_failing).then_some(())
    };
    until_within(PATIENCE, "the gateway notices", fails).await;
    rsyslog.start_again().await;
    until_within(PATIENCE, "all lines arrive", async || {
        let written = written_ids(&gateway);
        (written.len() >= 6 && RELIABLE.iter().all(|input| rsyslog.ids(input).is_superset(&written)))
            .then_some(())
    })
    .await;
}
