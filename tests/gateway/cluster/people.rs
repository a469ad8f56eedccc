//! People and programs whose logins an operator ends at another gateway.

use super::*;
/// The member of a token response.
const ACCESS_TOKEN: &str = "access_token";

#[tokio::test]
async fn programs_lose_their_tokens_wherever_they_got_them() {
    let pair = Pair::start().await;
    let [at_one, at_other] = pair.registered().await;
    let program_secret = secret("program");
    let form =
        [("grant_type", "client_credentials"), ("client_id", "job"), ("client_secret", &*program_secret)];
    for (app, arguments) in [
        (&at_one, ["logins", "end", "--tenant", "a", "--yes"].as_slice()),
        (&at_other, &["logins", "end", "--all", "--yes"]),
        (&at_one, &["logins", "end", "--client", "nightly", "--yes"]),
    ] {
        let access =
            app.post("/token", &form).await.json()[ACCESS_TOKEN].as_str().expect("a token").to_owned();
        assert_eq!(call(app.gateway, &access).await, 200);
        let elsewhere = if std::ptr::eq(app.gateway, &pair.one) { &pair.other } else { &pair.one };
        order(elsewhere, arguments).await;
        until_out(app.gateway, &access, "a program's token is out where it was issued").await;
        // The next one is issued in another second than the revocation.
        until("the program gets another token", async || {
            let bought = app.post("/token", &form).await.json();
            (call(app.gateway, bought[ACCESS_TOKEN].as_str()?).await == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_blocked_person_is_out_everywhere_while_the_account_is_still_looked_for() {
    let pair = Pair::start().await;
    let [at_one, at_other] = pair.registered().await;
    let tokens = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &tokens.access).await, 200);
    // The account is looked for among the grants.
    let held = pair.database.hold_table("grants");
    let blocking = order(&pair.one, &["logins", "block", ADA, "--all-tenants"]);
    let out = async {
        until_out(&pair.other, &tokens.access, "she is out before her account was found").await;
        drop(held);
    };
    tokio::join!(blocking, out);
    assert_ne!(call(&pair.other, &tokens.access).await, 200);
    assert_eq!(pair.database.count("blocks"), "1", "the block by name was only for the moment");
    order(&pair.other, &["logins", "unblock", ADA]).await;
    until_let_in(&at_other, &pair.entra, "she gets in again").await;
}
