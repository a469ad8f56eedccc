//! What operators do, and what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::pebble::{Options, Pebble};
use super::until_trouble;
use super::visitor::Visitor;
use crate::harness::{PATIENCE, until};

#[tokio::test]
async fn the_command_line_lists_renews_and_explains() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let admin = gateway.admin_address().to_string();
    let certs = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tenantd"))
            .arg("certs")
            .args(arguments)
            .args(["--admin", &admin])
            .current_dir(gateway.path())
            .output()
            .expect("it runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = certs(&["list"]);
    assert!(code == Some(0) && text.contains("mcp.test") && text.contains("valid"), "{text}");
    let (code, text) = certs(&["test", "mcp.test"]);
    assert!(code == Some(0) && text.contains("can be obtained"), "{text}");
    assert_eq!(visitor.serial("mcp.test").await, Some(first.clone()), "a rehearsal changed what is served");
    let (code, text) = certs(&["renew", "mcp.test"]);
    assert!(code == Some(0), "{text}");
    assert!(visitor.serial("mcp.test").await.is_some_and(|serial| serial != first));
    let (code, text) = certs(&["renew", "other.test"]);
    assert!(code == Some(1) && text.contains("certs list"), "{text}");
    let (code, text) = certs(&["show", "mcp.test"]);
    assert!(code == Some(0) && text.contains("tls-alpn-01"), "{text}");
    // mcp.test is known to the CA's name service only, and the ports are not those of the internet.
    let config = gateway.path().join("tenantd.yaml").display().to_string();
    let (code, text) = certs(&["doctor", "--config", &config, "--host", "mcp.test"]);
    assert!(
        code == Some(1) && text.contains("ok  https://localhost") && text.contains("!!  mcp.test"),
        "{text}"
    );
}

#[tokio::test]
async fn a_key_others_could_read_is_closed_and_replaced() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let sets = fs::read_dir(gateway.path().join("certs/sets")).expect("a folder");
    let bundle = sets.flatten().next().expect("a set").path().join("bundle.pem");
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o644)).expect("changed");
    let gateway = gateway.kill_and_restart().await;
    until("another key is served", async || {
        visitor.serial("mcp.test").await.filter(|serial| *serial != first)
    })
    .await;
    assert_eq!(fs::metadata(&bundle).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(gateway.output().contains("could read the key"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said_and_something_is_served() {
    let pebble = Pebble::start(Options::default()).await;
    let setup = pebble.setup("").flag("--host", "mcp.test");
    fs::write(setup.path().join("certs"), "not a folder").expect("written");
    let gateway = setup.start().await;
    until_trouble(&gateway, "mcp.test", "--certs").await;
    assert!(Visitor::trusting_nobody(pebble.tls_port).is_served("mcp.test").await);
    assert_eq!(pebble.orders(), 0);
    // Mended, it is taken up without a restart.
    fs::remove_file(gateway.path().join("certs")).expect("removed");
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let soon = tokio::time::timeout(PATIENCE * 2, async {
        while visitor.serial("mcp.test").await.is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    soon.await.expect("it is certified once the folder is mended");
}
