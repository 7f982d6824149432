//! Which rows of checkpoints come back where memory became smaller: the newest of all partitions together, as in any eviction.
//!
//! 1. Each partition takes a [`Seat`], reads all but its sealed rows, and says which of these it has. The last to say so
//!    knows what memory has room for, and decides for all. Who leaves without having said anything is not waited for.
//! 2. So many read at a time as there are places. Who waits for the others has given back its place, so that the partitions
//!    may be more than the places.
//! 3. It is decided once: whoever begins again, with an older checkpoint, goes by the same time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use engine::{MemoryBudget, SealedRows, newest_within};
use types::Timestamp;

/// Where the partitions of a node meet.
pub(crate) struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
    budget: Arc<MemoryBudget>,
}

struct State {
    /// Partitions that have neither said what they have nor left.
    awaited: usize,
    /// Places that are free.
    places: usize,
    sealed: Vec<SealedRows>,
    decided: Option<Timestamp>,
}

/// A partition's part in a meeting.
pub(crate) struct Seat<'a> {
    meeting: &'a Meeting,
    spoke: bool,
}

impl Meeting {
    /// Of so many partitions, of which so many may read at a time.
    pub(crate) fn new(partitions: usize, places: usize, budget: &Arc<MemoryBudget>) -> Self {
        let state = State { awaited: partitions, places: places.max(1), sealed: Vec::new(), decided: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), budget: Arc::clone(budget) }
    }

    /// Waits for a place.
    pub(crate) fn join(&self) -> Seat<'_> {
        self.sit(self.state());
        Seat { meeting: self, spoke: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics in here")
    }

    fn sit(&self, state: MutexGuard<'_, State>) {
        let mut state = self.changed.wait_while(state, |state| state.places == 0).expect("nobody panics in here");
        state.places -= 1;
    }

    /// One less is awaited.
    fn heard(&self, state: &mut State) {
        state.awaited -= 1;
        if state.awaited == 0 {
            state.decided = Some(newest_within(self.budget.room(), std::mem::take(&mut state.sealed)));
        }
    }
}

impl Seat<'_> {
    /// From which time on sealed rows come back, once all have spoken.
    pub(crate) fn speak(&mut self, sealed: &[SealedRows]) -> Timestamp {
        let meeting = self.meeting;
        let mut state = meeting.state();
        if !std::mem::replace(&mut self.spoke, true) {
            state.sealed.extend_from_slice(sealed);
            meeting.heard(&mut state);
        }
        if let Some(decided) = state.decided {
            meeting.changed.notify_all();
            return decided;
        }
        state.places += 1;
        meeting.changed.notify_all();
        let undecided = |state: &mut State| state.decided.is_none();
        let state = meeting.changed.wait_while(state, undecided).expect("nobody panics in here");
        let decided = state.decided.expect("waited for");
        meeting.sit(state);
        decided
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.meeting.state();
        state.places += 1;
        if !self.spoke {
            self.meeting.heard(&mut state);
        }
        self.meeting.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Goal: with fewer places than partitions all get the time that the sum of what they have makes it, also those that
    /// ask again, and one that leaves without a word is not waited for.
    #[test]
    fn one_time_is_decided_for_all() {
        for (partitions, places) in [(1, 1), (5, 1), (5, 2), (5, 9)] {
            let meeting = Meeting::new(partitions + 1, places, &Arc::new(MemoryBudget::new(3_200)));
            let rows = |time| SealedRows { time_max: Timestamp(time), bytes: 310 };
            let decided: Vec<Timestamp> = thread::scope(|scope| {
                let leaves = scope.spawn(|| drop(meeting.join()));
                let speaks = |partition: usize| {
                    let mut seat = meeting.join();
                    let sealed: Vec<_> = (0..4).map(|n| rows(n * 100 + partition as i64)).collect();
                    let first = seat.speak(&sealed);
                    assert_eq!(seat.speak(&sealed), first);
                    first
                };
                let threads: Vec<_> = (0..partitions).map(|partition| scope.spawn(move || speaks(partition))).collect();
                leaves.join().unwrap();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            // Room for 3,100 bytes: all four of one partition, or ten of five times four, and not the next, of 104.
            let expected = if partitions == 1 { Timestamp::MIN } else { Timestamp(105) };
            assert_eq!(decided, vec![expected; partitions], "{partitions} partitions, {places} places");
            let state = meeting.state.into_inner().unwrap();
            assert_eq!((state.awaited, state.places), (0, places));
        }
    }
}
