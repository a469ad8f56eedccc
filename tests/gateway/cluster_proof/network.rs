//! A small network in namespaces: the test's own, and one for each gateway and the database.
//!
//! Everything lives in a process namespace, too, so that nothing outlives the test.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Says that this process is in the namespaces already.
const INSIDE: &str = "TENANTD_PROOF_INSIDE";
/// The address of the clients, of Entra and of the backend.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(super) const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 20);

/// Runs a test in namespaces of its own: starts this program again with the test's full name, or
/// runs the test if that was done.
pub(super) fn run_inside(test: &str, run: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.expect("a runtime").block_on(run);
    }
    let tools = ["unshare -n true", "nft --version", "ip -V"];
    let lacking = tools.iter().find(|tool| {
        let tried = Command::new("sh").args(["-c", tool]).stdout(Stdio::null()).status();
        !tried.is_ok_and(|status| status.success())
    });
    if let Some(tool) = lacking {
        assert!(std::env::var_os("CI").is_none(), "`{tool}` fails here, and CI needs it");
        return eprintln!("skipped: `{tool}` fails here");
    }
    let status = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status();
    assert!(status.expect("unshare runs").success(), "see above");
}

/// The network, with what the gateways reach on the host's loopback.
pub(super) struct Network {
    /// The ports, as a set of nft.
    ports: String,
}

/// Brings up this machine's loopback, which a new namespace has down.
pub(super) fn bring_up_loopback() {
    shell(&mut Command::new("sh"), "ip link set lo up");
}

impl Network {
    /// Makes the host's side. The gateways reach these ports of its loopback as their own.
    pub(super) fn new(ports: &[u16]) -> Self {
        shell(
            &mut Command::new("sh"),
            &format!(
                "ip link add br0 type bridge; ip addr add {HOST}/24 dev br0; ip link set br0 up
                 sysctl -qw net.ipv4.conf.all.route_localnet=1"
            ),
        );
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let rules = format!(
            "table ip reach {{
                chain prerouting {{
                    type nat hook prerouting priority -100
                    iifname br0 ip daddr {HOST} tcp dport {{ {ports} }} dnat to 127.0.0.1
                }}
            }}\n"
        );
        nft(&mut Command::new("nft"), &rules);
        Self { ports }
    }

    /// Adds a machine with an address.
    pub(super) fn add(&self, address: Ipv4Addr) -> Machine {
        let holder =
            Command::new("unshare").args(["-n", "--", "sleep", "infinity"]).spawn().expect("unshare runs");
        let machine = Machine { address, holder };
        let own = fs::read_link("/proc/self/ns/net").expect("it has one");
        while fs::read_link(format!("/proc/{}/ns/net", machine.pid())).is_ok_and(|theirs| theirs == own) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let (pid, number) = (machine.pid(), address.octets()[3]);
        shell(
            &mut Command::new("sh"),
            &format!(
                "ip link add host{number} type veth peer name eth0 netns {pid}; ip link set host{number} master br0 up"
            ),
        );
        shell(
            &mut machine.enter("sh"),
            &format!(
                "ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up
                 sysctl -qw net.ipv4.conf.all.route_localnet=1"
            ),
        );
        let ports = &self.ports;
        let rules = format!(
            "table ip reach {{
                chain output {{
                    type nat hook output priority -100
                    ip daddr 127.0.0.1 tcp dport {{ {ports} }} dnat to {HOST}
                }}
                chain postrouting {{
                    type nat hook postrouting priority 100
                    oifname eth0 ip saddr 127.0.0.0/8 masquerade
                }}
            }}\n"
        );
        nft(&mut machine.enter("nft"), &rules);
        machine
    }
}

/// What a machine is cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Everything,
    /// Nothing goes to this address or comes from it.
    Peer(Ipv4Addr),
    /// What is sent to this address arrives; its answers do not.
    AnswersOf(Ipv4Addr),
}

/// A network namespace.
pub(super) struct Machine {
    pub(super) address: Ipv4Addr,
    /// A process that only keeps the namespace.
    holder: Child,
}

impl Machine {
    pub(super) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Returns a command that runs a program there.
    pub(super) fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "--", program]);
        command
    }

    /// Drops packets without a word, until [`Machine::heal`].
    pub(super) fn cut(&self, cut: Cut) {
        let (input, output) = match cut {
            Cut::Everything => ("iifname eth0 drop".to_owned(), "oifname eth0 drop".to_owned()),
            Cut::Peer(peer) => (format!("ip saddr {peer} drop"), format!("ip daddr {peer} drop")),
            Cut::AnswersOf(peer) => (format!("ip saddr {peer} drop"), String::new()),
        };
        let rules = format!(
            "table ip cut {{
                chain input {{
                    type filter hook input priority 0
                    {input}
                }}
                chain output {{
                    type filter hook output priority 0
                    {output}
                }}
            }}\n"
        );
        nft(&mut self.enter("nft"), &rules);
    }

    /// Lets packets through again.
    pub(super) fn heal(&self) {
        nft(&mut self.enter("nft"), "delete table ip cut\n");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn shell(command: &mut Command, lines: &str) {
    let status = command.args(["-ec", lines]).status().expect("a shell");
    assert!(status.success(), "{lines}");
}

fn nft(command: &mut Command, rules: &str) {
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft runs");
    nft.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("it reads");
    assert!(nft.wait().expect("it ends").success(), "{rules}");
}
