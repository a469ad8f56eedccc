//! Secrets in files of their own: however one is rotated, the new one is accepted and the old one
//! is not. Deleting one closes its tenant.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::harness::entra::{APP, DIRECTORY, FakeEntra};
use super::super::harness::login::{App, CALLBACK};
use super::super::harness::secret::secret;
use super::super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

/// The file names of the caller's key and the portal's key.
const NAMES: [&str; 2] = ["caller", "portal"];
/// Those of a login: the secrets of the app registration and of a program.
const LOGIN_NAMES: [&str; 2] = ["app", "program"];

/// The files that a tenant names, and how they are rotated.
struct Secrets {
    folder: PathBuf,
    names: [&'static str; 2],
    way: Way,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// Overwritten in place.
    Overwritten,
    /// Replaced by renaming other files.
    Renamed,
    /// As Kubernetes mounts a Secret: the names are links through `..data`, and that link is
    /// swapped.
    Swapped,
}

impl Secrets {
    fn of(folder: &Path, names: [&'static str; 2], way: Way) -> Self {
        fs::create_dir_all(folder).expect("made");
        let secrets = Self { folder: folder.to_owned(), names, way };
        if let Way::Swapped = way {
            for name in names {
                symlink(format!("..data/{name}"), secrets.file(name)).expect("linked");
            }
        }
        secrets.rotate("first");
        secrets
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the values of this round to both files.
    fn rotate(&self, round: &str) {
        match self.way {
            Way::Overwritten => self.names.iter().for_each(|name| write(&self.file(name), name, round)),
            Way::Renamed => self.names.iter().for_each(|name| {
                let draft = self.file("draft");
                write(&draft, name, round);
                fs::rename(&draft, self.file(name)).expect("renamed");
            }),
            Way::Swapped => {
                let version = self.file(&format!("..{round}"));
                fs::create_dir(&version).expect("made");
                self.names.iter().for_each(|name| write(&version.join(name), name, round));
                let draft = self.file("..data_tmp");
                symlink(format!("..{round}"), &draft).expect("linked");
                fs::rename(&draft, self.file("..data")).expect("swapped");
            }
        }
    }
}

fn write(file: &Path, name: &str, round: &str) {
    fs::write(file, value(name, round)).expect("written");
}

fn value(name: &str, round: &str) -> String {
    secret(&format!("{name}-{round}"))
}

/// Returns a tenant's file that names files for the callers' key and the portal's key.
fn yaml(backend: &FakeBackend, folder: &str) -> String {
    format!(
        "search_url: {}\ncontext_url: {}\nconnection_id: c\napi_key_file: {folder}portal\n\
         api_keys:\n  - label: caller\n    key_file: {folder}caller\n",
        backend.url("/nlp-search"),
        backend.url("/nlp-context"),
    )
}

/// Starts a gateway with a tenant whose secrets are in a folder of their own.
async fn mounted(backend: &FakeBackend, way: Way) -> (Gateway, Secrets) {
    let setup = Setup::new();
    let secrets = Secrets::of(&setup.path().join("secrets"), NAMES, way);
    let root = secrets.folder.display().to_string();
    let yaml = yaml(backend, &format!("{root}/"));
    let setup = setup.settings(&format!("secret_root: {root}\n")).file("acme.yaml", yaml);
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    (gateway, secrets)
}

/// Returns the status of a call with the key of this round.
async fn status(gateway: &Gateway, round: &str) -> u16 {
    gateway.client().bearer(&value("caller", round)).search(Era::Modern, "/acme", "q").await.status
}

/// Asserts that the keys of `round` are in force for caller and portal, and that the caller's key
/// of `not` is refused.
async fn assert_in_force(gateway: &Gateway, backend: &FakeBackend, round: &str, not: &str, what: &str) {
    assert_eq!(status(gateway, not).await, 401, "{what}");
    assert_eq!(status(gateway, round).await, 200, "{what}");
    let asked =
        backend.requests().into_iter().rev().find(|request| request.target.starts_with("/nlp-search"));
    let shown = asked.and_then(|request| request.header("x-api-key"));
    assert!(shown == Some(value("portal", round)), "{what}: the portal was shown another key");
}

#[tokio::test]
async fn a_rotated_secret_is_in_force_after_a_reload_and_the_old_one_is_refused() {
    let backend = FakeBackend::start().await;
    for way in [Way::Overwritten, Way::Renamed, Way::Swapped] {
        let (gateway, secrets) = mounted(&backend, way).await;
        let what = format!("{way:?}");
        assert_in_force(&gateway, &backend, "first", "second", &what).await;
        secrets.rotate("second");
        gateway.reload().await;
        assert_in_force(&gateway, &backend, "second", "first", &what).await;
        secrets.rotate("third");
        gateway.signal("HUP");
        until(&what, async || (status(&gateway, "third").await == 200).then_some(())).await;
        assert_in_force(&gateway, &backend, "third", "second", &what).await;
    }
}

#[tokio::test]
async fn a_rotated_secret_is_noticed_without_being_told_of() {
    let backend = FakeBackend::start().await;
    let (gateway, secrets) = mounted(&backend, Way::Swapped).await;
    secrets.rotate("second");
    until("the tick", async || (status(&gateway, "second").await == 200).then_some(())).await;
    assert_in_force(&gateway, &backend, "second", "first", "the tick").await;
}

#[tokio::test]
async fn a_secret_in_the_tenants_own_folder_is_rotated_too() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new();
    let folder = setup.path().join("tenants.d/acme");
    let secrets = Secrets::of(&folder, NAMES, Way::Renamed);
    let gateway = setup.file("acme/acme.yaml", yaml(&backend, "")).start().await;
    gateway.until_state("acme", "serving").await;
    secrets.rotate("second");
    until("the event", async || (status(&gateway, "second").await == 200).then_some(())).await;
    assert_in_force(&gateway, &backend, "second", "first", "the event").await;
}

#[tokio::test]
async fn a_deleted_secret_closes_its_tenant_until_it_is_there_again_over_a_restart_too() {
    let backend = FakeBackend::start().await;
    for name in NAMES {
        let (gateway, secrets) = mounted(&backend, Way::Overwritten).await;
        fs::remove_file(secrets.file(name)).expect("removed");
        gateway.reload().await;
        let told = gateway.until_state("acme", "rejected").await;
        assert_eq!(told["findings"][0]["code"], "secret-file", "{told}");
        assert_eq!(status(&gateway, "first").await, 404, "{name}");
        let gateway = gateway.kill_and_restart().await;
        gateway.until_state("acme", "rejected").await;
        secrets.rotate("second");
        gateway.reload().await;
        assert_in_force(&gateway, &backend, "second", "first", name).await;
        // Deleted while the gateway is down: the revision in force before does not come back.
        let gateway = gateway.killed();
        fs::remove_file(secrets.file(name)).expect("removed");
        let gateway = gateway.start_again().await;
        gateway.until_state("acme", "rejected").await;
        assert_eq!(status(&gateway, "second").await, 404, "{name}");
    }
}

#[tokio::test]
async fn a_secret_that_becomes_unusable_closes_what_it_guards() {
    let backend = FakeBackend::start().await;
    let (gateway, secrets) = mounted(&backend, Way::Overwritten).await;
    fs::write(secrets.file("caller"), "").expect("written");
    gateway.reload().await;
    let told = gateway.until_state("acme", "stale").await;
    assert_eq!(told["closed"], true, "{told}");
    assert_eq!(status(&gateway, "first").await, 503);
    secrets.rotate("second");
    gateway.reload().await;
    assert_in_force(&gateway, &backend, "second", "first", "mended").await;
}

#[tokio::test]
async fn the_secrets_of_a_login_are_rotated_by_file() {
    for way in [Way::Overwritten, Way::Renamed, Way::Swapped] {
        let what = format!("{way:?}");
        let (entra, backend) = (FakeEntra::start(&value("app", "first")).await, FakeBackend::start().await);
        let setup = Setup::new().flag("--entra-authority", &entra.authority());
        let secrets = Secrets::of(&setup.path().join("secrets"), LOGIN_NAMES, way);
        let root = secrets.folder.display().to_string();
        let tenant = Tenant::new("acme", &backend).with(&format!(
            "oauth_enabled: true\nmicrosoft_client_id: {APP}\nmicrosoft_tenant_id: {DIRECTORY}\n\
             microsoft_client_secret_file: {root}/app\n\
             machine_clients:\n  - {{id: job, label: Job, secret_file: {root}/program}}"
        ));
        let setup = setup.settings(&format!("secret_root: {root}\n")).file("acme.yaml", tenant.yaml());
        let gateway = setup.start().await;
        gateway.until_state("acme", "serving").await;
        let app = App::registered(&gateway, "/acme").await;
        let tokens = app.tokens(&entra).await;
        let (client_id, redirect_uri) = ("job".to_owned(), CALLBACK.to_owned());
        let job = App { gateway: &gateway, prefix: "/acme", client_id, redirect_uri };
        let buy = async |round: &str| {
            let secret = value("program", round);
            let form =
                [("grant_type", "client_credentials"), ("client_id", "job"), ("client_secret", &*secret)];
            job.post("/token", &form).await
        };
        let call =
            async |token: &str| gateway.client().bearer(token).search(Era::Modern, "/acme", "q").await.status;
        let bought = buy("first").await.json()["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(call(&bought).await, 200, "{what}");

        secrets.rotate("second");
        entra.secrets(&[&value("app", "second")]);
        gateway.reload().await;
        gateway.until_state("acme", "serving").await;
        let refused = buy("first").await;
        assert_eq!((refused.status, &refused.json()["error"]), (401, &"invalid_client".into()), "{what}");
        assert_eq!(call(&bought).await, 401, "{what}: what was bought with the old secret");
        let bought = buy("second").await.json()["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(call(&bought).await, 200, "{what}");
        // Entra takes the new secret alone: whoever logged in before renews with it, and others log in.
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*tokens.refresh),
            ("client_id", &*app.client_id),
        ];
        assert_eq!(app.post("/token", &form).await.status, 200, "{what}: a renewal");
        app.tokens(&entra).await;
    }
}
