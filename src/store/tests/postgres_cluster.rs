//! PostgreSQL servers of one test alone, which it may freeze, kill and promote, and PgBouncer in front
//! of one.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Finds the programs; root becomes postgres, since the server refuses root.
const PRELUDE: &str = r#"
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(readlink -f "$(command -v initdb)")")
as=
if [ "$(id -u)" = 0 ]; then as="setpriv --reuid=postgres --regid=postgres --clear-groups --"; fi
own() { if [ "$(id -u)" = 0 ]; then chown postgres: "$@"; fi; }
start() {
    $as setsid "$bin/postgres" -D "$PWD/data" -k "$PWD" -p "$port" -c listen_addresses=127.0.0.1 -c fsync=off \
        "$@" >>server.log 2>&1 &
    tries=0
    until "$bin/pg_isready" -q -h "$PWD" -p "$port" -U postgres; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { cat server.log >&2; exit 1; }
        sleep 0.1
    done
}
port=$1
shift
"#;
const CREATE: &str = r#"
mkdir -m 700 data && own data .
$as "$bin/initdb" -D "$PWD/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >initdb.log 2>&1
start
"#;
const COPY: &str = r#"
own .
$as "$bin/pg_basebackup" -h 127.0.0.1 -p "$1" -U postgres -D "$PWD/data" -R -X stream -c fast --no-sync >copy.log 2>&1
start
"#;
const BOUNCER: &str = r#"
cat >bouncer.ini <<END
[databases]
* = host=127.0.0.1 port=$1 user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = $2
default_pool_size = 3
server_login_retry = 1
logfile = $PWD/bouncer.log
pidfile = $PWD/bouncer.pid
END
own . bouncer.ini
PATH=$PATH:/usr/sbin $as pgbouncer -q -d bouncer.ini
"#;

/// A server, which is killed when the value is dropped.
pub(crate) struct OwnServer {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// Whether the folder is a disk of its own.
    is_mounted: bool,
}

impl OwnServer {
    /// Starts an empty server.
    pub(crate) fn start() -> Self {
        let server = Self::in_new_folder();
        server.run(CREATE, &[]);
        server
    }

    /// Starts a replica, without which the primary acknowledges nothing from then on.
    pub(crate) fn start_replica(&self) -> Self {
        let replica = Self::in_new_folder();
        replica.run(COPY, &[&self.port.to_string()]);
        self.psql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.psql("SELECT pg_reload_conf()");
        for _ in 0..300 {
            if self.psql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").trim() == "1" {
                return replica;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the replica does not follow");
    }

    fn in_new_folder() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        Self { folder, port: free_port(), is_mounted: false }
    }

    /// Starts an empty server on a disk of its own of so many MiB, in memory. The user must be allowed
    /// to mount.
    pub(crate) fn start_on_small_disk(mib: u32) -> Self {
        let mut server = Self::in_new_folder();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=755"), "tmpfs"])
            .arg(server.folder.path())
            .status();
        assert!(mount.is_ok_and(|mount| mount.success()), "mounted");
        server.is_mounted = true;
        server.run(CREATE, &[]);
        server
    }

    /// Returns the folder with the server's data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, script: &str, arguments: &[&str]) {
        run(self.folder.path(), script, self.port, arguments);
    }

    /// Starts it again after [`OwnServer::kill`].
    pub(crate) fn restart(&self) {
        self.run("rm -f data/postmaster.pid .s.PGSQL.*; start -c synchronous_standby_names=", &[]);
    }

    /// Makes a replica the primary.
    pub(crate) fn promote(&self) {
        self.run(r#"$as "$bin/pg_ctl" promote -w -D "$PWD/data" >promote.log"#, &[]);
        self.psql("ALTER SYSTEM SET synchronous_standby_names = ''");
        self.psql("SELECT pg_reload_conf()");
    }

    /// Ends it at once, as a power failure does.
    pub(crate) fn kill(&self) {
        let processes = self.processes();
        signal("KILL", &processes);
        for _ in 0..200 {
            if !processes.iter().any(|id| Path::new(&format!("/proc/{id}/exe")).exists()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Stops all its processes where they are. The kernel still takes connections.
    pub(crate) fn freeze(&self) {
        signal("STOP", &self.processes());
    }

    pub(crate) fn thaw(&self) {
        signal("CONT", &self.processes());
    }

    /// Returns the ids of the server and its backends.
    fn processes(&self) -> Vec<String> {
        let about = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        let Some(server) = about.lines().next().map(str::to_owned) else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let mut processes = vec![server];
        processes.extend(children.unwrap_or_default().split_whitespace().map(str::to_owned));
        processes
    }

    /// Runs SQL as the server's owner and returns what it says, without decoration.
    pub(crate) fn psql(&self, sql: &str) -> String {
        let port = self.port.to_string();
        let ran = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"])
            .args(["-h", "127.0.0.1", "-p", &port, "-c", sql])
            .output()
            .expect("psql runs");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
        if self.is_mounted {
            let _unmounted = Command::new("umount").arg("-l").arg(self.folder.path()).status().is_ok();
        }
    }
}

/// Returns the address of a database on several servers or poolers.
pub(crate) fn address(ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/postgres?sslmode=disable", hosts.join(","))
}

/// PgBouncer in front of a server, which is killed when the value is dropped.
pub(crate) struct Bouncer {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Bouncer {
    pub(crate) fn start(server: &OwnServer, mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        let bouncer = Self { folder, port: free_port() };
        run(bouncer.folder.path(), BOUNCER, bouncer.port, &[&server.port.to_string(), mode]);
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", bouncer.port)).is_ok() {
                return bouncer;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("PgBouncer does not listen");
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let id = fs::read_to_string(self.folder.path().join("bouncer.pid")).unwrap_or_default();
        signal("KILL", &[id.trim().to_owned()]);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

fn run(folder: &Path, script: &str, port: u16, arguments: &[&str]) {
    let script = format!("{PRELUDE}{script}");
    let ran = Command::new("sh")
        .current_dir(folder)
        .args(["-c", &script, "sh", &port.to_string()])
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("sh runs");
    assert!(
        ran.status.success(),
        "PostgreSQL does not do it (Debian: apt-get install postgresql pgbouncer): {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn signal(name: &str, processes: &[String]) {
    if !processes.is_empty() {
        let _ended = Command::new("kill").arg("-s").arg(name).args(processes).output().expect("kill runs");
    }
}
