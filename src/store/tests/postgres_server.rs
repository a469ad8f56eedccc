//! A PostgreSQL server for tests: one for all test processes, started by the first and stopped after
//! the last, and a database for each test. Tests that need it fail where PostgreSQL is not
//! installed.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts the server in the working directory. The server refuses root, so root becomes postgres.
const START: &str = r#"
set -eu
port=$1
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(readlink -f "$(command -v initdb)")")
as=
if [ "$(id -u)" = 0 ]; then as="setpriv --reuid=postgres --regid=postgres --clear-groups --"; fi
rm -rf data sockets
mkdir -m 700 data
mkdir sockets
if [ "$(id -u)" = 0 ]; then chown postgres: data sockets; fi
$as "$bin/initdb" -D "$PWD/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >initdb.log 2>&1
cp server.crt server.key data/
if [ "$(id -u)" = 0 ]; then chown postgres: data/server.crt data/server.key; fi
chmod 600 data/server.key
printf 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >data/pg_hba.conf
$as setsid "$bin/postgres" -D "$PWD/data" -k "$PWD/sockets" -p "$port" -c listen_addresses=127.0.0.1 \
    -c fsync=off -c max_connections=300 -c ssl=on >server.log 2>&1 &
tries=0
until "$bin/pg_isready" -q -h "$PWD/sockets" -p "$port"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cat server.log >&2; exit 1; }
    sleep 0.1
done
"#;

/// Waits until no test uses the server, and stops it. A test that comes just then goes first.
const STOP: &str = r#"
while :; do
    flock -x users.lock true
    if flock -x start.lock flock -n -x users.lock sh -c \
        'kill -INT "$(head -n 1 data/postmaster.pid)" && while [ -e data/postmaster.pid ]; do sleep 0.1; done; rm -rf data'
    then exit; fi
done
"#;

/// The server, which runs as long as somebody has such a value.
pub(crate) struct PostgresServer {
    folder: PathBuf,
    port: u16,
    _use: File,
}

impl PostgresServer {
    /// Starts the server unless it runs.
    pub(crate) fn acquire() -> Self {
        let uid = Command::new("id").arg("-u").output().expect("id runs").stdout;
        let folder =
            std::env::temp_dir().join(format!("tenantd-postgres-{}", String::from_utf8_lossy(&uid).trim()));
        fs::create_dir_all(&folder).expect("created");
        let open = |name: &str| File::create(folder.join(name)).expect("created");
        let starting = open("start.lock");
        starting.lock().expect("locked");
        let usage = open("users.lock");
        usage.lock_shared().expect("locked");
        let port = running_port(&folder).unwrap_or_else(|| start(&folder));
        drop(starting);
        Self { folder, port, _use: usage }
    }

    /// Creates a database with a name of its own, and returns the name.
    pub(crate) fn create_database(&self) -> String {
        let mut name = String::from("t");
        let bytes = fs::read("/proc/sys/kernel/random/uuid").expect("read");
        name.extend(bytes.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_alphanumeric));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs SQL as the server's owner and returns what it says, without decoration.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let ran = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .args(["-p", &self.port.to_string(), "-c", sql])
            .arg("-h")
            .arg(self.folder.join("sockets"))
            .output()
            .expect("psql runs");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Returns the address of a database over the Unix socket, for the server's owner.
    pub(crate) fn address(&self, database: &str) -> String {
        let socket = self.socket();
        let folder = socket.parent().expect("a folder").display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// Returns the server's Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(format!("sockets/.s.PGSQL.{}", self.port))
    }

    /// Returns the address of a database over TCP, where a password is asked for.
    pub(crate) fn tcp_address(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost:{}/{database}", self.port)
    }

    /// Returns the file of the certificate that the server shows, which signed itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }
}

/// Returns the port of the server, if it runs.
fn running_port(folder: &Path) -> Option<u16> {
    let about = fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    let mut lines = about.lines();
    let pid = lines.next()?;
    let port = lines.nth(2)?.trim().parse().ok()?;
    Path::new("/proc").join(pid.trim()).exists().then_some(port)
}

fn start(folder: &Path) -> u16 {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| {
        let mut file = File::create(folder.join(name)).expect("created");
        file.write_all(text.as_bytes()).expect("written");
    };
    write("server.crt", certificate.cert.pem());
    write("server.key", certificate.signing_key.serialize_pem());
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.current_dir(folder).args(["-c", script, "sh", &port.to_string()]).stdin(Stdio::null());
        shell
    };
    let started = shell(START).output().expect("sh runs");
    assert!(
        started.status.success(),
        "PostgreSQL does not start (Debian: apt-get install postgresql): {}",
        String::from_utf8_lossy(&started.stderr)
    );
    let mut stopping = shell(STOP);
    drop(stopping.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh runs"));
    port
}
