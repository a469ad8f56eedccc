pub(crate) mod flaky_proxy;
#[expect(dead_code, reason = "tests of whole gateways use the rest")]
pub(crate) mod postgres_cluster;
pub(crate) mod postgres_server;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn open_store(folder: &Path) -> Result<Store, Error> {
    Store::open(folder, &KeySource::State)
}

fn permission_bits(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn files_of_the_store_are_private_to_their_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("made");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("changed");
    let store = open_store(&state).expect("opened");
    assert_eq!(permission_bits(&state), 0o700);
    for entry in fs::read_dir(&state).expect("listed").flatten() {
        assert_eq!(permission_bits(&entry.path()), 0o600, "{}", entry.path().display());
    }
    assert!(!format!("{store:?}").contains("key"));
}

#[test]
fn a_second_process_is_refused_while_the_first_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open_store(folder.path()).expect("opened");
    assert!(matches!(open_store(folder.path()), Err(Error::InUse { .. })));
    drop(first);
    open_store(folder.path()).expect("opened again");
}

#[test]
fn a_newer_schema_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_store(folder.path()).expect("made"));
    let file = folder.path().join(DATABASE);
    Connection::open(&file).and_then(|it| it.pragma_update(None, "user_version", 99)).expect("changed");
    let error = open_store(folder.path()).expect_err("newer");
    assert!(matches!(error, Error::NewerSchema { found: 99, .. }), "{error}");
    let found = Connection::open(&file).and_then(|it| schema::version(&it)).expect("read");
    assert_eq!(found, 99);
}

/// Creates a state folder as an earlier version leaves it when it is killed: its last writes are in
/// the write-ahead log.
fn write_older_version(at: &Path) {
    let alive = tempfile::tempdir().expect("a folder");
    drop(Keyring::load(alive.path(), &KeySource::State, true).unwrap_or_else(|error| panic!("{error}")));
    let mut connection = Connection::open(alive.path().join(DATABASE)).expect("made");
    schema::configure(&connection).expect("prepared");
    let keys =
        Keyring::load(alive.path(), &KeySource::State, false).unwrap_or_else(|error| panic!("{error}"));
    migration::apply_migrations(&mut connection, &keys, 0, 1).expect("made");
    connection.execute("INSERT INTO entries (stem, paused) VALUES ('acme', 1)", []).expect("written");
    for name in [DATABASE, WAL, "master.key"] {
        fs::copy(alive.path().join(name), at.join(name)).expect("copied");
    }
}

#[test]
fn check_and_backup_do_not_change_the_file_of_any_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("made");
    write_older_version(&state);
    let bytes = || [DATABASE, WAL].map(|name| fs::read(state.join(name)).expect("there"));
    let before = bytes();
    assert!(!before[1].is_empty(), "the log is empty");

    let sound = check(&state, &KeySource::State).expect("sound");
    assert_eq!((sound.schema, sound.known, sound.entries), (1, schema::CURRENT_VERSION, 1));
    let store = Store::open_unmodified(&state, &KeySource::State).expect("opened");
    let copy = folder.path().join("copy.db");
    store.backup(&copy).expect("copied");
    drop(store);
    assert!(bytes() == before, "something was written");

    let copied = Connection::open(&copy).expect("opened");
    assert_eq!(schema::version(&copied).expect("read"), 1);
    let paused: bool = copied.query_row("SELECT paused FROM entries", [], |row| row.get(0)).expect("there");
    assert!(paused);
    let sound =
        open_store(&state).map(drop).and_then(|()| check(&state, &KeySource::State)).expect("brought up");
    assert_eq!((sound.schema, sound.entries), (schema::CURRENT_VERSION, 1));
}

#[test]
fn a_damaged_file_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_store(folder.path()).expect("made"));
    let file = folder.path().join(DATABASE);
    for damage in [&b"no database"[..], &[0xff; 9000]] {
        fs::write(&file, damage).expect("written");
        let error = open_store(folder.path()).expect_err("damaged");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&file).expect("read"), damage);
    }
}

#[test]
fn another_master_key_is_refused_at_open() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open_store(folder.path()).expect("made"));
    fs::write(folder.path().join("master.key"), "ab".repeat(32)).expect("written");
    let error = open_store(folder.path()).expect_err("another key");
    assert!(matches!(error, Error::Key(keyring::Error::DoesNotFit)), "{error}");
}

#[test]
fn an_old_key_can_be_removed_once_another_is_current() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("master.key");
    drop(open_store(folder.path()).expect("made"));
    let old = fs::read_to_string(&key).expect("read");
    let new = "ab".repeat(32);
    fs::write(&key, format!("{new}\n{old}")).expect("written");
    drop(open_store(folder.path()).expect("both lines open"));
    fs::write(&key, &new).expect("written");
    open_store(folder.path()).expect("nothing needs the old line any more");
}

#[test]
fn a_folder_that_cannot_be_created_differs_from_an_existing_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").expect("written");
    assert!(open_store(&blocked.join("state")).expect_err("blocked").is_uncreatable());
}

#[test]
fn a_backup_can_be_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let (state, copy) = (folder.path().join("state"), folder.path().join("copy.db"));
    let store = open_store(&state).expect("made");
    store.backup(&copy).expect("copied");
    assert_eq!(permission_bits(&copy), 0o600);
    assert!(store.backup(&copy).is_err(), "a file that is there is not written over");
    assert!(matches!(restore(&state, &copy), Err(Error::InUse { .. })));
    drop(store);
    fs::write(state.join(DATABASE), "damaged").expect("written");
    let aside = restore(&state, &copy).expect("restored").expect("the old one is kept");
    assert_eq!(fs::read(aside).expect("there"), b"damaged");
    check(&state, &KeySource::State).expect("sound");
    fs::write(&copy, "no database").expect("written");
    assert!(matches!(restore(&state, &copy), Err(Error::Damaged { .. })));
    Connection::open(folder.path().join("other.db"))
        .and_then(|it| it.execute_batch("CREATE TABLE x (y)"))
        .expect("made");
    assert!(matches!(restore(&state, &folder.path().join("other.db")), Err(Error::Damaged { .. })));
}
