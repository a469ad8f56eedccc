//! The PostgreSQL database of logins, if the settings name one: whether the gateway could use it, and
//! what would be lost with its server.

use jiff::SignedDuration;

use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::gateway::database_address;
use crate::store::DatabaseExamination;

const DATABASE: Examination = Examination::Database;
/// Gateways tell by the server's clock who is live, and by their own which tokens are.
const MAX_DIFFERENCE: SignedDuration = SignedDuration::from_secs(5);
/// What a gateway needs.
const CONNECTIONS: i64 = 10;

/// Examines the database. Nothing is created or changed there.
pub(super) async fn examine(patient: &Patient) -> Vec<DoctorVerdict> {
    let address = match database_address(&patient.settings.store) {
        Ok(Some(address)) => address,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![judge_fault("the database of logins", error.to_string())],
    };
    let place = address.shown().to_owned();
    match Box::pin(address.examine()).await {
        Ok(found) => judge(&place, &found),
        Err(error) => vec![judge_fault(&place, error.to_string())],
    }
}

fn judge_fault(place: &str, found: String) -> DoctorVerdict {
    DoctorVerdict::fault(DATABASE, "database-unusable", place, found)
        .meaning(
            "a gateway does not start; one that runs goes on with calls whose tokens it knows, and answers logins \
             and renewals with 503",
        )
        .advice("what was found says what to change; then run this again")
}

fn judge(place: &str, found: &DatabaseExamination) -> Vec<DoctorVerdict> {
    let mut verdicts = vec![DoctorVerdict::ok(DATABASE, "database-good", place, describe(found))];
    if found.clock_difference.abs() > MAX_DIFFERENCE {
        let seconds = found.clock_difference.as_secs().unsigned_abs();
        let direction = if found.clock_difference.is_positive() { "ahead of" } else { "behind" };
        let told = format!("the server's clock is {seconds} s {direction} this machine's");
        verdicts.push(
            DoctorVerdict::warning(DATABASE, "database-clock", place, told)
                .meaning("codes and refresh tokens count for longer or shorter than they should")
                .advice("switch time synchronization on, on both machines"),
        );
    }
    if found.replicas > 0 && !found.waits_for_replica {
        let told = format!(
            "{} replicas follow the server, and it acknowledges what none of them has",
            found.replicas
        );
        verdicts.push(
            DoctorVerdict::warning(DATABASE, "database-replica-behind", place, told)
                .meaning(
                    "if a replica is promoted, the last logins and renewals are lost: these people log in again",
                )
                .advice("set synchronous_standby_names there, or synchronous_mode in Patroni"),
        );
    }
    if found.free_connections < CONNECTIONS {
        let told = format!("the server takes {} more connections", found.free_connections.max(0));
        verdicts.push(
            DoctorVerdict::warning(DATABASE, "database-connections", place, told)
                .meaning(format!("a gateway needs up to {CONNECTIONS}; logins wait for one that is free"))
                .advice("raise max_connections, or put a pooler in transaction mode in front"),
        );
    }
    verdicts
}

fn describe(found: &DatabaseExamination) -> String {
    let schema = match found.schema {
        0 => "no schema yet".to_owned(),
        version if version < found.known_schema => {
            format!("schema {version}, which the next start upgrades to {}", found.known_schema)
        }
        version => format!("schema {version}"),
    };
    format!(
        "PostgreSQL {}, {}, {schema}; changes of other gateways are {}",
        found.server_version,
        if found.is_encrypted { "encrypted and verified" } else { "not encrypted" },
        match found.hears_changes {
            true => "heard at once",
            false => "asked for every second (a pooler in transaction mode tells nobody)",
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_or_late_is_a_warning() {
        let good = DatabaseExamination {
            server_version: "15.14".into(),
            is_encrypted: true,
            schema: 3,
            known_schema: 3,
            clock_difference: SignedDuration::from_secs(-5),
            replicas: 1,
            waits_for_replica: true,
            free_connections: 10,
            hears_changes: true,
        };
        let codes = |found: DatabaseExamination| {
            judge("db", &found).into_iter().map(|verdict| verdict.code.into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(codes(good.clone()), ["database-good"]);
        let late = DatabaseExamination { clock_difference: SignedDuration::from_secs(6), ..good.clone() };
        assert_eq!(codes(late), ["database-good", "database-clock"]);
        let lossy = DatabaseExamination { waits_for_replica: false, ..good.clone() };
        assert_eq!(codes(lossy), ["database-good", "database-replica-behind"]);
        let full = DatabaseExamination { free_connections: 9, ..good };
        assert_eq!(codes(full), ["database-good", "database-connections"]);
    }
}
