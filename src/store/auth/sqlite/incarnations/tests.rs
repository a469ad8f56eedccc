use jiff::{Timestamp, ToSpan};

use super::*;
use crate::base::digest::Digest;
use crate::base::hex;
use crate::store::testkit::{new_auth_tables, open_auth_tables};
use crate::store::{
    CreateGrant, GrantId, KeySource, Revocation, RevokedSubject, RotateGrant, SealContext, SigningKey, Store,
    migration,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn new_incarnation(tenant: &str) -> Incarnation {
    Incarnation::new(&tenant.into())
}

fn begin_change(incarnation: &Incarnation, entry_id: &str) -> IncarnationChange {
    IncarnationChange::Begin(IncarnationRecord {
        incarnation: incarnation.clone(),
        entry_id: Some(entry_id.into()),
        payload: b"about".to_vec(),
    })
}

/// Stores an item of every kind. Returns the ids of the grant and of the client.
fn fill(store: &AuthTables, incarnation: &Incarnation) -> (GrantId, String) {
    let id = GrantId::random();
    let (client_id, details) = ("client".to_owned(), b"details".to_vec());
    let expires = NOW + 60.seconds();
    let grant = CreateGrant {
        id,
        client_id,
        now: NOW,
        code_expires_at: expires,
        family_key: [7; 32],
        payload: details,
    };
    store.create_grant(incarnation, grant).expect("kept");
    store
        .insert_first_signing_key(
            incarnation,
            &SigningKey { kid: "k".into(), signs_from: NOW, pkcs8: vec![7] },
        )
        .expect("kept");
    let client = format!("op-{}", incarnation.id());
    assert!(store.insert_client(incarnation, &client, b"document").expect("kept"));
    store.mark_client_removed(incarnation, "denied", NOW).expect("kept");
    let subject = RevokedSubject::Grant(GrantId::random());
    store
        .revoke(incarnation, Revocation { subject, issued_until: NOW, forget_at: NOW + 1.hour() })
        .expect("kept");
    (id, client)
}

/// Flips a byte of one value of a table in a copy of the store's folder, and opens the copy.
fn copy_and_tamper(folder: &std::path::Path, table: &str, column: &str) -> (tempfile::TempDir, AuthTables) {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["tenantd.db", "master.key"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).expect("copied");
    }
    let connection = Connection::open(copy.path().join("tenantd.db")).expect("opened");
    let flipped = match column {
        // Keep numbers numbers and texts texts.
        "number" | "issued_at" | "expires_at" | "ends_at" | "issued_until" | "forget_at" | "signs_from"
        | "denied_at" => {
            format!("{column} + 1000000")
        }
        "tenant" | "client_id" | "kid" | "stem" => format!("{column} || 'x'"),
        "id" if table == "clients" => "id || 'x'".to_owned(),
        _ => format!(
            "CAST(substr({column}, 1, length({column}) - 1) || (CASE WHEN substr({column}, -1) = x'00' THEN x'01' ELSE x'00' END) AS BLOB)"
        ),
    };
    let changed = connection.execute(&format!("UPDATE {table} SET {column} = {flipped}"), []);
    assert!(changed.expect("changed") > 0, "{table} is empty");
    drop(connection);
    let store = open_auth_tables(copy.path(), &KeySource::State);
    (copy, store)
}

#[test]
fn a_tampered_row_is_ignored_or_refused_and_grants_nothing() {
    let (folder, store) = new_auth_tables();
    let acme = new_incarnation("acme");
    store.apply_incarnation_changes(&[begin_change(&acme, "a")]).expect("kept");
    let of_acme = fill(&store, &acme);
    drop(store);
    let columns = |table: &str| {
        let connection = Connection::open(folder.path().join("tenantd.db")).expect("opened");
        let mut names = connection.prepare("SELECT name FROM pragma_table_info(?1)").expect("prepared");
        let names = names.query_map([table], |row| row.get::<_, String>(0)).expect("read");
        names.collect::<Result<Vec<_>, _>>().expect("read")
    };
    for column in columns("grants") {
        let (_copy, store) = copy_and_tamper(folder.path(), "grants", &column);
        let found = store.load_grant(&acme, of_acme.0, NOW);
        assert!(matches!(found, Err(Error::CannotUnseal) | Ok(None)), "grants.{column}: {found:?}");
    }
    for column in columns("signing_keys") {
        let (_copy, store) = copy_and_tamper(folder.path(), "signing_keys", &column);
        let found = store.load_signing_keys(&acme).map(|keys| keys.len());
        assert!(matches!(found, Err(Error::CannotUnseal) | Ok(0)), "signing_keys.{column}: {found:?}");
    }
    for column in columns("clients") {
        let (_copy, store) = copy_and_tamper(folder.path(), "clients", &column);
        let found = store.load_client(&acme, &of_acme.1);
        assert!(matches!(found, Err(Error::CannotUnseal) | Ok(None)), "clients.{column}: {found:?}");
    }
    for column in columns("revoked") {
        let (_copy, store) = copy_and_tamper(folder.path(), "revoked", &column);
        assert_eq!(store.load_revocations().expect("read").unreadable, 1, "revoked.{column}");
    }
    for column in columns("denied_clients") {
        let (_copy, store) = copy_and_tamper(folder.path(), "denied_clients", &column);
        assert_eq!(
            store.tenants_with_unreadable_removals().expect("read").len(),
            1,
            "denied_clients.{column}"
        );
    }
    for column in columns("lives") {
        let (_copy, store) = copy_and_tamper(folder.path(), "lives", &column);
        assert!(store.load_incarnations().expect("read").is_empty(), "lives.{column}");
    }
}

