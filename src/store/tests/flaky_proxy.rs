//! A proxy in front of the test server that breaks connections at chosen moments: before a statement
//! reaches the server, or after it was done and before its answer arrives.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// Statements reach the server; the first answer ends the connection unseen.
    LoseAnswers,
    /// All is well until a step of a grant is on its way to the server, then as above.
    LoseAnswersFromStep,
    /// Statements reach the server, and answers go nowhere.
    SwallowAnswers,
    /// Nothing passes, and connections end.
    Cut,
}

/// How a statement begins that takes a step of a grant.
const STEP: &[u8] = b"UPDATE tenantd.grants SET number";

/// The proxy. It goes on until the process ends.
pub(crate) struct FlakyProxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    fault: AtomicU8,
    /// How often all open connections were deafened.
    era: AtomicU32,
}

impl FlakyProxy {
    /// Starts a proxy to a server's Unix socket.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        drop(std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.fault.load(Ordering::SeqCst) != Fault::Cut as u8 {
                    join(client, UnixStream::connect(&socket).expect("the server listens"), &shared);
                }
            }
        }));
        Self { port, state }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Has no answer pass on the connections that are open now. New ones work.
    pub(crate) fn deafen_open_connections(&self) {
        self.state.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the address of a database behind the proxy, for the server's owner.
    pub(crate) fn address(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

/// Passes bytes in both directions, in threads that end with the connection.
fn join(client: TcpStream, server: UnixStream, state: &Arc<State>) {
    let era = state.era.load(Ordering::SeqCst);
    let end = {
        let (client, server) = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
        Arc::new(move || {
            let _ended = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        })
    };
    let pass = |mut from: Box<dyn Read + Send>, mut to: Box<dyn Write + Send>, is_answer: bool| {
        let (state, end) = (Arc::clone(state), Arc::clone(&end));
        drop(std::thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if !is_answer && buffer[..length].windows(STEP.len()).any(|text| text == STEP) {
                    let (from, to) = (Fault::LoseAnswersFromStep as u8, Fault::LoseAnswers as u8);
                    let _other = state.fault.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
                }
                let now = state.fault.load(Ordering::SeqCst);
                let is_deaf = state.era.load(Ordering::SeqCst) != era;
                if is_answer && (is_deaf || now == Fault::SwallowAnswers as u8) {
                    continue;
                }
                let is_lost = is_answer && now == Fault::LoseAnswers as u8;
                if now == Fault::Cut as u8 || is_lost || to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            end();
        }));
    };
    let halves = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
    pass(Box::new(client), Box::new(server), false);
    pass(Box::new(halves.1), Box::new(halves.0), true);
}
