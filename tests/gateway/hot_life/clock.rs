//! Jumps of the wall clock while the gateway serves, as when a virtual machine resumes or a user
//! sets the time. Files are compared with their earlier state, never with a clock.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use tenantd::base::clock::{Clock, SystemClock};

use super::life::{Life, yaml};

/// The system clock with an offset that the test sets.
#[derive(Debug, Default)]
struct JumpingClock(Mutex<SignedDuration>);

impl JumpingClock {
    fn jump_to(&self, offset: SignedDuration) {
        *self.0.lock().expect("no holder of this lock panics") = offset;
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + *self.0.lock().expect("no holder of this lock panics")
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}

const DAY: i64 = 24;

#[tokio::test]
async fn files_come_change_and_go_whatever_the_clock_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join("tenants.d").join(name);
    fs::create_dir(file("")).expect("made");
    fs::write(file("steady.yaml"), yaml("steady", "")).expect("written");
    let clock = Arc::new(JumpingClock::default());
    let life = Life::start(folder.path(), clock.clone()).await;
    let steady = life.tenant("steady").expect("it serves");
    for (number, days) in [365, -3650, 0, -1].into_iter().enumerate() {
        clock.jump_to(SignedDuration::from_hours(days * DAY));
        // The file's modification time changes with the clock, too.
        let text = yaml("acme", &format!("description: Edition {number}\n"));
        fs::write(file("acme.yaml"), text).expect("written");
        let since_1970 = u64::try_from(clock.now().as_second()).expect("after 1970");
        let touched = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970);
        let written = fs::File::options().append(true).open(file("acme.yaml")).expect("opened");
        written.set_modified(touched).expect("touched");
        life.reconciler.reload().await.expect("it runs");
        let status = &life.statuses()["acme"];
        assert!(
            status.digest_in_force.is_some() && status.digest_in_force == status.digest_on_disk,
            "{days} days off: {status:?}"
        );
        let told = clock.now().duration_since(status.since);
        assert!(
            told.abs() < SignedDuration::from_hours(1),
            "{days} days off, it serves since {}",
            status.since
        );
        fs::remove_file(file("acme.yaml")).expect("removed");
        life.reconciler.reload().await.expect("it runs");
        assert!(life.tenant("acme").is_none(), "{days} days off, it is still there");
        let same = life.tenant("steady").is_some_and(|now| Arc::ptr_eq(&now, &steady));
        assert!(same, "{days} days off, another one was touched");
    }
}
