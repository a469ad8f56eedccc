//! Rows of usage and counts of quotas, column by column, as statements take them.

use std::borrow::Cow;

use crate::store::auth::postgres::Value;
use crate::store::usage::{QuotaUse, UsageCounts, UsageRow};

/// Rows of the ledger.
pub(super) struct RowColumns<'a> {
    rows: &'a [UsageRow],
    texts: Vec<[Cow<'a, str>; 5]>,
}

/// Counts of quotas.
pub(super) struct QuotaColumns<'a> {
    uses: &'a [QuotaUse],
    texts: Vec<[Cow<'a, str>; 2]>,
}

impl<'a> RowColumns<'a> {
    pub(super) fn new(rows: &'a [UsageRow]) -> Self {
        let texts = |row: &'a UsageRow| {
            [&row.tenant, &row.person, &row.client, &row.tool, &row.name].map(|text| storable(text))
        };
        Self { rows, texts: rows.iter().map(texts).collect() }
    }

    /// Returns tenant, person, client, tool and name.
    pub(super) fn texts(&self) -> [Value<'_>; 5] {
        [0, 1, 2, 3, 4].map(|at| Value::Texts(self.texts.iter().map(|row| &*row[at]).collect()))
    }

    /// Returns calls, errors, milliseconds and bytes.
    pub(super) fn counts(&self) -> [Value<'_>; 4] {
        let count = |of: fn(&UsageCounts) -> u64| {
            Value::Numbers(self.rows.iter().map(|row| to_integer(of(&row.counts))).collect())
        };
        [
            count(|counts| counts.calls),
            count(|counts| counts.errors),
            count(|counts| counts.milliseconds),
            count(|counts| counts.bytes),
        ]
    }
}

impl<'a> QuotaColumns<'a> {
    pub(super) fn new(uses: &'a [QuotaUse]) -> Self {
        let texts = |it: &'a QuotaUse| [&it.tenant, &it.scope].map(|text| storable(text));
        Self { uses, texts: uses.iter().map(texts).collect() }
    }

    /// Returns tenant, scope, period, number, calls and bytes.
    pub(super) fn values(&self) -> [Value<'_>; 6] {
        let text = |at: usize| Value::Texts(self.texts.iter().map(|row| &*row[at]).collect());
        let number = |of: fn(&QuotaUse) -> i64| Value::Numbers(self.uses.iter().map(of).collect());
        [
            text(0),
            text(1),
            number(|it| it.period.columns().0),
            number(|it| it.period.columns().1),
            number(|it| to_integer(it.calls)),
            number(|it| to_integer(it.bytes)),
        ]
    }
}

/// Returns a text without the one character that PostgreSQL does not take.
fn storable(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
