//! A PostgreSQL database that several stores of a test share, and a way to it that can be cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};

use crate::base::random;
use crate::store::auth::postgres::{PostgresAddress, PostgresEngine};
use crate::store::cluster::NodeIdentity;
use crate::store::keyring::Keyring;
use crate::store::tests::postgres_server::PostgresServer;
use crate::store::{ClusterStore, KeySource};

/// A database of its own.
pub(crate) struct ClusterDatabase {
    server: PostgresServer,
    name: String,
    keyring: Arc<Keyring>,
    folder: tempfile::TempDir,
}

/// Connections that lead through here.
pub(crate) struct CuttableLink {
    /// How many of the next answers are not passed on, with the end of their connections.
    cuts: Arc<AtomicU32>,
}

impl ClusterDatabase {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keyring = Arc::new(Keyring::load(folder.path(), &KeySource::State, true).expect("a key"));
        let server = PostgresServer::acquire();
        let name = server.create_database();
        Self { server, name, keyring, folder }
    }

    /// Opens the part of the database that gateways share.
    pub(crate) async fn connect(&self) -> ClusterStore {
        self.open(&self.server.address(&self.name)).await
    }

    /// The same over connections that can be cut.
    pub(crate) async fn connect_cuttable(&self) -> (ClusterStore, CuttableLink) {
        let address = self.server.address(&self.name);
        let socket = address.split(['@', '/']).nth(3).and_then(|socket| socket.rsplit_once(':'));
        let (folder, port) = socket.expect("the address is that of a socket");
        let to = Path::new(&folder.replace("%2F", "/")).join(format!(".s.PGSQL.{port}"));
        let own = self.folder.path().join(".s.PGSQL.5432");
        let cuts = Arc::new(AtomicU32::new(0));
        pass_on(UnixListener::bind(own).expect("bound"), to, Arc::clone(&cuts));
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        let store = self.open(&format!("postgres://postgres@{folder}:5432/{}", self.name)).await;
        (store, CuttableLink { cuts })
    }

    /// Runs SQL as the server's owner and returns what it says, without decoration.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).trim().to_owned()
    }

    /// Lets nobody in and ends the sessions, or lets everybody in again.
    pub(crate) fn set_reachable(&self, is_reachable: bool) {
        let name = &self.name;
        self.server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {is_reachable}"));
        if !is_reachable {
            let end =
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            self.server.psql("postgres", &end);
        }
    }

    async fn open(&self, address: &str) -> ClusterStore {
        let address = PostgresAddress::parse(address, None).expect("an address");
        let (id, boot, place) = (random::bytes(), random::bytes(), random::bytes());
        let engine = PostgresEngine::open(address, Arc::clone(&self.keyring), id).await.expect("opened");
        let node = NodeIdentity { id, name: "a node".to_owned(), boot, place };
        ClusterStore::join(engine, node).await.expect("joined")
    }
}

impl CuttableLink {
    /// Has the next answers get lost.
    pub(crate) fn cut(&self, answers: u32) {
        self.cuts.store(answers, Ordering::SeqCst);
    }

    /// Returns how many answers are still to get lost.
    pub(crate) fn left(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

/// Passes connections on, and ends those whose answers are to get lost.
#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
fn pass_on(listener: UnixListener, to: PathBuf, cuts: Arc<AtomicU32>) {
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, cuts) = (to.clone(), Arc::clone(&cuts));
            tokio::spawn(async move { pass_connection_on(client, &to, &cuts).await });
        }
    });
}

async fn pass_connection_on(client: UnixStream, to: &Path, cuts: &AtomicU32) {
    let server = UnixStream::connect(to).await.expect("the server listens");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = from_server.read(&mut buffer).await.unwrap_or(0);
            let is_cut =
                cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if length == 0 || is_cut || to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}
