//! The harness of the gateway's tests.

pub(crate) mod backend;
pub(crate) mod beside;
pub(crate) mod client;
#[expect(dead_code, reason = "the unit tests of `identity` use more of it")]
pub(crate) mod entra;
pub(crate) mod export;
pub(crate) mod gateway;
pub(crate) mod login;
pub(crate) mod portal;
pub(crate) mod secret;

pub(crate) use backend::{FakeBackend, Reply};
pub(crate) use beside::Beside;
pub(crate) use client::{Client, Era};
pub(crate) use export::Tenant;
pub(crate) use gateway::{Gateway, Setup};

use std::time::Duration;

/// The deadline of every wait in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Polls `question` until it returns a value. Panics with `what` after [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if let Some(answer) = question().await {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain until {what}");
}
