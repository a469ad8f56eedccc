//! Gateways on machines of their own, their database, and what they need around them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use reqwest::Method;

use super::balancer::{Balancer, Connections, Outcome, PORT, PUBLIC};
use super::certificates::{Ca, NAME, ORDERED};
use super::database::Database;
use super::network::{HOST, Machine, Network, bring_up_loopback};
use crate::harness::entra::FakeEntra;
use crate::harness::gateway::binary;
use crate::harness::program::Program;
use crate::harness::secret::secret;
use crate::harness::{FakeBackend, Gateway, Setup, Tenant, until_within};

/// No limit is in the way of clients that share two processors.
const SETTINGS: &str = "limits:\n  tokens_per_minute: 10000000\n  logins_per_minute: 1000000\n  \
                        registrations_per_minute: 1000000\n  drain_seconds: 10\n";

/// Everything that runs.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) database: Database,
    pub(super) ca: Ca,
    pub(super) program: Program,
    _entra: FakeEntra,
    _backend: FakeBackend,
    _files: tempfile::TempDir,
}

/// A gateway on its machine.
pub(super) struct Node {
    pub(super) machine: Machine,
    /// Always there, except while it is started.
    gateway: Option<Gateway>,
}

impl Cluster {
    /// Starts the database and this many gateways.
    pub(super) async fn start(size: u8) -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let entra_port = entra.authority().rsplit(':').next().and_then(|port| port.parse().ok());
        bring_up_loopback();
        let ca = Ca::start().await;
        let network = Network::new(&[entra_port.expect("a port"), backend.address().port(), ca.port()]);
        let (database, files) = (Database::start(&network).await, tempfile::tempdir().expect("a folder"));
        let program = Program::new("program");
        let lines = format!("{}public_url: {PUBLIC}/a\nmachine_clients:\n{}", entra.lines(), program.lines());
        let tenant = Tenant::new("a", &backend).with(&lines).yaml();
        let mut nodes = Vec::new();
        ca.lead_to("10.99.0.11").await;
        for number in 0..size {
            let machine = network.add([10, 99, 0, 11 + number].into());
            let mut setup = Setup::new()
                .instead("--listen", &format!("{}:{PORT}", machine.address))
                .instead("--admin", "127.0.0.1:9000")
                .flag("--host", NAME)
                .flag("--host", ORDERED)
                .flag("--trusted-proxies", &HOST.to_string())
                .flag("--entra-authority", &entra.authority())
                .settings(&format!("{SETTINGS}{}", ca.settings()))
                .in_network_of(machine.pid())
                .file("a.yaml", &tenant);
            for (flag, value) in database.flags(files.path()) {
                setup = setup.flag(flag, &value);
            }
            nodes.push(Node { machine, gateway: Some(setup.start().await) });
        }
        Self { nodes, database, ca, program, _entra: entra, _backend: backend, _files: files }
    }

    /// Returns a balancer whose clients wait this long for an answer, once all nodes have a certificate.
    pub(super) async fn balancer(&self, patience: Duration, connections: Connections) -> Balancer {
        let root = self.ca.root().await;
        let balancer =
            Balancer::new(self.nodes.iter().map(|node| &node.machine), &root, patience, connections);
        for node in 0..self.nodes.len() {
            until_within(Duration::from_secs(60), &format!("node {node} has a certificate"), async || {
                let asked = balancer.send_to(node, |client| client.request(Method::GET, "/healthz")).await;
                matches!(asked, Outcome::Answered(_)).then_some(())
            })
            .await;
        }
        balancer
    }

    /// Copies the logs of all processes to a folder.
    pub(super) fn keep_logs(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("made");
        let copy = |from: PathBuf, to: &str| drop(std::fs::copy(from, folder.join(to)));
        for (number, node) in self.nodes.iter().enumerate() {
            copy(node.gateway().path().join("output.log"), &format!("gateway-{number}.log"));
            copy(node.gateway().path().join("state/audit.jsonl"), &format!("gateway-{number}.audit.jsonl"));
        }
        copy(self.database.log(), "postgresql.log");
        for table in ["grants", "revocations", "changes"] {
            let rows = self.database.psql("proof", &format!("SELECT * FROM tenantd.{table}"));
            std::fs::write(folder.join(table), rows).expect("written");
        }
    }
}

impl Node {
    pub(super) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it is there")
    }

    pub(super) fn kill(&mut self) {
        self.gateway = self.gateway.take().map(Gateway::killed);
    }

    pub(super) async fn start_again(&mut self) {
        self.gateway = Some(self.gateway.take().expect("it is there").start_again().await);
    }

    /// Has it drain, and waits until it has ended.
    pub(super) async fn stop(&mut self) {
        let gateway = self.gateway.as_mut().expect("it is there");
        gateway.signal("TERM");
        let status = gateway.until_ended().await;
        assert!(status.success(), "{status}: {}", gateway.output());
        // Its ready file would be taken for the next process's.
        self.kill();
    }

    /// Returns the command line there, for its gateway.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.enter(&binary());
        command.args(arguments).args(["--admin", "127.0.0.1:9000"]);
        command
    }

    /// Runs the command line there against its gateway; none if it takes long.
    pub(super) async fn tenantd(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(8), command.output()).await.ok()?;
        Some(output.expect("nsenter runs"))
    }
}
