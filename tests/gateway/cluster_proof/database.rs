//! A PostgreSQL server on a machine of its own, which can be killed and frozen.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::network::{DATABASE, Machine, Network};
use crate::harness::until;

/// Makes the database's files in the working directory, as postgres, since the server refuses root.
const PREPARE: &str = r#"
chmod 755 .
mkdir -m 700 data
mkdir sockets
chown postgres: data sockets
setpriv --reuid=postgres --regid=postgres --clear-groups -- \
    "$1/initdb" -D "$PWD/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >initdb.log 2>&1
cp server.crt server.key data/
chown postgres: data/server.crt data/server.key
chmod 600 data/server.key
printf 'local all all trust\nhostssl all all 10.99.0.0/24 scram-sha-256\n' >data/pg_hba.conf
"#;

/// The server with its database `proof`.
pub(super) struct Database {
    pub(super) machine: Machine,
    folder: TempDir,
    programs: PathBuf,
    postmaster: Child,
}

impl Database {
    /// Starts the server.
    pub(super) async fn start(network: &Network) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed([DATABASE.to_string()]).expect("a certificate");
        fs::write(folder.path().join("server.crt"), made.cert.pem()).expect("written");
        fs::write(folder.path().join("server.key"), made.signing_key.serialize_pem()).expect("written");
        let programs = programs();
        let prepared = Command::new("sh")
            .current_dir(folder.path())
            .args(["-euc", PREPARE, "sh"])
            .arg(&programs)
            .status();
        assert!(prepared.expect("sh runs").success(), "PostgreSQL is installed (Debian: postgresql)");
        let machine = network.add(DATABASE);
        let postmaster = spawn(&machine, folder.path(), &programs);
        let database = Self { machine, folder, programs, postmaster };
        database.until_ready().await;
        database.psql("postgres", "CREATE ROLE proof LOGIN PASSWORD 'canary-password'");
        database.psql("postgres", "CREATE DATABASE proof OWNER proof");
        database
    }

    /// Returns the flags with which a gateway uses it. The files are in `folder`.
    pub(super) fn flags(&self, folder: &Path) -> [(&'static str, String); 3] {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
            path.display().to_string()
        };
        let certificate = self.folder.path().join("server.crt").display().to_string();
        [
            ("--store", format!("postgres://proof@{DATABASE}/proof?sslrootcert={certificate}")),
            ("--store-password-file", write("password", "canary-password\n")),
            ("--master-key-file", write("master.key", &"ab".repeat(32))),
        ]
    }

    /// Kills all its processes.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.postmaster.wait().expect("it ended");
    }

    /// Starts it again after [`Database::kill`].
    pub(super) async fn start_again(&mut self) {
        let _none = fs::remove_file(self.folder.path().join("data/postmaster.pid"));
        self.postmaster = spawn(&self.machine, self.folder.path(), &self.programs);
        self.until_ready().await;
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Signals the postmaster first, so that it starts no other process meanwhile.
    fn signal(&self, signal: Signal) {
        let postmaster = self.postmaster.id();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.unwrap_or_default();
        let all =
            std::iter::once(postmaster).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()));
        for pid in all {
            // A child may have ended by itself.
            let _gone = kill_process(Pid::from_raw(pid.cast_signed()).expect("not 0"), signal);
        }
    }

    /// Runs SQL as the server's owner and returns what it says, without decoration.
    pub(super) fn psql(&self, database: &str, sql: &str) -> String {
        let ran = Command::new("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database,
                "-c",
                sql,
            ])
            .arg("-h")
            .arg(self.folder.path().join("sockets"))
            .output()
            .expect("psql runs");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Returns the server's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    async fn until_ready(&self) {
        until("the database is ready", async || {
            let mut asked = Command::new(self.programs.join("pg_isready"));
            asked.arg("-q").arg("-h").arg(self.folder.path().join("sockets"));
            asked.status().expect("pg_isready runs").success().then_some(())
        })
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kill();
        // Those that it leaves end by themselves; the folder must not go before them.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (Debian: postgresql)");
    let versions = versions.flatten().map(|entry| entry.path().join("bin"));
    versions.max().expect("a version of PostgreSQL")
}

fn spawn(machine: &Machine, folder: &Path, programs: &Path) -> Child {
    let log = File::options().append(true).create(true).open(folder.join("server.log")).expect("made");
    machine
        .enter("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder.join("sockets"))
        .args(["-c", &format!("listen_addresses={DATABASE}")])
        // Its processes die here, not the machine: what was written is in the page cache.
        .args(["-c", "fsync=off", "-c", "ssl=on", "-c", "max_connections=100"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("nsenter runs")
}
