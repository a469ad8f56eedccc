//! What is known of the use of tenants, wherever it is kept: rows of the ledger, counts of quotas,
//! and reports.

/// How many rows of one tenant name a person or a client.
pub(super) const MAX_DETAIL_ROWS_PER_TENANT: i64 = 50_000;
/// How many rows the ledger has in all, from which on the oldest hours are dropped.
pub(super) const MAX_ROWS: i64 = 1_000_000;
/// Hours are kept for 31 days, days for 400.
pub(super) const HOURS_KEPT_SECONDS: i64 = 31 * 86_400;
pub(super) const DAYS_KEPT_SECONDS: i64 = 400 * 86_400;
/// Stands for the person and the client of all for whom there is no row of their own.
pub const OTHERS: &str = "(others)";

/// One hour (period 0) or day (period 1) of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LedgerPart {
    pub(super) period: i64,
    /// When it began, in seconds since 1970.
    pub(super) starts: i64,
}

/// What one person did with one client and one tool of a tenant in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The tenant's name.
    pub tenant: String,
    /// When the hour began, in seconds since 1970.
    pub starts: i64,
    /// What the caller counts as: `user:…`, `key:…`, `client:…`, or `anonymous`.
    pub person: String,
    /// The name by which people know the caller.
    pub name: String,
    /// The OAuth client; empty if there is none.
    pub client: String,
    /// The tool's listed name.
    pub tool: String,
    /// How much.
    pub counts: UsageCounts,
}

/// How often and how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageCounts {
    /// Calls, those with an error included.
    pub calls: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// The time that all calls took together.
    pub milliseconds: u64,
    /// Bytes of results.
    pub bytes: u64,
}

/// The counts of one allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredQuota {
    /// The tenant's name.
    pub tenant: String,
    /// `tenant`, `tool:NAME` or `caller:KEY`.
    pub scope: String,
    /// The day that was counted last, in days since 1970.
    pub day: i64,
    /// The month that was counted last, in months since the year 0.
    pub month: i64,
    /// Calls of that day.
    pub calls_per_day: u64,
    /// Calls of that month.
    pub calls_per_month: u64,
    /// Bytes of that day.
    pub bytes_per_day: u64,
    /// Bytes of that month.
    pub bytes_per_month: u64,
}

/// What was used since the last write.
#[derive(Debug, Clone, Default)]
pub struct UsageBatch {
    /// The rows to add to the ledger.
    pub rows: Vec<UsageRow>,
    /// The counts of this gateway to replace, in a file.
    pub quotas: Vec<StoredQuota>,
    /// What was used of quotas, to be added to what other gateways used, in a database.
    pub uses: Vec<QuotaUse>,
}

impl UsageBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.quotas.is_empty() && self.uses.is_empty()
    }
}

/// By what a report adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// By person, key or program.
    Person,
    /// By tool.
    Tool,
    /// By OAuth client.
    Client,
}

impl UsageBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Person, Self::Tool, Self::Client];

    /// Returns its name in the command line and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Tool => "tool",
            Self::Client => "client",
        }
    }
}

/// The periods of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsagePer {
    /// One for each hour.
    Hour,
    /// One for each day.
    Day,
}

impl UsagePer {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    /// Returns its name in the command line and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// What a report is about.
#[derive(Debug, Clone, Default)]
pub struct UsageQuery {
    /// One tenant, or all.
    pub tenant: Option<String>,
    /// From this second since 1970.
    pub from: i64,
    /// Up to this second, which is not included.
    pub to: i64,
    /// By what it adds up besides the tenant.
    pub by: Option<UsageBy>,
    /// The periods; `None` for one sum.
    pub per: Option<UsagePer>,
    /// The most rows that are returned.
    pub limit: usize,
}

/// A row of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// The tenant's name.
    pub tenant: String,
    /// When the period began, in seconds since 1970, if there are periods.
    pub starts: Option<i64>,
    /// The person, tool or client.
    pub who: Option<String>,
    /// The name by which people know the person.
    pub name: Option<String>,
    /// How much.
    pub counts: UsageCounts,
}

impl UsageQuery {
    /// Whether it is about parts of days. Sums over whole days come from the days, which are kept
    /// longer.
    pub(super) fn needs_hours(&self) -> bool {
        self.per == Some(UsagePer::Hour)
            || [self.from, self.to].iter().any(|second| second.rem_euclid(86_400) != 0)
    }
}

/// A day or a month of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaPeriod {
    /// Days since 1970.
    Day(i64),
    /// Months since the year 0.
    Month(i64),
}

/// What was used of one allowance in one day or month: by one gateway since its last batch, or by
/// all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    /// The tenant's name.
    pub tenant: String,
    /// `tenant`, `tool:NAME` or `caller:KEY`.
    pub scope: String,
    /// When.
    pub period: QuotaPeriod,
    /// Calls.
    pub calls: u64,
    /// Bytes of results.
    pub bytes: u64,
}

impl QuotaPeriod {
    pub(super) fn columns(self) -> (i64, i64) {
        match self {
            Self::Day(number) => (0, number),
            Self::Month(number) => (1, number),
        }
    }

    pub(super) fn from_columns(period: i16, number: i64) -> Self {
        match period {
            0 => Self::Day(number),
            _ => Self::Month(number),
        }
    }
}
