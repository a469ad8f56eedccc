//! The faults: a gateway or the database is killed, frozen, or cut off, and comes back.

use std::time::Duration;

use super::cluster::Cluster;
use super::dice::Dice;
use super::network::{Cut, DATABASE};

/// What happens to what; a number is a gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KilledGateway(usize),
    FrozenGateway(usize),
    /// Clients reach it, and it reaches Entra.
    CutOffFromDatabase(usize),
    /// What it writes arrives, and it is never told.
    DeafToDatabase(usize),
    CutOffGateway(usize),
    KilledDatabase,
    FrozenDatabase,
    CutOffDatabase,
}

impl Fault {
    /// Returns the fault of a round, and how long it lasts. Every kind has its turn, and in a long run
    /// each kind has a long one early.
    pub(super) fn of_round(
        round: usize,
        nodes: usize,
        is_long_run: bool,
        dice: &mut Dice,
    ) -> (Self, Duration) {
        let node = usize::try_from(dice.below(nodes as u64)).expect("small");
        let fault = match round % 8 {
            0 => Self::KilledGateway(node),
            1 => Self::KilledDatabase,
            2 => Self::FrozenGateway(node),
            3 => Self::FrozenDatabase,
            4 => Self::CutOffFromDatabase(node),
            5 => Self::CutOffDatabase,
            6 => Self::DeafToDatabase(node),
            _ => Self::CutOffGateway(node),
        };
        // Long enough, now and then, that a gateway may no longer vouch for what it knows.
        let is_long = is_long_run && round / 8 % 8 == 1;
        let millis = if is_long { 11_000 + dice.below(3_000) } else { 300 + dice.below(2_700) };
        (fault, Duration::from_millis(millis))
    }

    /// Returns its name without the number.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::KilledGateway(_) => "a gateway is killed",
            Self::FrozenGateway(_) => "a gateway is frozen",
            Self::CutOffFromDatabase(_) => "a gateway is cut off from the database",
            Self::DeafToDatabase(_) => "a gateway does not hear the database",
            Self::CutOffGateway(_) => "a gateway is cut off from everything",
            Self::KilledDatabase => "the database is killed",
            Self::FrozenDatabase => "the database is frozen",
            Self::CutOffDatabase => "the database is cut off",
        }
    }

    /// Returns the gateway that it is about.
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Self::KilledGateway(node)
            | Self::FrozenGateway(node)
            | Self::CutOffFromDatabase(node)
            | Self::DeafToDatabase(node)
            | Self::CutOffGateway(node) => Some(node),
            Self::KilledDatabase | Self::FrozenDatabase | Self::CutOffDatabase => None,
        }
    }

    pub(super) fn begin(self, cluster: &mut Cluster) {
        match self {
            Self::KilledGateway(node) => cluster.nodes[node].kill(),
            Self::FrozenGateway(node) => cluster.nodes[node].gateway().signal("STOP"),
            Self::CutOffFromDatabase(node) => cluster.nodes[node].machine.cut(Cut::Peer(DATABASE)),
            Self::DeafToDatabase(node) => cluster.nodes[node].machine.cut(Cut::AnswersOf(DATABASE)),
            Self::CutOffGateway(node) => cluster.nodes[node].machine.cut(Cut::Everything),
            Self::KilledDatabase => cluster.database.kill(),
            Self::FrozenDatabase => cluster.database.freeze(),
            Self::CutOffDatabase => cluster.database.machine.cut(Cut::Everything),
        }
    }

    /// Undoes it. What was killed is started.
    pub(super) async fn end(self, cluster: &mut Cluster) {
        match self {
            Self::KilledGateway(node) => cluster.nodes[node].start_again().await,
            Self::FrozenGateway(node) => cluster.nodes[node].gateway().signal("CONT"),
            Self::CutOffFromDatabase(node) | Self::DeafToDatabase(node) | Self::CutOffGateway(node) => {
                cluster.nodes[node].machine.heal();
            }
            Self::KilledDatabase => cluster.database.start_again().await,
            Self::FrozenDatabase => cluster.database.thaw(),
            Self::CutOffDatabase => cluster.database.machine.heal(),
        }
    }
}
