//! What is wrong with a database of logins, as an operator reads it: at the start, of `store check`
//! and of `doctor`. What passes by itself does not keep a gateway from starting.

use super::doctor::Doctor;
use super::harness::{FakeBackend, Setup, Tenant};
use super::postgres::Database;
use super::state::printed;

/// A fault, how it is made and mended, and what is said of it.
struct Fault {
    make: String,
    mend: String,
    /// Replaces a part of the address.
    instead: Option<(&'static str, &'static str)>,
    said: &'static str,
    ends_start: bool,
}

fn faults(role: &str) -> Vec<Fault> {
    let fault = |make: &str, mend: &str, said| Fault {
        make: make.replace("NAME", role),
        mend: mend.replace("NAME", role),
        instead: None,
        said,
        ends_start: true,
    };
    let address = |from, to, said| Fault { instead: Some((from, to)), ..fault("", "", said) };
    let version =
        "UPDATE tenantd.schema_version SET number = number + 90, readable_from = readable_from + 90";
    let no_rights =
        "REVOKE ALL ON ALL TABLES IN SCHEMA tenantd FROM NAME; ALTER SCHEMA tenantd OWNER TO postgres";
    let rights = "GRANT ALL ON ALL TABLES IN SCHEMA tenantd TO NAME; ALTER SCHEMA tenantd OWNER TO NAME";
    vec![
        fault(
            "ALTER ROLE NAME PASSWORD 'another'",
            "ALTER ROLE NAME PASSWORD 'canary-password'",
            "store_password_file",
        ),
        fault(version, &version.replace('+', "-"), "written by a newer tenantd"),
        // A replica may be promoted.
        Fault {
            ends_start: false,
            ..fault(
                "ALTER ROLE NAME SET default_transaction_read_only = on",
                "ALTER ROLE NAME RESET ALL",
                "can only be read",
            )
        },
        fault(no_rights, rights, "make it the owner of the database"),
        address("localhost", "127.0.0.1", "sslrootcert=FILE"),
        address("?sslrootcert", "nowhere?sslrootcert", "createdb"),
        address("postgres://", "postgres:/", "write it as postgres://USER@HOST/DATABASE"),
        Fault {
            ends_start: false,
            ..fault(
                "ALTER ROLE NAME CONNECTION LIMIT 0",
                "ALTER ROLE NAME CONNECTION LIMIT -1",
                "raise max_connections",
            )
        },
    ]
}

#[tokio::test]
async fn each_fault_of_the_database_has_its_sentence_at_the_start_and_in_the_checks() {
    let (database, backend) = (Database::new(), FakeBackend::start().await);
    let setup = || Setup::new().file("open.yaml", Tenant::new("open", &backend).yaml());
    let gateway = database.join(setup()).start().await.killed();
    let state = gateway.path().join("state");
    let state_text = state.display().to_string();
    for Fault { make, mend, instead, said, ends_start } in faults(&database.name) {
        let address = match instead {
            Some((from, to)) => database.address().replace(from, to),
            None => database.address(),
        };
        database.query(&make);
        let checked = printed(&database.store(&state, &["check", "--store", &address]));
        assert!(checked.contains(said), "{said}: {checked}");
        let [password_flag, password, key_flag, key] = database.files();
        let arguments = ["--store", &address, &password_flag, &password, &key_flag, &key];
        let doctor = Doctor::new(&arguments).ask().await;
        let verdict = doctor.verdict("database-unusable");
        assert!(verdict.to_string().contains(said), "{said}: {verdict:#}");
        let setup = database.join(setup()).instead("--store", &address).state(&state_text);
        match ends_start {
            true => {
                let refusal = setup.refusal().await;
                assert!(refusal.contains(said), "{said}: {refusal}");
                assert!(!refusal.contains("canary-password"), "{refusal}");
            }
            false => {
                let started = setup.start().await;
                let (status, detail) = started.admin("/readyz").await;
                assert!(status == 503 && detail.contains(said), "{said}: {detail}");
                let _ended = started.killed();
            }
        }
        database.query(&mend);
    }
    // An older schema is upgraded by a start, and by nothing else.
    let version = "SELECT number FROM tenantd.schema_version";
    let number = database.query(version);
    database.query("UPDATE tenantd.schema_version SET number = 5");
    let checked = printed(&database.store(&state, &["check", "--store", &database.address()]));
    assert!(checked.contains("written by an older tenantd (schema 5"), "{checked}");
    assert_eq!(database.query(version), "5");
    database.query(&format!("UPDATE tenantd.schema_version SET number = {number}"));
    let sound = printed(&database.store(&state, &["check", "--store", &database.address()]));
    assert!(sound.contains("values of tenant_orders"), "{sound}");
}