/// Writes what schema version 2 stored.
fn write_as_version_2(connection: &Connection, keys: &Keyring, id: GrantId) -> rusqlite::Result<()> {
    let (row, client) = (id.to_string(), Digest::of(b"denied"));
    let seal =
        |purpose, row: &str, value: &[u8]| keys.seal(&SealContext { purpose, tenant: "acme", row }, value);
    let raw: [u8; 16] = hex::decode(&row).expect("an id");
    connection.execute(
        "INSERT INTO grants (tenant, id, client_id, number, issued_at, expires_at, ends_at, family, details)
         VALUES ('acme', ?1, 'client', 3, 0, 60, 90, ?2, ?3)",
        params![raw, seal("family", &row, &[7; 32]), seal("grant", &row, b"details")],
    )?;
    connection.execute(
        "INSERT INTO signing_keys (tenant, kid, signs_from, pkcs8) VALUES ('acme', 'k', 0, ?1)",
        [seal("signing-key", "k", &[7])],
    )?;
    connection.execute(
        "INSERT INTO clients (tenant, id, document) VALUES ('acme', 'op', ?1)",
        [seal("client", "op", b"document")],
    )?;
    connection.execute(
        "INSERT INTO denied_clients (tenant, client, denied_at) VALUES ('acme', ?1, 0)",
        [client.as_bytes()],
    )?;
    connection.execute(
        "INSERT INTO revoked (tenant, subject, issued_until, forget_at) VALUES ('acme', ?1, 0, 60)",
        [client.as_bytes()],
    )?;
    connection.execute("INSERT INTO entries (stem) VALUES ('acme')", [])?;
    // Sealed with a key that is lost.
    let sealed = "INSERT INTO signing_keys (tenant, kid, signs_from, pkcs8) VALUES ('beta', 'k', 0, x'00')";
    connection.execute(sealed, []).map(drop)
}

#[test]
fn rows_of_version_2_belong_to_the_first_incarnation_of_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys =
        Keyring::load(folder.path(), &KeySource::State, true).unwrap_or_else(|error| panic!("{error}"));
    let mut connection = Connection::open(folder.path().join("tenantd.db")).expect("made");
    migration::apply_migrations(&mut connection, &keys, 0, 2).expect("made");
    let id = GrantId::random();
    write_as_version_2(&connection, &keys, id).expect("written");
    drop(connection);

    let store = Store::open(folder.path(), &KeySource::State).expect("brought up");
    assert!(!store.local().tables().load_entries().expect("read")[0].paused, "nobody paused it");
    let store = &store.auth_tables;
    let incarnations = store.load_incarnations().expect("read");
    let acme = incarnations
        .iter()
        .find(|kept| **kept.incarnation.tenant() == *"acme")
        .expect("it has an incarnation");
    assert_eq!((&acme.entry_id, acme.payload.len()), (&None, 0), "nobody has taken it");
    let acme = acme.incarnation.clone();
    let grant = store.load_grant(&acme, id, NOW).expect("read").expect("there");
    assert_eq!((grant.last_sequence, grant.family_key, &grant.payload[..]), (3, [7; 32], &b"details"[..]));
    assert_eq!(store.load_signing_keys(&acme).expect("read").len(), 1);
    assert_eq!(store.load_client(&acme, "op").expect("read").as_deref(), Some(&b"document"[..]));
    assert!(store.is_client_removed(&acme, "denied").expect("read"));
    let revoked = store.load_revocations().expect("read");
    assert_eq!((revoked.known.len(), revoked.unreadable), (1, 0));
    assert!(store.tenants_with_unreadable_removals().expect("read").is_empty());
    let step = RotateGrant {
        id,
        from_sequence: 3,
        client_id: "client".into(),
        now: NOW,
        expires_at: NOW + 30.seconds(),
        ends_at: NOW + 90.seconds(),
        payload: b"later".to_vec(),
    };
    assert!(store.rotate_refresh(&acme, step).expect("answered"), "it goes on");
    assert!(
        store.load_grant(&new_incarnation("acme"), id, NOW).expect("read").is_none(),
        "in that incarnation only"
    );
    // What did not open before does not open now, and nothing replaces it.
    let beta = incarnations
        .iter()
        .find(|kept| **kept.incarnation.tenant() == *"beta")
        .expect("it has an incarnation");
    assert!(matches!(store.load_signing_keys(&beta.incarnation), Err(Error::CannotUnseal)));
}

#[test]
fn an_older_master_key_can_be_removed_after_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = |lines: &[&str]| KeySource::Variable(crate::base::secret::Secret::new(lines.join("\n")));
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let acme = new_incarnation("acme");
    let store = open_auth_tables(folder.path(), &key(&[&old]));
    store.apply_incarnation_changes(&[begin_change(&acme, "a")]).expect("kept");
    drop(store);
    let store = open_auth_tables(folder.path(), &key(&[&new, &old]));
    let is_current = |store: &AuthTables| {
        let about: Vec<u8> = store
            .database
            .connection()
            .query_row("SELECT about FROM lives", [], |row| row.get(0))
            .expect("there");
        store.keyring.is_current(&about)
    };
    assert!(!is_current(&store));
    store.reseal_incarnations();
    assert!(is_current(&store));
    assert_eq!(store.load_incarnations().expect("read")[0].incarnation, acme);
}
