//! A token bucket in one word: the time at which it will be full again (the generic cell rate algorithm).
//!
//! 1. The word says when the bucket is full. A word in the past means that it is full now; each admitted cost moves the
//!    word up by the time in which the rate brings that cost.
//! 2. A cost is admitted if the word stays within the bucket's depth above now; a cost larger than the depth is admitted
//!    only by a full bucket, and leaves it in debt, which later time pays off before anything else is admitted.
//! 3. [`SWEPT`] is final: a bucket with this word has left its map and admits nothing; who meets it takes a new one.
//!
//! Every access is `Relaxed`: the word is all there is, nothing else is published through it, and a read-modify-write
//! always sees the newest value. What must not be lost is that each admission moves the word, which the
//! compare-and-swap holds under any ordering.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{cost::Cost, rate::Rate};

/// The word of a bucket that was swept away. No sum reaches it (asserted in `rate`).
const SWEPT: u64 = u64::MAX;

/// A bucket; new ones are full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
}

/// What a bucket says to a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Taken.
    Taken(Receipt),
    /// Not now; after so many ticks, if nobody else takes meanwhile.
    Wait { ticks: u64 },
    /// The bucket has left its map.
    Swept,
}

/// What was taken, to give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    before: u64,
    after: u64,
}

impl Bucket {
    /// Takes `cost` at `now` (ticks), or says how long to wait.
    pub(crate) fn take(&self, rate: Rate, cost: Cost, now: u64) -> Take {
        let mut before = self.full_at.load(Relaxed);
        loop {
            if before == SWEPT {
                return Take::Swept;
            }
            let after = match next(before, rate, cost, now) {
                Ok(after) => after,
                Err(ticks) => return Take::Wait { ticks },
            };
            match self.full_at.compare_exchange_weak(before, after, Relaxed, Relaxed) {
                Ok(_) => return Take::Taken(Receipt { before, after }),
                Err(changed) => before = changed,
            }
        }
    }

    /// How long `cost` would have to wait at `now`, ticks; 0: it would be admitted. Changes nothing.
    pub(crate) fn wait(&self, rate: Rate, cost: Cost, now: u64) -> u64 {
        match self.full_at.load(Relaxed) {
            SWEPT => 0,
            full_at => next(full_at, rate, cost, now).err().unwrap_or_default(),
        }
    }

    /// Gives back what was taken, if nobody has taken since. Else it stays taken: part of it may have been brought by
    /// time already, and to give that back as well would admit more than the rate.
    pub(crate) fn give_back(&self, receipt: Receipt) {
        // Failure needs no second try: see above.
        let _ = self.full_at.compare_exchange(receipt.after, receipt.before, Relaxed, Relaxed);
    }

    /// The events that would be admitted at once at `now`.
    pub(crate) fn remaining(&self, rate: Rate, now: u64) -> u64 {
        match self.full_at.load(Relaxed) {
            SWEPT => rate.burst(),
            full_at if full_at <= now => rate.burst(),
            full_at => rate.events_in(rate.depth().saturating_sub(full_at - now)),
        }
    }

    /// Marks a full bucket as swept; whether it is marked now.
    pub(crate) fn sweep(&self, now: u64) -> bool {
        let full_at = self.full_at.load(Relaxed);
        full_at == SWEPT || (full_at <= now && self.full_at.compare_exchange(full_at, SWEPT, Relaxed, Relaxed).is_ok())
    }

    pub(crate) fn is_swept(&self) -> bool {
        self.full_at.load(Relaxed) == SWEPT
    }
}

/// The word after `cost` is taken at `now`; `Err`: the ticks to wait until it could be.
fn next(full_at: u64, rate: Rate, cost: Cost, now: u64) -> Result<u64, u64> {
    let (price, depth) = (rate.price(cost), rate.depth());
    // An empty bucket is `depth` above now; a larger cost than the depth needs a full one.
    let highest = now + depth.saturating_sub(price);
    if full_at > highest { Err(full_at - highest) } else { Ok(full_at.max(now) + price) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is given back is there again, unless another took meanwhile; then nothing is, rather than too much.
    #[test]
    fn only_an_untouched_share_goes_back() {
        let rate = Rate::new(1_000_000_000, 10).unwrap();
        let cost = |events| Cost::new(events).unwrap();
        let bucket = Bucket::default();
        let Take::Taken(first) = bucket.take(rate, cost(4), 1_000) else { panic!("a new bucket is full") };
        assert_eq!(bucket.remaining(rate, 1_000), 6);
        bucket.give_back(first);
        assert_eq!(bucket.remaining(rate, 1_000), 10);

        let Take::Taken(first) = bucket.take(rate, cost(4), 1_000) else { panic!("it is full again") };
        assert!(matches!(bucket.take(rate, cost(1), 1_000), Take::Taken(_)));
        bucket.give_back(first);
        assert_eq!(bucket.remaining(rate, 1_000), 5);
    }

    /// Goal: a swept bucket gives nothing and is never a working one again; one that is not full is not swept.
    #[test]
    fn swept_is_final() {
        let rate = Rate::new(1_000_000_000, 10).unwrap();
        let cost = Cost::new(1).unwrap();
        let bucket = Bucket::default();
        let Take::Taken(receipt) = bucket.take(rate, cost, 1_000) else { panic!("a new bucket is full") };
        assert!(!bucket.sweep(1_015));
        assert!(bucket.sweep(1_016));
        bucket.give_back(receipt);
        assert_eq!(bucket.take(rate, cost, 1_000_000), Take::Swept);
    }
}
