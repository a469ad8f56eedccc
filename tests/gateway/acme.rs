//! Certificates by ACME from a real CA on loopback: Debian's `pebble` in strict mode, whose name
//! service resolves every name to the gateway.

mod cluster;
mod faults;
mod figures;
mod front;
mod issuance;
mod operator;
pub(crate) mod pebble;
mod renewal;
mod upgrade;
pub(crate) mod visitor;

use serde_json::Value;

use super::harness::{Gateway, until};

/// Returns the status of the certificate for `name`.
async fn status(gateway: &Gateway, name: &str) -> Option<Value> {
    let (_, text) = gateway.admin("/api/certs").await;
    let statuses: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    statuses.into_iter().find(|status| status["name"] == name)
}

async fn until_trouble(gateway: &Gateway, name: &str, words: &str) -> Value {
    until(&format!("{name} is in trouble: {words}"), async || {
        status(gateway, name)
            .await
            .filter(|status| status["trouble"].as_str().is_some_and(|it| it.contains(words)))
    })
    .await
}

async fn post(gateway: &Gateway, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", gateway.admin_address());
    let answer = reqwest::Client::new().post(url).send().await.expect("the admin listener answers");
    (answer.status().as_u16(), answer.text().await.expect("a text"))
}

async fn renew(gateway: &Gateway, name: &str) {
    let (status, text) = post(gateway, &format!("/-/renew/{name}")).await;
    assert_eq!(status, 200, "{text}");
}
