//! The findings about an entry that are not about what its files say.

use crate::base::diagnostic::Diagnostic;

pub(super) fn rolled_back_notice() -> Diagnostic {
    Diagnostic::notice(
        "rolled-back",
        "an operator rolled this tenant back: an older revision is in force instead of these files",
    )
    .help("it stays in force until the files change")
}

pub(super) fn rollback_lost_error() -> Diagnostic {
    Diagnostic::error(
        "rollback-lost",
        "the older revision that an operator put in force is no longer stored, or today's rules refuse it",
    )
    .help("change the files, or choose another revision with \"tenantd tenants rollback\"")
}

pub(super) fn rollback_missing_error(why: &str) -> Diagnostic {
    Diagnostic::error(
        "rollback-missing",
        format!("an operator put an older revision in force instead of these files, but not on this gateway: {why}"),
    )
    .help(
        "what was in force here stays; change the files, choose another revision with \"tenantd tenants rollback\", \
         or correct this gateway",
    )
}

pub(super) fn unpersisted_warning() -> Diagnostic {
    Diagnostic::warning(
        "not-kept",
        "this revision could not be written to the state folder; it would not survive a restart",
    )
    .help(
        "free space on the disk of the state folder, or make the folder writable; the gateway tries again \
           every 10 s",
    )
}
