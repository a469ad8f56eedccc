//! The states of tenants as the console shows them.

use crate::tenants::PublishedEntry;
use crate::tenants::status::TenantState;

/// A state by its word and its sign, which differ for each: a tenant that was paused is told from
/// one that its files disable. In the order of the list: trouble first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DisplayState {
    Rejected,
    Stale,
    Held,
    Degraded,
    Loading,
    Paused,
    Disabled,
    Serving,
}

impl DisplayState {
    pub(super) const ALL: [Self; 8] = [
        Self::Rejected,
        Self::Stale,
        Self::Held,
        Self::Degraded,
        Self::Loading,
        Self::Paused,
        Self::Disabled,
        Self::Serving,
    ];

    /// Returns the state with this word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Returns the word, which is also the name of its sign in the style.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Stale => "stale",
            Self::Held => "held",
            Self::Degraded => "degraded",
            Self::Loading => "loading",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Serving => "serving",
        }
    }

    /// Whether somebody has to do something about it.
    pub(super) fn is_trouble(self) -> bool {
        matches!(self, Self::Rejected | Self::Stale | Self::Held | Self::Degraded)
    }
}

impl From<&PublishedEntry> for DisplayState {
    fn from(entry: &PublishedEntry) -> Self {
        match entry.current_state() {
            TenantState::Rejected => Self::Rejected,
            TenantState::Stale => Self::Stale,
            TenantState::Held => Self::Held,
            TenantState::Degraded => Self::Degraded,
            TenantState::Loading => Self::Loading,
            TenantState::Disabled if entry.is_paused() => Self::Paused,
            TenantState::Disabled => Self::Disabled,
            TenantState::Serving => Self::Serving,
        }
    }
}
