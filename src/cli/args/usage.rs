//! The arguments of `tenantd usage`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::AdminArgs;
use crate::store::{UsageBy, UsagePer};

/// The arguments of `tenantd usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// A tenant's name [default: all tenants].
    pub tenant: Option<String>,
    /// The first day, or the time from which on, in UTC: 2026-11-01, 2026-11-01T10:00:00Z [default:
    /// the first of this month].
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// The last day, or the time up to which [default: today].
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// What to add up besides the tenant.
    #[arg(long, value_enum)]
    pub by: Option<UsageBy>,
    /// One row for each hour or day, instead of one sum. Hours are kept for 31 days, days for 400.
    #[arg(long, value_enum)]
    pub per: Option<UsagePer>,
    /// The output format.
    #[arg(long, value_enum, default_value_t)]
    pub format: UsageFormat,
    /// The gateway to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

impl ValueEnum for UsageBy {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Person => "Each person, key and program; anonymous callers are one",
            Self::Tool => "Each tool",
            Self::Client => "Each OAuth client",
        };
        Some(PossibleValue::new(self.as_str()).help(help))
    }
}

impl ValueEnum for UsagePer {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Hour => "One row for each hour",
            Self::Day => "One row for each day",
        };
        Some(PossibleValue::new(self.as_str()).help(help))
    }
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum UsageFormat {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values, with a line of names.
    Csv,
    /// For programs.
    Json,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd usage                                all tenants, this month
  tenantd usage acme --by person --from 2026-11-01 --to 2026-11-30
  tenantd usage acme --by tool --per day --format csv

Exit codes: 0 success, 1 the gateway refused, 2 the command could not run.";
