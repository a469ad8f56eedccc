//! A database that a gateway cannot use: `serve` does not start, and it, `store check` and the doctor
//! each name the cause and what to do.

use super::doctor::Doctor;
use super::harness::Setup;
use super::postgres::Database;
use super::state::printed;

/// What is wrong with a database.
struct Fault {
    /// What breaks it, run by the server's owner; `{}` is the name of the database and of its user.
    sql: &'static str,
    /// What an address is changed to.
    address: fn(&str) -> String,
    /// What must be named.
    cause: &'static str,
    /// What must be said to do.
    help: &'static str,
    /// Whether a database without tables has this fault, too. Otherwise it has been used before.
    is_of_new: bool,
}

const UNCHANGED: fn(&str) -> String = |address| address.to_owned();

const FAULTS: [Fault; 9] = [
    Fault {
        sql: "ALTER ROLE {} PASSWORD 'another'",
        address: UNCHANGED,
        cause: "password authentication failed",
        help: "check its user, the file of its password",
        is_of_new: false,
    },
    Fault {
        sql: "SELECT 1",
        address: |address| address.replace("?sslrootcert", "nothing?sslrootcert"),
        cause: "does not exist",
        help: "create the database with createdb, or correct its name",
        is_of_new: false,
    },
    Fault {
        sql: "SELECT 1",
        address: |address| address[..address.find('?').expect("parameters")].to_owned(),
        cause: "certificate",
        help: "sslrootcert=FILE",
        is_of_new: false,
    },
    Fault {
        sql: "ALTER ROLE {} CONNECTION LIMIT 0",
        address: UNCHANGED,
        cause: "too many connections",
        help: "raise max_connections, or put a pooler in front",
        is_of_new: false,
    },
    Fault {
        sql: "ALTER ROLE {} SET default_transaction_read_only = on",
        address: UNCHANGED,
        cause: "can only be read",
        help: "give the address of the primary",
        is_of_new: false,
    },
    Fault {
        sql: "ALTER DATABASE {} OWNER TO postgres; REVOKE ALL ON DATABASE {} FROM PUBLIC; GRANT CONNECT ON DATABASE {} TO {}",
        address: UNCHANGED,
        cause: "may not do this",
        help: "GRANT CREATE ON DATABASE",
        is_of_new: true,
    },
    Fault {
        sql: "ALTER TABLE tenantd.grants OWNER TO postgres",
        address: UNCHANGED,
        cause: "it may not read and write grants",
        help: "the owner of the tables in the schema tenantd",
        is_of_new: false,
    },
    Fault {
        sql: "UPDATE tenantd.schema_version SET number = 99, readable_from = 99",
        address: UNCHANGED,
        cause: "written by a newer tenantd",
        help: "run that version",
        is_of_new: false,
    },
    Fault {
        sql: "ALTER ROLE {} SET synchronous_commit = off",
        address: UNCHANGED,
        cause: "does not wait for its disk",
        help: "SET synchronous_commit = on",
        is_of_new: false,
    },
];

#[tokio::test]
async fn what_is_wrong_with_a_database_is_named_by_serve_store_check_and_the_doctor() {
    let any = Database::new();
    let [_, _, key_flag, key] = any.files();
    let alone = Setup::new().flag(&key_flag, &key).start().await.killed();
    let state = &alone.path().join("state");
    let told = FAULTS.iter().map(async |fault| {
        let database = Database::new();
        if !fault.is_of_new {
            let used = database.join(Setup::new()).start().await;
            drop(used.killed());
        }
        database.sql(&fault.sql.replace("{}", &database.name));
        let [password_flag, password, key_flag, key] = database.files();
        let address = (fault.address)(&database.address());
        let flags = ["--store", &address, &password_flag, &password, &key_flag, &key];

        let setup = Setup::new().flag("--store", &address).flag(&password_flag, &password);
        let served = setup.flag(&key_flag, &key).refusal().await;
        let checked = database.store(state, &["check", "--store", &address]);
        assert!(!checked.status.success(), "{}: {}", fault.sql, printed(&checked));
        let said = Doctor::new(&flags).ask().await;
        let verdict = said.verdict("database-unusable").to_string();
        let mut all = vec![("serve", served), ("doctor", verdict)];
        // Without tables there is nothing to check, and nothing that lacks rights.
        all.extend((!fault.is_of_new).then(|| ("store check", printed(&checked))));
        for (who, text) in all {
            let is_told = text.contains(fault.cause) && text.contains(fault.help);
            assert!(is_told, "{who} with {} ({address}): {text}", fault.sql);
            assert!(!text.contains("canary-password"), "{who} tells the password: {text}");
        }
    });
    futures_util::future::join_all(told).await;
}
