//! The harness of the gateway's tests.

pub(crate) mod backend;
pub(crate) mod beside;
pub(crate) mod client;
#[expect(dead_code, reason = "the unit tests of `identity` use more of it")]
pub(crate) mod entra;
pub(crate) mod export;
pub(crate) mod front;
pub(crate) mod gateway;
pub(crate) mod kubernetes;
pub(crate) mod login;
pub(crate) mod portal;
pub(crate) mod program;
pub(crate) mod secret;
pub(crate) mod service_manager;

pub(crate) use backend::{FakeBackend, Reply};
pub(crate) use beside::Beside;
pub(crate) use client::{Client, Era};
pub(crate) use export::Tenant;
pub(crate) use gateway::{Gateway, Setup};

use std::time::Duration;

/// The deadline of every wait in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Returns a port on which nothing listens, of those that the system gives to nobody by itself: it
/// stays free until a gateway that takes its time binds it.
pub(crate) fn unused_port() -> u16 {
    let drawn = || 10_000 + u16::from_le_bytes(tenantd::base::random::bytes()) % 20_000;
    let is_unused = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(drawn).take(100).find(is_unused).expect("one of them is unused")
}

/// Polls `question` until it returns a value. Panics with `what` after [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, question: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, question).await
}

/// Like [`until`], for events that take longer than most.
pub(crate) async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut question: impl AsyncFnMut() -> Option<T>,
) -> T {
    let polling = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let answer = tokio::time::timeout(patience, polling).await;
    answer.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}
