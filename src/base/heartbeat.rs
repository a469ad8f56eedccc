//! Proof that loops go on. In each round, every registered loop answers from within its own turn,
//! between two pieces of work: a timer beside it would answer for a loop that hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;

use super::sync::lock;

/// The loops of one gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Rounds>);

#[derive(Debug, Default)]
struct Rounds {
    current: watch::Sender<u64>,
    pulses: Mutex<Vec<Weak<Pulse>>>,
}

/// One loop's part in the rounds, for as long as it is kept.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    /// The rounds that the loop may leave unanswered: its longest piece of work.
    patience: u64,
    answered: AtomicU64,
    current: watch::Sender<u64>,
}

/// What a loop awaits among its other events.
#[derive(Debug)]
pub struct Beats {
    pulse: Arc<Pulse>,
    current: watch::Receiver<u64>,
}

impl Heartbeats {
    /// Registers a loop, which may leave so many rounds unanswered before it counts as silent.
    pub fn register(&self, name: &'static str, patience: u64) -> Arc<Pulse> {
        let current = self.0.current.clone();
        let answered = AtomicU64::new(*current.borrow());
        let pulse = Arc::new(Pulse { name, patience, answered, current });
        let mut pulses = lock(&self.0.pulses);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    /// Begins a round, which every loop is to answer.
    pub fn begin_round(&self) {
        self.0.current.send_modify(|round| *round += 1);
    }

    /// Returns the loops that have not answered for longer than they may.
    pub fn silent(&self) -> Vec<&'static str> {
        let current = *self.0.current.borrow();
        let is_silent = |pulse: &Arc<Pulse>| {
            current.saturating_sub(pulse.answered.load(Ordering::Relaxed)) > pulse.patience
        };
        let pulses = lock(&self.0.pulses);
        pulses.iter().filter_map(Weak::upgrade).filter(is_silent).map(|pulse| pulse.name).collect()
    }
}

impl Pulse {
    /// Returns what the loop awaits.
    pub fn beats(self: &Arc<Self>) -> Beats {
        Beats { pulse: Arc::clone(self), current: self.current.subscribe() }
    }
}

impl Beats {
    /// Waits for the next round and answers it. Cancellation-safe.
    pub async fn next(&mut self) {
        // The pulse has a sender, so this cannot fail.
        let _open = self.current.changed().await;
        self.pulse.answered.store(*self.current.borrow_and_update(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_is_silent_once_it_leaves_more_rounds_unanswered_than_it_may() {
        let heartbeats = Heartbeats::default();
        heartbeats.begin_round();
        let (quick, slow) = (heartbeats.register("quick", 0), heartbeats.register("slow", 2));
        let mut beats = quick.beats();
        assert!(heartbeats.silent().is_empty(), "there was no round yet");
        heartbeats.begin_round();
        assert_eq!(heartbeats.silent(), ["quick"]);
        beats.next().await;
        assert!(heartbeats.silent().is_empty());
        heartbeats.begin_round();
        heartbeats.begin_round();
        beats.next().await;
        assert_eq!(heartbeats.silent(), ["slow"], "one answer is for all rounds so far");
        drop(slow);
        assert!(heartbeats.silent().is_empty(), "a loop that ended is not asked");
    }
}
