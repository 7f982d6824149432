//! What the clients know of their events: which are certain to count, and which may.
//!
//! 1. A lane sends its batches in the order of their numbers, so a number says what was sent, another what is settled.
//! 2. A batch is settled when its ack is there, or when its client gave up: then it is open whether it counts. After the
//!    server has died, what it holds of such a batch is final, and is looked up once.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::event::Lane;
use crate::random::Random;

/// A set of events: of each lane those of a range of numbers, as a rule from the first, but for some.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known([Part; Lane::ALL.len()]);

#[derive(Debug, Clone, Default)]
struct Part {
    from: u64,
    before: u64,
    without: Arc<BTreeSet<u64>>,
}

impl Known {
    /// Some events of a lane.
    pub(crate) fn of(lane: Lane, numbers: Range<u64>) -> Self {
        let mut known = Self::default();
        known.0[lane as usize] = Part { from: numbers.start, before: numbers.end, without: Arc::default() };
        known
    }

    /// Events of a lane below this number.
    pub(crate) fn before(&self, lane: Lane) -> u64 {
        self.0[lane as usize].before
    }

    /// Whether it holds an event.
    pub(crate) fn contains(&self, lane: Lane, number: u64) -> bool {
        let part = &self.0[lane as usize];
        (part.from..part.before).contains(&number) && !part.without.contains(&number)
    }

    /// Of each lane the state that knows more.
    pub(crate) fn later(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|lane| {
            let (a, b) = (&self.0[lane], &other.0[lane]);
            if a.before >= b.before { a.clone() } else { b.clone() }
        }))
    }

    /// Only what is known of one lane.
    pub(crate) fn only(mut self, lane: Lane) -> Self {
        let part = std::mem::take(&mut self.0[lane as usize]);
        let mut only = Self::default();
        only.0[lane as usize] = part;
        only
    }

    /// All events of it.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|part| part.before - part.from - part.without.len() as u64).sum()
    }
}

/// A lane's batches.
#[derive(Debug, Default)]
struct Track {
    sent_at: Vec<Instant>,
    settled: u64,
    /// Batches that were given up, and in which life of the server.
    open: BTreeMap<u64, u64>,
    /// All that were ever given up.
    given_up: BTreeSet<u64>,
    /// Events of given up batches that the server does not have.
    absent: Arc<BTreeSet<u64>>,
}

/// The state of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Oracle([Track; Lane::ALL.len()]);

impl Oracle {
    /// A lane's next batch is about to be sent; its number.
    pub(crate) fn send(&mut self, lane: Lane) -> u64 {
        let track = &mut self.0[lane as usize];
        track.sent_at.push(Instant::now());
        track.sent_at.len() as u64 - 1
    }

    /// Batches of a lane that were sent.
    pub(crate) fn sent(&self, lane: Lane) -> u64 {
        self.0[lane as usize].sent_at.len() as u64
    }

    /// All batches of a lane below `batches` are acked; the longest that one of them took since it was first sent.
    pub(crate) fn settle(&mut self, lane: Lane, batches: u64) -> Duration {
        let track = &mut self.0[lane as usize];
        let earlier = std::mem::replace(&mut track.settled, batches);
        let news = &track.sent_at[earlier as usize..batches as usize];
        news.iter().map(Instant::elapsed).max().unwrap_or_default()
    }

    /// A lane gives up a batch, the last that it sent.
    pub(crate) fn give_up(&mut self, lane: Lane, batch: u64, life: u64) {
        let track = &mut self.0[lane as usize];
        track.open.insert(batch, life);
        track.given_up.insert(batch);
        track.settled = batch + 1;
    }

    /// Batches given up in lives of the server before `life`: what became of them is final.
    pub(crate) fn open_before(&self, life: u64) -> Vec<(Lane, u64)> {
        let of = |lane: Lane| self.0[lane as usize].open.iter().map(move |(&batch, &life)| (lane, batch, life));
        let all = Lane::ALL.into_iter().flat_map(of);
        all.filter(|(_, _, given_up_in)| *given_up_in < life).map(|(lane, batch, _)| (lane, batch)).collect()
    }

    /// What became of a batch that was given up: all of its events but `absent` are there.
    pub(crate) fn resolve(&mut self, lane: Lane, batch: u64, absent: &BTreeSet<u64>) {
        let track = &mut self.0[lane as usize];
        track.open.remove(&batch);
        Arc::make_mut(&mut track.absent).extend(absent);
    }

    /// Events that every answer has to count, once it covers their acks.
    pub(crate) fn certain(&self) -> Known {
        Known(std::array::from_fn(|at| {
            let (track, lane) = (&self.0[at], Lane::ALL[at]);
            let mut without = Arc::clone(&track.absent);
            if !track.open.is_empty() {
                let open = track.open.keys().flat_map(|batch| lane.numbers(*batch));
                Arc::make_mut(&mut without).extend(open);
            }
            Part { from: 0, before: track.settled * lane.batch_rows(), without }
        }))
    }

    /// Events that an answer may count.
    pub(crate) fn possible(&self) -> Known {
        Known(std::array::from_fn(|at| {
            let (track, lane) = (&self.0[at], Lane::ALL[at]);
            let before = track.sent_at.len() as u64 * lane.batch_rows();
            Part { from: 0, before, without: Arc::clone(&track.absent) }
        }))
    }

    /// An acked batch of a lane that was first sent within `age`.
    pub(crate) fn recent(&self, lane: Lane, age: Duration, random: &mut Random) -> Option<u64> {
        let track = &self.0[lane as usize];
        let first = track.sent_at.partition_point(|sent| sent.elapsed() > age) as u64;
        if first >= track.settled {
            return None;
        }
        let batch = random.within(first..track.settled);
        // Sent again, a batch that was given up may count after all.
        (!track.given_up.contains(&batch)).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a batch counts for certain from its ack, may count from its sending, and if it was given up counts as it was found.
    #[test]
    fn batches_are_told_apart() {
        let lane = Lane::Lines;
        let rows = lane.batch_rows();
        let mut oracle = Oracle::default();
        let first = oracle.send(lane);
        assert!(!oracle.certain().contains(lane, 0) && oracle.possible().contains(lane, rows - 1));
        oracle.settle(lane, first + 1);
        let second = oracle.send(lane);
        oracle.give_up(lane, second, 1);
        assert!(oracle.certain().contains(lane, rows - 1) && !oracle.certain().contains(lane, rows));
        assert!(oracle.possible().contains(lane, rows));
        assert!(oracle.open_before(1).is_empty());
        assert_eq!(oracle.open_before(2), [(lane, second)]);
        oracle.resolve(lane, second, &BTreeSet::from([rows]));
        for known in [oracle.certain(), oracle.possible()] {
            assert!(!known.contains(lane, rows) && known.contains(lane, rows + 1));
            assert_eq!(known.len(), 2 * rows - 1);
        }
    }
}
